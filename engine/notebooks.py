"""What scores, texts and models show in a notebook: HTML in which the surprise of each symbol is a colour.

Everything that a model or a file says is escaped and shortened, since it may come from a stranger.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from gentext.console import show_controls

#: Symbols that are shown, at most.
SHOWN_SYMBOLS = 2_000
#: Characters of a line of facts, at most, and lines of a fact.
SHOWN_CHARACTERS, SHOWN_PARTS = 300, 10
#: Bits of surprise that have the full colour, and that colour, which is that of the page of `gen inspect`.
FULL_BITS, COLOUR, STRENGTH = 8.0, "214, 120, 20", 0.85
TEXT_STYLE = "white-space: pre-wrap; overflow-wrap: anywhere; font-family: Georgia, serif; line-height: 1.6"


def escape(text: object, length: int = SHOWN_CHARACTERS) -> str:
    """Return a text as HTML, with control characters as escapes, and cut to a length."""
    shown = str(text)
    return html.escape(show_controls(shown if len(shown) <= length else f"{shown[: length - 1]}…"))


def surprise_html(summary: str, symbols: Sequence[str], logprobs: Sequence[float], before: str = "") -> str:
    """Return a text whose symbols are the more coloured the more they surprise the model, below a line about it.

    ``logprobs`` are natural logarithms of probabilities, one for each symbol; ``before`` is text without colours.
    """
    spans = []
    for symbol, logprob in zip(symbols[:SHOWN_SYMBOLS], logprobs[:SHOWN_SYMBOLS], strict=False):
        bits = abs(float(logprob)) / math.log(2)
        share = STRENGTH * min(bits / FULL_BITS, 1.0) if math.isfinite(bits) else STRENGTH
        style = f"background: rgba({COLOUR}, {share:.2f})"
        spans.append(f'<span style="{style}" title="{bits:.2f} bits">{escape(symbol)}</span>')
    rest = len(symbols) - SHOWN_SYMBOLS
    end = f"<p>… and {rest:,} more symbols</p>" if rest > 0 else ""
    return f'<p>{escape(summary)}</p><div style="{TEXT_STYLE}">{escape(before)}{"".join(spans)}</div>{end}'


def text_html(summary: str, text: str, before: str = "") -> str:
    """Return a text without colours, below a line about it."""
    shown = escape(text, SHOWN_SYMBOLS)
    return f'<p>{escape(summary)}</p><div style="{TEXT_STYLE}"><i>{escape(before)}</i>{shown}</div>'


def facts_html(title: str, facts: Mapping[str, object]) -> str:
    """Return a table of facts below a title. Those that are None are left out; a list has a line for each element."""
    rows = "".join(
        f'<tr><th style="text-align: left">{escape(name)}</th><td style="text-align: left">{_fact_html(fact)}</td></tr>'
        for name, fact in facts.items()
        if fact is not None
    )
    return f"<p><b>{escape(title)}</b></p><table>{rows}</table>"


def _fact_html(fact: object) -> str:
    if isinstance(fact, list):
        return "<br>".join(escape(part) for part in fact[:SHOWN_PARTS])
    return escape(f"{fact:.5g}" if isinstance(fact, float) else f"{fact:,}" if isinstance(fact, int) else fact)
