"""The link min_p: keep the symbols whose probability is large enough relative to the most probable one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.strategy import Array, Arrays, Param, Strategy


class MinP(Strategy):
    """Keep the symbols with at least ``min_p`` times the largest probability; 0 keeps all.

    Nguyen et al., "Turning up the heat: min-p sampling", arXiv 2407.01082.
    """

    params: Mapping[str, Param] = {
        "min_p": Param(0.0, "keep symbols at least this probable beside the best one", low=0, high=1, decisive=1),
    }

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        p = params["min_p"]
        top_logit = xp.max(logits, axis=1, keepdims=True)
        return xp.where((logits >= top_logit + xp.log(p)) | (p == 0.0), logits, -xp.inf), state
