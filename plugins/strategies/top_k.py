"""The link top_k: keep the k most probable symbols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentext.strategy import Array, Arrays, Param, Strategy, keep_largest


class TopK(Strategy):
    """Keep exactly the k largest logits; ties go to the lower index.

    Fan, Lewis, Dauphin, "Hierarchical neural story generation", ACL 2018.
    """

    params: Mapping[str, Param] = {
        "top_k": Param(0, "keep the K most probable symbols; 0: all", dtype="int64", low=0, decisive=1),
    }

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        count = xp.where(params["top_k"] == 0, self.vocab_size, params["top_k"])
        return xp.where(keep_largest(xp, logits, count), logits, -xp.inf), state
