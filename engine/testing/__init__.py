"""A test kit for authors of plugins: ``check_strategy(MyStrategy)`` in a test of your own, and so for each kind.

A check runs a component as gentext does, and raises AssertionError for the first rule that is broken: it names the
rule, and what was seen. The rules are those of docs/hooks.md and docs/strategies.md. `check_model` and `check_trainer`
need the ``train`` extra; `check_strategy` compiles the strategy too where the extra is installed.

Each check is imported when it is first used, so that the one for a tokenizer loads no PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gentext.errors import MissingExtra
from gentext.registry import TRAIN_MODULES

if TYPE_CHECKING:
    from gentext.testing.batcher import check_batcher
    from gentext.testing.filter import check_filter
    from gentext.testing.model import check_model
    from gentext.testing.sampler import check_sampler
    from gentext.testing.strategy import check_strategy
    from gentext.testing.tokenizer import check_tokenizer
    from gentext.testing.trainer import check_trainer

__all__ = [
    "check_batcher",
    "check_filter",
    "check_model",
    "check_sampler",
    "check_strategy",
    "check_tokenizer",
    "check_trainer",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{name.removeprefix('check_')}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in TRAIN_MODULES:
            raise MissingExtra(name, "train") from None
        raise
    return getattr(module, name)
