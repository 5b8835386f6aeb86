"""A strategy of an installed plugin that cannot be compiled: its author gets a line of his own source."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow
MISTAKES = {
    "fewer": ("links.py:11 `keep = keep_largest(xp, logits, 5)`: keep_largest: the count is int",),
    "running": ("helpers.py:5 `return xp.cumulative_sum(", "include_initial=True) cannot be compiled"),
}


@pytest.fixture(scope="module")
def checks(environment: Any) -> dict[str, Any]:
    """The check of each strategy, by the plugin as pip has installed it."""
    results = environment.run_commands(
        [({}, ("plugins", name, "--check")) for name in MISTAKES], GEN_PLUGINS="gentext-shrink"
    )
    return dict(zip(MISTAKES, results, strict=True))


@pytest.mark.parametrize("name", MISTAKES)
def test_error_names_the_line_of_an_installed_author(environment: Any, checks: dict[str, Any], name: str) -> None:
    installed_at = environment.run("-c", "import gentext_shrink; print(gentext_shrink.__file__)").out
    assert "site-packages" in installed_at
    assert checks[name].code == 1
    [line] = checks[name].err.splitlines()
    assert f"the strategy {name!r} cannot be compiled" in line
    for fragment in MISTAKES[name]:
        assert fragment in line
