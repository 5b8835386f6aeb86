"""The page of the server, in a real browser without a window."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import CHROMIUM, Browser, running_browser
from node_packages import find_package
from proxy import Proxy, running_proxy
from serving import ServerProcess, running_server

import gentext

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
#: How many characters the tests let the page write.
LENGTH = 120
SEEN = "document.querySelector('.backdrop').textContent.length"
POINTS = "document.querySelectorAll('#tree .point').length"
SYMBOLS = "[...document.querySelectorAll('.written .symbol')]"
CHOICES = "document.querySelectorAll('.alternatives button:not([aria-current]):not(:disabled)')"


@pytest.fixture(scope="module")
def file(tiny_run: Path) -> Path:
    return tiny_run / "generator.onnx"


@pytest.fixture(scope="module")
def model(file: Path) -> gentext.TextModel:
    return gentext.load(file)


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[ServerProcess]:
    with running_server(f"tiny={file}", "--workers", "1", "--slots", "8") as process:
        yield process


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser, server: ServerProcess) -> Iterator[Browser]:
    """The page of the server, in which a text was begun with "ab"."""
    chromium.errors.clear()
    begin(chromium, server.url)
    yield chromium
    assert chromium.errors == []


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[Proxy]:
    with running_proxy(server.url) as proxy:
        yield proxy


def begin(browser: Browser, url: str, text: str = "ab") -> None:
    """Open the page, set seed and length, and begin a text."""
    browser.open(url)
    fill(browser, "length", LENGTH)
    fill(browser, "seed", 7)
    browser.run("document.querySelector('#text').focus()")
    browser.type(text)


def free_port() -> str:
    """Return a port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def fill(browser: Browser, name: str, content: object) -> None:
    """Put something into a field, as if it were typed."""
    browser.run(
        f"""{{ const field = document.getElementById({json.dumps(name)}); field.value = {json.dumps(str(content))};
        field.dispatchEvent(new Event("input", {{ bubbles: true }}));
        field.dispatchEvent(new Event("change", {{ bubbles: true }})); }}"""
    )


def write(browser: Browser, key: str = "Tab") -> str:
    """Let the model write, and return the text."""
    browser.press(key)
    browser.wait_until_written()
    return browser.text


def click_symbol(browser: Browser, start: int) -> int:
    """Click the first written symbol from ``start`` on that has a width, as a line break has not; return its number."""
    has_width = "symbol.getBoundingClientRect().width > 0"
    number = browser.run(f"{SYMBOLS}.findIndex((symbol, number) => number >= {start} && {has_width})")
    browser.click(f"{SYMBOLS}[{number}]")
    return int(number)


def test_writes_what_the_library_writes(browser: Browser, model: gentext.TextModel) -> None:
    assert browser.text == "ab"
    assert write(browser) == "ab" + model.write("ab", length=LENGTH, seed=7)
    # What is seen is the text, and each symbol has been read: the typed ones too.
    assert browser.run("document.querySelector('.backdrop').textContent.slice(0, -1)") == browser.text
    assert browser.run("document.querySelectorAll('.symbol').length") == LENGTH + 2
    assert browser.run("document.querySelectorAll('.typed .symbol').length") == 2


@pytest.mark.slow
def test_text_lies_over_what_is_seen(browser: Browser) -> None:
    """Lines break at the same places in the field with the caret as in the coloured text, whatever the width."""
    write(browser)
    places = browser.run(
        """[240, 310, 420, 555].map(width => {
          document.querySelector("#paper").style.width = `${width}px`;
          const [field, seen] = [document.querySelector("#text"), document.querySelector(".backdrop")];
          field.style.height = field.style.minHeight = seen.style.minHeight = "0";
          const heights = [field.scrollHeight, seen.getBoundingClientRect().height];
          field.style.height = field.style.minHeight = seen.style.minHeight = "";
          return heights;
        })"""
    )
    assert len({seen for _, seen in places}) > 2
    assert all(abs(field - seen) <= 1 for field, seen in places), places


def test_sliders_are_those_of_the_file(browser: Browser, model: gentext.TextModel) -> None:
    fields = browser.run("[...document.querySelectorAll('#sliders input[type=number]')].map(field => field.id)")
    assert sorted(fields) == sorted(
        f"parameter-{link.name}-{name}"
        for link in model.bundle.chain
        for name, param in link.params.items()
        if param.is_option
    )
    assert fields[0] == "parameter-temperature-temperature", "what most people set comes first"
    assert browser.run("[...document.querySelectorAll('.parameter .help')].every(help => help.textContent)")
    fill(browser, "parameter-temperature-temperature", 0)
    assert (
        browser.run("document.querySelector('[aria-labelledby=parameter-temperature-temperature-label]').value") == "0"
    )
    assert write(browser) == "ab" + model.write("ab", length=LENGTH, seed=7, temperature=0)
    browser.click("document.querySelector('#reset')")
    assert browser.run("document.querySelector('#parameter-temperature-temperature').value") == "0.8"


@pytest.mark.slow
def test_text_appears_smoothly(browser: Browser, server: ServerProcess) -> None:
    browser.open(server.url, has_motion=True)
    fill(browser, "length", 400)
    browser.run(
        """globalThis.lengths = new Set(); document.querySelector("#write").click();
        (function note() {
          lengths.add(document.querySelector(".backdrop").textContent.length);
          requestAnimationFrame(note);
        })()"""
    )
    browser.wait("document.querySelector('#text').value.length === 400")
    browser.wait_until_written()
    assert browser.run("lengths.size") > 2


@pytest.mark.slow
def test_stop_strings(browser: Browser, model: gentext.TextModel) -> None:
    text = model.write("ab", length=LENGTH, seed=7)
    stop = text[40:43]
    fill(browser, "stop", stop.replace("\n", "\\n"))
    assert write(browser) == "ab" + model.write("ab", length=LENGTH, seed=7, stop=stop)


@pytest.mark.slow
def test_goes_on_within_a_stop_string(browser: Browser, model: gentext.TextModel) -> None:
    """A text that ends where a stop string may begin goes on behind what is seen, whatever was typed there."""
    text = model.write("ab", length=LENGTH, seed=7)
    fill(browser, "stop", f"{text[-1]}never".replace("\n", "\\n"))
    assert write(browser) == "ab" + text
    assert write(browser) == "ab" + model.write("ab", length=2 * LENGTH, seed=7)
    browser.press("Control+z")
    browser.type("b")
    longer = write(browser)
    assert longer.startswith("ab" + text + "b") and len(longer) == 2 * LENGTH + 3 and browser.status == ""


@pytest.mark.slow
def test_expression(browser: Browser, model: gentext.TextModel) -> None:
    fill(browser, "match", "[ab]{5}")
    assert write(browser) == "ab" + model.write("ab", length=LENGTH, seed=7, match="[ab]{5}")


def test_branches(browser: Browser) -> None:
    text = write(browser)
    number = click_symbol(browser, 30)
    probabilities = browser.run(
        "[...document.querySelectorAll('.alternatives .bar span')].map(bar => parseFloat(bar.style.width))"
    )
    assert len(probabilities) >= 10 and probabilities[:10] == sorted(probabilities[:10], reverse=True)
    browser.click(f"{CHOICES}[1]")
    browser.wait_until_written()
    branch = browser.text
    start = 2 + number
    assert branch[:start] == text[:start] and branch[start] != text[start] and len(branch) == start + 1 + LENGTH
    # The beginning, "ab", the symbols before the branch, and below them the rest and the branch of two.
    assert browser.run(POINTS) == 6
    for key in ("Alt+ArrowUp", "Alt+ArrowUp"):
        browser.press(key)
    assert browser.text == text[:start]
    browser.press("Alt+ArrowDown")
    browser.press("Alt+ArrowLeft")
    assert browser.text == text
    browser.press("Alt+ArrowRight")
    assert browser.text == branch[:33]
    browser.click("document.querySelectorAll('#tree .point')[3]")
    assert browser.text == text


@pytest.mark.slow
def test_branches_by_keyboard(browser: Browser) -> None:
    text = write(browser)
    browser.run("document.querySelector('#text').setSelectionRange(20, 20)")
    browser.press("Control+Space")
    assert browser.run("document.activeElement.getAttribute('aria-label')").endswith("in the text")
    browser.press("ArrowDown")
    browser.press("Escape")
    assert browser.run("document.activeElement.id") == "text" and browser.text == text
    browser.press("Control+Space")
    browser.press("ArrowDown")
    browser.run("document.activeElement.click()")
    browser.wait_until_written()
    assert browser.text[:20] == text[:20] and browser.text[20] != text[20]


@pytest.mark.slow
def test_keys_go_to_the_window_that_a_click_has_opened(browser: Browser) -> None:
    text = write(browser)
    click_symbol(browser, 30)
    own = "document.querySelector('.alternatives [aria-current]')"
    shown = "document.querySelector('.alternatives').hidden"
    assert browser.run("document.activeElement.id") == "text" and not browser.run(shown)
    assert browser.run(f"getComputedStyle({own}).backgroundColor") == "rgba(0, 0, 0, 0)", "no row looks chosen"
    browser.press("ArrowDown")
    browser.press("ArrowUp")
    assert browser.run(f"document.activeElement === {own}") and browser.text == text
    browser.press("Escape")
    assert browser.run("document.activeElement.id") == "text" and browser.run(shown)
    browser.press("Tab")
    assert browser.run("document.activeElement.id") != "text" and browser.text == text, "Tab leaves the text after Esc"
    number = click_symbol(browser, 30)
    browser.press("ArrowDown")
    browser.press("Enter")
    browser.wait_until_written()
    start = 2 + number
    assert browser.text[:start] == text[:start] and browser.text[start] != text[start]
    assert len(browser.text) == start + 1 + LENGTH
    click_symbol(browser, 30)
    browser.type("b")
    assert browser.run(shown) and len(browser.text) == start + 2 + LENGTH, "other keys write"


@pytest.mark.slow
def test_another(browser: Browser) -> None:
    first = write(browser)
    second = write(browser, "Alt+Enter")
    assert second != first and second.startswith("ab") and len(second) == len(first)
    browser.press("Alt+ArrowLeft")
    assert browser.text == first


@pytest.mark.slow
def test_undo(browser: Browser) -> None:
    text = write(browser)
    browser.press("Control+z")
    assert browser.text == "ab"
    browser.press("Control+z")
    assert browser.text == ""
    browser.press("Control+Shift+z")
    browser.press("Control+y")
    assert browser.text == text
    browser.press("Control+z")
    browser.press("Control+z")
    browser.press("Control+z")  # there is nothing more
    assert browser.text == "" and browser.run("document.querySelector('#undo').disabled")


@pytest.mark.slow
def test_edits_keep_what_they_replace(browser: Browser) -> None:
    text = write(browser)
    browser.run("document.querySelector('#text').setSelectionRange(50, 60)")
    browser.type("b")
    browser.type("a")
    assert browser.text == text[:50] + "ba" + text[60:]
    assert browser.run("document.querySelector('#text').selectionStart") == 52
    for _ in range(3):  # back over what was typed, and one symbol more
        browser.press("Backspace")
    assert browser.text == text[:49] + text[60:]
    browser.press("Control+z")
    assert browser.text == text
    assert write(browser, "Tab").startswith(text)  # it is again what the model wrote, not typed


def authors(browser: Browser) -> str:
    """Return the author of each character that is seen: ``t`` for typed, ``w`` for written by the model."""
    return str(
        browser.run(
            """[...document.querySelectorAll(".backdrop > .typed, .backdrop > .written")]
            .map((piece) => piece.className[0].repeat(piece.textContent.length)).join("")"""
        )
    )


@pytest.mark.slow
def test_text_tells_who_wrote_what(browser: Browser, server: ServerProcess) -> None:
    """A change leaves what stands behind it to its author, also after it was read again, stored, and linked to."""
    text = write(browser)
    browser.run("document.querySelector('#text').setSelectionRange(42, 42)")
    browser.type("b")
    expected = "tt" + 40 * "w" + "t" + (LENGTH - 40) * "w"
    assert (browser.text, authors(browser)) == (f"{text[:42]}b{text[42:]}", expected)
    browser.run("document.querySelector('#text').setSelectionRange(10, 12)")
    for composed in ("c", "ca"):
        browser.call("Input.imeSetComposition", text=composed, selectionStart=len(composed), selectionEnd=len(composed))
    browser.type("cab")
    expected = "tt" + 8 * "w" + "ttt" + 30 * "w" + "t" + (LENGTH - 40) * "w"
    assert (browser.text[10:13], authors(browser)) == ("cab", expected)
    assert browser.run("document.querySelector('#text').selectionEnd") == 13
    browser.run("document.execCommand('delete')")
    expected = expected.replace("ttt", "tt", 1)
    assert authors(browser) == expected
    text = write(browser)
    expected += LENGTH * "w"
    assert (len(browser.text), authors(browser)) == (len(expected), expected)
    assert browser.run("document.querySelectorAll('.symbol').length") == len(expected)
    browser.click("document.querySelector('#link')")
    browser.wait("location.hash")
    address = browser.run("location.href")
    browser.click("document.querySelector('#remember')")
    browser.open(server.url)
    assert (browser.text, authors(browser)) == (text, expected)
    browser.click("document.querySelector('#remember')")
    browser.open(address)
    browser.wait(f"document.querySelector('#text').value === {json.dumps(text)}")
    browser.wait_until_written()
    assert authors(browser) == expected


@pytest.mark.slow
def test_stops_and_goes_on(browser: Browser) -> None:
    fill(browser, "length", 100_000)
    browser.press("Tab")
    browser.wait(f"{SEEN} > 200")
    browser.press("Escape")
    browser.wait_until_written()
    length = len(browser.text)
    assert 200 < length < 100_000
    # After Escape, Tab leaves the text as it does anywhere else, until another key is pressed in it.
    assert browser.status.startswith("Tab leaves the text now")
    browser.press("Tab")
    assert browser.run("document.activeElement.id") != "text" and len(browser.text) == length
    fill(browser, "length", 50)
    browser.run("document.querySelector('#text').focus()")
    assert len(write(browser)) == length + 50
    for key in ("Escape", "ArrowLeft", "Shift"):
        browser.press(key)
    assert len(write(browser)) == length + 100


@pytest.mark.slow
def test_link_writes_the_text_again(browser: Browser, server: ServerProcess) -> None:
    fill(browser, "parameter-temperature-temperature", 0.9)
    write(browser)
    click_symbol(browser, 20)
    browser.click(f"{CHOICES}[0]")
    browser.wait_until_written()
    browser.run("document.querySelector('#text').focus()")
    browser.type("ba")
    text = write(browser)
    browser.click("document.querySelector('#link')")
    browser.wait("location.hash")
    address = browser.run("location.href")
    browser.open(address)
    browser.wait(
        f"document.querySelector('#text').value === {json.dumps(text)} && !document.querySelector('#text').readOnly"
    )
    assert browser.status == ""
    assert browser.run("document.querySelector('#parameter-temperature-temperature').value") == "0.9"
    assert browser.run("document.querySelector('#tree [aria-current] title').textContent").startswith(f"{LENGTH} ")
    for bent in (address[:-20], f"{server.url}/#text=garbage!!", f"{server.url}/#text"):
        browser.open(bent)
        browser.wait("document.querySelector('#status').textContent.includes('damaged')")


@pytest.mark.slow
def test_settings_are_not_those_of_the_session(chromium: Browser, proxy: Proxy) -> None:
    """A request that goes on with a session has its parameters where it gives none itself."""
    begin(chromium, proxy.url)
    fill(chromium, "parameter-temperature-temperature", 0)
    fill(chromium, "stop", "never written")
    write(chromium)
    chromium.click("document.querySelector('#reset')")
    fill(chromium, "stop", "")
    chromium.run("document.querySelector('#text').focus()")
    write(chromium)
    first, second = (json.loads(body) for body in proxy.bodies)
    assert first["temperature.temperature"] == 0 and first["stop"] == ["never written"]
    assert second["temperature.temperature"] == 0.8 and second["stop"] == [] and "session" in second


@pytest.mark.slow
def test_models_of_a_server(chromium: Browser, file: Path) -> None:
    with running_server(f"small={file}", f"other={file}", "--workers", "1", "--slots", "2") as server:
        chromium.open(server.url)
        assert chromium.run("[...document.querySelector('#models').options].map(each => each.value)") == [
            "small",
            "other",
        ]
        fill(chromium, "length", 20)
        fill(chromium, "models", "other")
        chromium.wait("!document.querySelector('#write').disabled")
        chromium.run("document.querySelector('#text').focus()")
        text = write(chromium)
        chromium.click("document.querySelector('#link')")
        chromium.wait("location.hash")
        chromium.open(chromium.run("location.href"))
        chromium.wait(f"document.querySelector('#text').value === {json.dumps(text)}")
        assert chromium.run("document.querySelector('#models').value") == "other"


@pytest.mark.slow
def test_link_says_when_the_text_is_another(browser: Browser) -> None:
    write(browser)
    browser.click("document.querySelector('#link')")
    browser.wait("location.hash")
    browser.run(
        """{ const content = JSON.parse(atob(location.hash.slice(6).replaceAll("-", "+").replaceAll("_", "/")));
        content.check += 1; location.hash = "#text=" + btoa(JSON.stringify(content)).replaceAll("=", ""); }"""
    )
    browser.wait("document.querySelector('#status').textContent.includes('not quite that of the link')")


@pytest.mark.slow
def test_goes_on_when_the_server_comes_back(chromium: Browser, file: Path) -> None:
    port = free_port()
    server = ServerProcess([f"tiny={file}", "--workers", "1", "--port", port])
    begin(chromium, server.url)
    fill(chromium, "length", 60_000)
    chromium.press("Tab")
    chromium.wait(f"{SEEN} > 500")
    server.process.send_signal(signal.SIGKILL)
    server.end()
    chromium.wait("document.querySelector('#status').textContent.includes('does not answer')")
    length = chromium.run(SEEN)
    with running_server(f"tiny={file}", "--workers", "1", "--port", port):
        chromium.wait("document.querySelector('#status').textContent === 'The server is there again.'")
        chromium.wait(f"{SEEN} > {length + 500}")
        chromium.run("document.querySelector('#write').click()")
        chromium.wait("document.querySelector('#status').textContent === ''")
        chromium.wait_until_written()


def refuse(status: int, message: str, *, code: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return an answer with an error of OpenAI's API."""
    error = {"error": {"message": message, "type": "error", "param": None, "code": code}}
    fields = {"Content-Type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
    return status, fields, json.dumps(error).encode()


@pytest.mark.slow
def test_asks_for_the_key(chromium: Browser, file: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    keys.chmod(0o600)
    with running_server(f"tiny={file}", "--workers", "1", "--api-key-file", keys) as server:
        chromium.call("Page.navigate", url=server.url)
        for key, words in [("wrong", "has it"), ("secret", "does not accept this key")]:
            chromium.wait(f"document.querySelector('#key-message')?.textContent.includes({words!r})")
            chromium.wait("document.querySelector('#key-dialog').open && document.activeElement.id === 'key'")
            chromium.type(key)
            chromium.press("Enter")
        chromium.wait("!document.querySelector('#write').disabled")
        chromium.run("document.querySelector('#text').focus()")
        fill(chromium, "length", 20)
        assert len(write(chromium)) == 20
        assert chromium.run("localStorage.length + sessionStorage.length + document.cookie.length") == 0


@pytest.mark.slow
def test_waits_for_a_busy_server(chromium: Browser, proxy: Proxy) -> None:
    begin(chromium, proxy.url)
    proxy.failure = lambda request, body: refuse(429, "too many texts wait", Retry_After="1")
    chromium.press("Tab")
    chromium.wait("document.querySelector('#status').textContent.startsWith('The server is busy')")
    proxy.failure = lambda request, body: None
    chromium.wait_until_written()
    assert len(chromium.text) == LENGTH + 2


@pytest.mark.slow
def test_reads_anew_when_the_session_is_refused(chromium: Browser, file: Path) -> None:
    port = free_port()
    with running_server(f"tiny={file}", "--workers", "1", "--port", port) as server:
        begin(chromium, server.url)
        write(chromium)
    # Without a file of session keys, a server does not know the sessions of the one before it.
    with running_server(f"tiny={file}", "--workers", "1", "--port", port):
        assert len(write(chromium)) == 2 * LENGTH + 2
        assert "no longer knows the session" in chromium.status
        assert len(write(chromium)) == 3 * LENGTH + 2 and chromium.status == ""


@pytest.mark.slow
def test_parts_are_the_text_written_at_once(browser: Browser, proxy: Proxy, model: gentext.TextModel) -> None:
    begin(browser, proxy.url)
    write(browser)
    write(browser)
    assert browser.text == "ab" + model.write("ab", length=2 * LENGTH, seed=7)
    # A branch goes on with the session before its symbol, so that little is read again.
    number = click_symbol(browser, LENGTH + 5)
    browser.click(f"{CHOICES}[0]")
    browser.wait_until_written()
    first, second, branch = (json.loads(body) for body in proxy.bodies)
    assert first["prompt"] == "ab" and second["prompt"] == ""
    assert branch["prompt"] == browser.text[2 + LENGTH : 2 + number + 1]
    assert "session" not in first and second["session"] == branch["session"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("seed", "-1", "Seed: -1; expected a whole number"),
        ("length", "0", "Length: expected a whole number"),
        ("match", "[a", "no regular expression"),
        ("text", "ab☃", "does not know “☃”"),
    ],
)
def test_says_what_is_wrong(chromium: Browser, server: ServerProcess, name: str, content: str, words: str) -> None:
    begin(chromium, server.url)
    fill(chromium, name, content)
    text = write(chromium)
    assert words in chromium.status and chromium.run("document.querySelector('#status').dataset.kind") == "error"
    assert text == ("ab☃" if name == "text" else "ab")
    fill(chromium, name, {"seed": 1, "length": 5, "match": "", "text": "ab"}[name])
    assert len(write(chromium)) > 2


@pytest.mark.slow
def test_skips_what_the_model_does_not_know(browser: Browser, model: gentext.TextModel) -> None:
    browser.type("☃b😀")
    assert browser.run("[...document.querySelectorAll('.unknown')].map(each => each.textContent)") == ["☃", "😀"]
    browser.press("Tab")
    assert browser.status.endswith("“☃”, “😀”, as marked in the text. Skip them") and browser.text == "ab☃b😀"
    for key in ("Escape", "Tab", "Enter"):
        browser.press(key)
    browser.wait_until_written()
    assert browser.text == "ab☃b😀" + model.write("abb", length=LENGTH, seed=7)
    assert browser.run("document.querySelectorAll('.symbol').length") == LENGTH + 5
    assert browser.run("[...document.querySelectorAll('.unknown')].map(each => each.textContent)") == ["☃", "😀"]
    text = write(browser)
    assert len(text) == 5 + 2 * LENGTH
    browser.click("document.querySelector('#link')")
    browser.wait("location.hash")
    browser.open(browser.run("location.href"))
    browser.wait(f"document.querySelector('#text').value === {json.dumps(text)}")


@pytest.mark.slow
def test_stores_nothing_unasked(browser: Browser, server: ServerProcess) -> None:
    text = write(browser)
    assert browser.run("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    browser.click("document.querySelector('#remember')")
    browser.open(server.url)
    assert browser.text == text and browser.run("document.querySelector('#seed').value") == "7"
    browser.run("document.querySelector('#text').focus()")
    assert len(write(browser)) == len(text) + LENGTH
    assert browser.run("document.querySelectorAll('.symbol').length") == len(browser.text)  # all was read anew
    browser.click("document.querySelector('#remember')")
    assert browser.run("localStorage.length") == 0
    browser.open(server.url)
    assert browser.text == ""


@pytest.mark.slow
def test_has_names_for_all_controls(browser: Browser) -> None:
    write(browser)
    browser.run("document.querySelectorAll('details').forEach(details => details.open = true)")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    unnamed = [
        node["role"]["value"]
        for node in nodes
        if any(field["name"] == "focusable" and field["value"]["value"] for field in node.get("properties", []))
        and not node["name"]["value"]
    ]
    assert set(unnamed) <= {"RootWebArea"}


#: Shows the coloured text to axe, which looks at what can be read aloud alone, and gives its symbols all colours.
SHOW_COLOURS = """
  document.querySelector(".backdrop").removeAttribute("aria-hidden");
  document.querySelector("#text").hidden = true;
  document.querySelectorAll(".backdrop .symbol").forEach((symbol, number) => {
    symbol.className = `symbol level${number % 6}`;
    symbol.textContent = "Mm"; // of one letter, axe does not say whether it can be read
  });
  document.querySelectorAll("details").forEach((details) => (details.open = true));
"""


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_contrast(chromium: Browser, server: ServerProcess, *, dark: bool) -> None:
    """WCAG AA, as axe-core measures it: of the page with a text in all colours, and of the empty page."""
    axe = (find_package("axe-core") / "axe.min.js").read_text()
    check = """
        const { violations } = await axe.run(document, { runOnly: ["wcag2a", "wcag2aa"] });
        return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html} ${node.failureSummary}`));
    """
    for width, text in ((1280, "abcabcabc"), (390, "")):
        chromium.open(server.url, width, 844, dark=dark)
        chromium.run(axe)
        if text:
            chromium.run("document.querySelector('#text').focus()")
            chromium.type(text)
            fill(chromium, "length", 20)
            write(chromium)
            chromium.run_body(SHOW_COLOURS)
            assert chromium.run("document.querySelectorAll('.typed .level5, .written .level5').length") > 2
        assert chromium.run_body(check) == []


@pytest.mark.slow
def test_keys_alone_from_load_to_a_branch(chromium: Browser, server: ServerProcess) -> None:
    chromium.open(server.url)
    chromium.type("ab")
    text = write(chromium)
    for key in ("Control+Home", *["ArrowRight"] * 5, "Control+Space"):
        chromium.press(key)
    chromium.press("ArrowDown")
    chromium.press("Enter")
    chromium.wait_until_written()
    place = chromium.run("document.querySelectorAll('#tree .point').length")
    assert place == 6 and chromium.text[:5] == text[:5] and chromium.text[5] != text[5]
    chromium.press("Alt+ArrowUp")
    chromium.press("Alt+ArrowUp")
    assert chromium.text == text[:5]


@pytest.mark.slow
def test_the_empty_page_offers_beginnings(browser: Browser, server: ServerProcess, model: gentext.TextModel) -> None:
    browser.open(server.url)
    labels = browser.run("[...document.querySelectorAll('.beginnings button')].map((each) => each.textContent)")
    assert len(labels) >= 2 and labels[-1] == "Let the model begin"
    assert "parameters" in browser.run("document.querySelector('.about').textContent")
    fill(browser, "seed", 7)
    browser.click("document.querySelector('.beginnings button')")
    browser.wait_until_written()
    begin = labels[0].removesuffix(" …")
    assert browser.text.startswith(begin) and len(browser.text) > 200
    assert browser.run("getComputedStyle(document.querySelector('.placeholder')).visibility") == "hidden"


@pytest.mark.slow
def test_the_bottom_row_does_not_jump(browser: Browser, server: ServerProcess) -> None:
    """Its buttons stay where they are while a text is written, and when the line above it has something to say."""
    script = """JSON.stringify([...document.querySelectorAll(".tools button")].flatMap((button) => {
        const { x, y } = button.getBoundingClientRect();
        return [x, y];
    }))"""

    def places() -> Any:
        return pytest.approx(json.loads(browser.run(script)), abs=0.9)  # less than a pixel is no jump

    for width in (1280, 390):
        browser.open(server.url, width, 844)
        fill(browser, "length", 100_000)
        before = json.loads(browser.run(script))
        browser.run("document.querySelector('#text').focus()")
        browser.press("Tab")
        browser.wait(f"{SEEN} > 20")
        assert before == places()
        browser.press("Escape")
        browser.wait_until_written()
        assert browser.status and before == places()


@pytest.mark.slow
def test_fits_a_phone(browser: Browser, server: ServerProcess) -> None:
    browser.open(server.url, 360, 740)
    browser.run("document.querySelector('#text').focus()")
    write(browser)
    assert browser.run("document.scrollingElement.scrollWidth") <= 360
    browser.click("document.querySelector('[data-opens=settings]')")
    assert browser.run("document.querySelector('#settings').getBoundingClientRect().right") <= 360
    assert browser.run("document.activeElement.ariaLabel") == "Close"


@pytest.mark.slow
def test_tokens_have_their_characters(browser: Browser) -> None:
    """The server counts code points: an emoji is one, and two units of UTF-16; a snowman here has three symbols."""
    events = [
        {"text": "a😀", "logprobs": {"tokens": ["a", "😀"], "text_offset": [0, 1]}},
        {"text": "☃b", "logprobs": {"tokens": ["\\xe2", "\\x98", "\\x83", "b"], "text_offset": [2, 2, 2, 3]}},
    ]
    for event in events:
        scores: dict[str, Any] = event["logprobs"]  # type: ignore[assignment]
        count = len(scores["tokens"])
        scores |= {"token_logprobs": [-1.0] * count, "top_logprobs": [{"3": -2.0, "b": -1.0}] * count}
    lines = "".join(f"data: {json.dumps({'choices': [event], 'seed': 1})}\n\n" for event in events) + "data: [DONE]\n\n"
    pieces = browser.run(
        f"""(async () => {{
          const {{ readEvents }} = await import("/server_events.js");
          const bytes = new TextEncoder().encode({json.dumps(lines)});
          const stream = new ReadableStream({{ start(controller) {{
            for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
            controller.close();
          }} }});
          return await Array.fromAsync(readEvents(stream, "a"));
        }})()"""
    )
    assert [piece["text"] for piece in pieces] == ["😀", "☃b"]
    assert [token["text"] for piece in pieces for token in piece["promptTokens"]] == ["a"]
    assert [token["text"] for piece in pieces for token in piece["tokens"]] == ["😀", "", "", "☃", "b"]
    assert pieces[0]["tokens"][0]["top"] == [["b", -1.0], ["3", -2.0]]


def test_files_of_the_page(server: ServerProcess) -> None:
    page = httpx.get(server.url)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self';" in page.headers["content-security-policy"]
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page.text)
    assert scripts and not any(scripts) and "style=" not in page.text and "http" not in page.text
    script = httpx.get(f"{server.url}/page.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert script.headers["cache-control"] == "no-cache" and script.headers["x-content-type-options"] == "nosniff"
    again = httpx.get(f"{server.url}/page.js", headers={"If-None-Match": script.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    for path in ("/../__init__.py", "/%2e%2e/__init__.py", "/page.js/..%2f..%2f__init__.py", "/package.json"):
        assert httpx.get(f"{server.url}{path}").status_code == 404
