"""The page with a model of records: where a record ends, what may stand in place of its end, and what follows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, running_browser
from serving import ServerProcess, running_server
from test_page import POINTS, fill, write

import gentext

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")]
#: Characters that a record may have in these tests.
LENGTH = 60
MARK = "document.querySelector('.backdrop .end')"
#: The choice that ends the record, in the window of alternatives.
END_CHOICE = "document.querySelector('.alternatives button.ends:not([aria-current])')"
OTHER_CHOICE = "document.querySelector('.alternatives button:not(.ends):not([aria-current])')"
ENDED = "The record has ended. Write begins another one."


@pytest.fixture(scope="module")
def file(tiny_records_run: Path) -> Path:
    return tiny_records_run / "generator.onnx"


@pytest.fixture(scope="module")
def model(file: Path) -> gentext.TextModel:
    return gentext.load(file)


@pytest.fixture(scope="module")
def seed(model: gentext.TextModel) -> int:
    """A seed with which this record and the next one end."""
    finishes = [model.write_many(["ab"], length=LENGTH, seed=seed)[0].finish for seed in range(40)]
    return next(seed for seed in range(1, 39) if finishes[seed] == finishes[seed + 1] == "end")


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[ServerProcess]:
    with running_server(f"records={file}", "--workers", "1", "--slots", "4") as process:
        yield process


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser, server: ServerProcess, seed: int) -> Iterator[Browser]:
    """The page of the server, in which a record was begun with "ab"."""
    chromium.errors.clear()
    chromium.open(server.url)
    fill(chromium, "length", LENGTH)
    fill(chromium, "seed", seed)
    chromium.run("document.querySelector('#text').focus()")
    chromium.type("ab")
    yield chromium
    assert chromium.errors == []


def is_ended(browser: Browser) -> bool:
    return bool(browser.run(f"{MARK} !== null"))


def test_a_record_ends(browser: Browser, model: gentext.TextModel, seed: int) -> None:
    first, second = ("ab" + model.write("ab", length=LENGTH, seed=seed + number) for number in range(2))
    assert not is_ended(browser)
    assert (write(browser), is_ended(browser), browser.status) == (first, True, ENDED)
    assert browser.run("document.querySelectorAll('.symbol:not(.end)').length") == len(first)
    # Writing on is writing another record behind the same beginning; the first one stays.
    assert (write(browser), is_ended(browser)) == (second, True)
    browser.press("Alt+ArrowLeft")
    assert (browser.text, is_ended(browser)) == (first, True)
    browser.press("Control+z")
    assert browser.text == second
    browser.press("Control+z")
    assert (browser.text, is_ended(browser)) == (first, True)
    assert write(browser, "Alt+Enter").startswith("ab") and browser.run(POINTS) == 5


def test_typing_behind_the_end_takes_it_away(browser: Browser) -> None:
    record = write(browser)
    browser.type("b")
    assert (browser.text, is_ended(browser)) == (f"{record}b", False)
    browser.press("Backspace")
    assert (browser.text, is_ended(browser)) == (record, True), "what was typed is taken back"
    browser.type("a")
    browser.press("Control+z")
    assert (browser.text, is_ended(browser)) == (record, True)
    browser.press("Control+Shift+z")
    assert browser.text == f"{record}a" and write(browser).startswith(f"{record}a")
    browser.run("document.querySelector('#text').setSelectionRange(3, 4)")
    browser.type("b")
    assert not is_ended(browser)


def test_alternatives_to_the_end(browser: Browser) -> None:
    record = write(browser)
    browser.click(MARK)
    assert browser.run("document.querySelector('.alternatives b').textContent") == "end"
    label = browser.run("document.querySelector('.alternatives [aria-current]').ariaLabel")
    assert label.startswith("end of the record") and label.endswith("in the text")
    browser.click(OTHER_CHOICE)
    browser.wait_until_written()
    assert browser.text.startswith(record) and len(browser.text) > len(record)
    browser.press("Alt+ArrowUp")
    browser.press("Alt+ArrowUp")
    assert (browser.text, is_ended(browser)) == (record, False), "the end is a branch of its own now"
    browser.press("Alt+ArrowDown")
    browser.press("Alt+ArrowLeft")
    assert (browser.text, is_ended(browser)) == (record, True)


def test_a_branch_that_ends(browser: Browser, server: ServerProcess) -> None:
    record = write(browser)
    places = "[...document.querySelectorAll('.backdrop .symbol:not(.end)')]"
    for place in range(2, len(record)):
        browser.click(f"{places}[{place}]")
        if browser.run(f"{END_CHOICE} !== null"):
            break
        browser.press("Escape")
    browser.click(END_CHOICE)
    assert (browser.text, is_ended(browser), browser.status) == (record[:place], True, ENDED)
    browser.click(MARK)
    assert browser.run("document.querySelector('.alternatives [aria-current]').className") == "ends"
    browser.press("Escape")
    browser.click("document.querySelector('#link')")
    browser.wait("location.hash")
    browser.open(browser.run("location.href"))
    browser.wait(f"{MARK} && document.querySelector('#text').value === {json.dumps(record[:place])}")
    browser.run("document.querySelector('#text').focus()")
    assert write(browser).startswith(record[:place])


def test_link_and_memory_of_a_record(browser: Browser, server: ServerProcess) -> None:
    record = write(browser)
    browser.click("document.querySelector('#remember')")
    browser.open(server.url)
    assert (browser.text, is_ended(browser)) == (record, True)
    browser.click("document.querySelector('#remember')")
    browser.click("document.querySelector('#link')")
    browser.wait("location.hash")
    address = browser.run("location.href")
    browser.open(address)
    browser.wait(f"{MARK} && !document.querySelector('#text').readOnly")
    assert (browser.text, browser.status) == (record, ENDED)


def test_a_record_that_ends_at_once(browser: Browser, model: gentext.TextModel, server: ServerProcess) -> None:
    """The model may end what was typed without a character of its own."""
    record = write(browser)
    seed = next(seed for seed in range(5000) if model.write(record, length=LENGTH, seed=seed) == "")
    browser.open(server.url)
    assert browser.run("document.querySelector('#length').value") == str(2 * model.bundle.records.longest)  # type: ignore[union-attr]
    fill(browser, "seed", seed)
    browser.run("document.querySelector('#text').focus()")
    browser.type(record)
    assert (write(browser), is_ended(browser), browser.status) == (record, True, ENDED)
    browser.click("document.querySelector('#link')")
    browser.wait("location.hash")
    browser.open(browser.run("location.href"))
    browser.wait(f"{MARK} && !document.querySelector('#text').readOnly")
    assert (browser.text, browser.status) == (record, ENDED)
