"""The page of the API at /docs: it names every route, and every parameter with its default, as the server has them."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gentext.config import per_run_fields
from gentext.manager import host
from gentext.plugins.server.http import app, fields, requests
from gentext.plugins.server.metrics import Metrics
from gentext.plugins.server.settings import Limits
from gentext.sampling.configured_chain import builtin_strategies

PAGE = app.DOCS.decode()


class PageParser(HTMLParser):
    """Collects the rows of each table by its id, the links, and the tags that were left open."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.open_tags: list[str] = []
        self._table: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag not in ("meta",):
            self.open_tags.append(tag)
        self.ids += [attributes["id"] or ""] if "id" in attributes else []
        self.targets += [attributes[name] or "" for name in ("href", "src") if name in attributes]
        assert tag not in ("script", "link", "img", "iframe"), "nothing from outside, and no script"
        if tag == "table":
            self._table = self.tables.setdefault(attributes.get("id") or "", [])
        elif tag == "tr":
            self._table.append([])
        elif tag == "td":
            self._table[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if "td" in self.open_tags:
            self._table[-1][-1] += data


@pytest.fixture(scope="module")
def page() -> PageParser:
    parser = PageParser()
    parser.feed(PAGE)
    parser.close()
    assert parser.open_tags == []
    return parser


def rows_by_name(page: PageParser, table: str) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in page.tables[table] if row}


def defaults_of(fields: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the default of each field, as JSON has it; Ellipsis where there is none."""
    defaults: dict[str, Any] = {}
    for field in msgspec.structs.fields(fields):
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory
        if callable(default):
            default = {}
        defaults[field.name] = ... if default is msgspec.NODEFAULT else [*default] if default == () else default
    return defaults


@pytest.mark.parametrize(
    ("table", "body"),
    [
        ("completion-parameters", fields.CompletionFields),
        ("score-parameters", fields.ScoreFields),
        ("best-parameters", fields.BestFields),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_parameters(page: PageParser, table: str, body: type[msgspec.Struct]) -> None:
    words = {"none": None, "required": ...}
    documented = {name: row[1] for name, row in rows_by_name(page, table).items()}
    assert {name: words[text] if text in words else json.loads(text) for name, text in documented.items()} == (
        defaults_of(body)
    )


def test_parameters_of_links(page: PageParser) -> None:
    registry = host().registry
    expected: dict[tuple[str, str], str] = {}
    for link in builtin_strategies(registry):
        strategy = registry.get("strategy", link)
        expected |= {(name, link): f"{param.initial:g}" for name, param in strategy.params.items() if param.is_option}
        defaults = {field.name: field.default for field in dataclasses.fields(strategy.Config)}
        for name in per_run_fields(strategy.Config):
            if not name.endswith(requests.FILE_OPTION_END):
                expected[name, link] = repr(defaults[name])[1:-1] or "none"
    assert {(row[0], row[1]): row[3] for row in page.tables["link-parameters"] if row} == expected


def test_neutral_parameters(page: PageParser) -> None:
    links = {row[0] for row in page.tables["link-parameters"] if row}
    neutral = rows_by_name(page, "neutral-parameters")
    assert neutral.keys() == requests.NEUTRAL_SETTINGS.keys() - links
    for name, row in neutral.items():
        assert json.loads(row[1]) in requests.NEUTRAL_SETTINGS[name]


def test_limits() -> None:
    text = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", text.partition("## Limits")[2].partition("\n## ")[0], re.MULTILINE)
    assert {name: float(limit.replace(",", "")) for name, limit in rows} == dataclasses.asdict(Limits())


def test_metrics() -> None:
    text = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(gentext_\w+)`", text.partition("## Metrics")[2].partition("\n## ")[0]))
    families = Metrics().registry.collect()
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert documented == names


def test_routes(page: PageParser) -> None:
    source = inspect.getsource(app.Server.application)
    routes = {path.replace("{name:path}", "NAME") for path in re.findall(r'Route\("([^"]+)"', source)}
    documented = {row[0]: row[1] for row in page.tables[""] if len(row) == 3}
    assert documented.keys() == routes | {"/"}  # the page, whose files have routes of their own
    for path, method in documented.items():
        posts = re.search(rf'Route\("{path}", [^)]*"POST"', source) is not None
        assert method == ("POST" if posts else "GET")


def test_page_stands_alone(page: PageParser) -> None:
    assert all(target.startswith("#") and target[1:] in page.ids for target in page.targets)
    assert len(set(page.ids)) == len(page.ids)
    assert "url(" not in PAGE and "@import" not in PAGE and "color-scheme: light dark" in PAGE
