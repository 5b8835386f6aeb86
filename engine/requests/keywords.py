"""The keyword arguments of the methods that write: options, and parameters of the built-in links."""

from __future__ import annotations

from typing import TypedDict

from gentext.requests.declaration import ManyTextsArguments, RecordArguments, ScoredTextArguments, TextArguments


class LinkArguments(TypedDict, total=False):
    """Parameters of the built-in links. Those of other links are set with ``params``."""

    logit_bias: str
    logit_bias_file: str
    ban: str
    ban_file: str
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_sequence_breakers: str
    no_repeat_ngram_size: int
    top_n_sigma: float
    top_k: int
    typical_p: float
    top_p: float
    min_p: float
    top_h: float
    p_less: int
    epsilon_cutoff: float
    eta_cutoff: float
    xtc_probability: float
    xtc_threshold: float
    temperature: float
    dynatemp_range: float
    dynatemp_exponent: float
    schedule: str
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    adaptive_target: float
    adaptive_decay: float


class WriteKeywords(TextArguments, LinkArguments, total=False):
    """The keyword arguments of `TextModel.write`."""


class StreamKeywords(ScoredTextArguments, LinkArguments, total=False):
    """The keyword arguments of `TextModel.stream`."""


class ManyTextsKeywords(ManyTextsArguments, LinkArguments, total=False):
    """The keyword arguments of `TextModel.write_many`."""


class RecordKeywords(RecordArguments, LinkArguments, total=False):
    """The keyword arguments of `TextModel.records`."""
