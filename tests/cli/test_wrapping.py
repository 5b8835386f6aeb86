"""Lines on a terminal: broken between words, with a command at the end of a line in one piece."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentext import console

WORDS = st.lists(st.text("abc-:", min_size=1, max_size=50), min_size=1, max_size=40)


@given(WORDS, st.integers(20, 120))
def test_lines_break_between_words_alone(words: list[str], width: int) -> None:
    line = " ".join(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        broken = console._wrap(line).split("\n")
    assert " ".join(broken) == line
    assert all(len(part) <= width or " " not in part for part in broken)


@pytest.mark.parametrize(
    "command", ["gen train --resume --run runs/a-run-with-a-long-name", "/some/where/.venv/bin/gen sample runs/demo"]
)
def test_command_at_the_end_stays_whole(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    for line in (f"next: {command}", f"gen: error: stopped at step 5 of 10, nothing is lost; go on with: {command}"):
        broken = console._wrap(line).split("\n")
        assert broken[-1].endswith(command) and " ".join(broken) == line
