"""The styles of writing: settings of the sampling chain chosen by `research/defaults.py`.

See docs/defaults.md. The defaults of the parameters are those of the style `balanced`.
"""

from __future__ import annotations

from collections.abc import Mapping

from gentext.sampling.chain import DEFAULT_CHAIN, Chain

#: Style -> link -> parameter -> number. Other parameters of the links of the default chain are neutral.
STYLES: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "careful": {"top_k": {"top_k": 10}, "temperature": {"temperature": 0.8}},
    "balanced": {"temperature": {"temperature": 0.8}},
    "bold": {"top_k": {"top_k": 20}, "temperature": {"temperature": 0.9}},
}


def style_numbers(style: str, chain: Chain) -> dict[str, dict[str, float]]:
    """Return the numbers that a style gives to the parameters of a chain: link -> parameter -> number.

    It sets every parameter of the links of the default chain. What other links do, it leaves as it is.
    """
    return {
        link.name: {
            **{name: param.neutral for name, param in link.strategy.params.items()},
            **STYLES[style].get(link.name, {}),
        }
        for link in chain
        if link.name in DEFAULT_CHAIN
    }
