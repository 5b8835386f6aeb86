"""What a worker says of its model, of the probability of a text, and of the most probable texts."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

from gentext.console import Bar, quiet
from gentext.library.loading import TextModel
from gentext.plugins.server.tasks.messages import BestJob, ScoreJob
from gentext.plugins.server.worker.texts import RequestSpelling
from gentext.scoring.record_scores import EncodedText, TextScorer, score_texts
from gentext.scoring.score import score_text
from gentext.scoring.unknown_characters import UnknownCharacters
from gentext.sessions.session import runtime_version


class SearchEnd(Exception):
    """Nobody wants the result of a search any longer, or its time is over."""


class SearchWatch(Bar):
    """A bar that nobody sees. The search advances it often, which can end the search."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        super().__init__("searching", None, "")
        self._is_over = is_over

    def advance(self, steps: float = 1, note: str = "") -> None:
        if self._is_over():
            raise SearchEnd


def describe_model(model: TextModel) -> dict[str, Any]:
    """Return what ``/v1/models`` shows of a model."""
    return {
        "symbols": model.symbols,
        "chain": {
            link.name: {
                name: {
                    "default": param.default,
                    "neutral": param.neutral,
                    "low": param.low,
                    "high": param.high,
                    "dtype": param.dtype,
                    "switch": link.switch,
                    "help": param.help,
                }
                for name, param in link.params.items()
                if param.is_option
            }
            for link in model.bundle.chain
        },
        "options": {link.name: link.per_run for link in model.bundle.chain if link.per_run},
        "records": None if model.bundle.records is None else dataclasses.asdict(model.bundle.records),
        "summary": str(model.bundle.card.get("summary") or ""),
        "corpus": model.bundle.card.get("corpus") or None,
        "parameters": model.bundle.card.get("parameters"),
        "device": model.device,
        "runtime": runtime_version(),
        "fingerprint": model.bundle.card.get("fingerprint"),
    }


def answer_job(model: TextModel, job: ScoreJob | BestJob, is_unwanted: Callable[[], bool]) -> dict[str, Any]:
    """Return the answer to a job, or what there is of it as soon as nobody wants it any longer."""
    with quiet():
        return _answer_score(model, job) if isinstance(job, ScoreJob) else _answer_best(model, job, is_unwanted)


def _answer_score(model: TextModel, job: ScoreJob) -> dict[str, Any]:
    if model.bundle.records is not None:
        return _score_record(model, job)
    characters = UnknownCharacters([model.bundle], job.unknown)
    score = score_text(model._sampler, job.text, characters=characters)
    return {
        "logprob": -score.nats,
        "characters": score.characters,
        "bits_per_character": score.bits_per_character,
        "unknown": score.unknown,
        "tokens": score.symbols,
        "token_logprobs": score.logprobs.tolist(),
    }


def _score_record(model: TextModel, job: ScoreJob) -> dict[str, Any]:
    """Score a text as a whole record: its end counts too, and it may be empty."""
    characters = UnknownCharacters([model.bundle], job.unknown)
    text = characters.leave_out(job.text)
    scorer = TextScorer(model._sampler, characters)
    [[(_, [score])]] = score_texts([scorer], [EncodedText(None, text, [scorer.encode(text)])], workers=1)
    symbols = model.symbols
    return {
        "logprob": score.logprob,
        "characters": len(text),
        "bits_per_character": score.bits / len(text) if text else None,
        "unknown": characters.count,
        "tokens": [symbols[token] for token in score.tokens.tolist()],
        "token_logprobs": score.logprobs.tolist(),
    }


def _answer_best(model: TextModel, job: BestJob, is_unwanted: Callable[[], bool]) -> dict[str, Any]:
    searching = model.prepare_search(job.prompt, job.options, RequestSpelling())
    ending_at = time.monotonic() + job.seconds
    with contextlib.suppress(SearchEnd):
        for _ in searching.texts(SearchWatch(lambda: is_unwanted() or time.monotonic() > ending_at)):
            pass
    result = searching.result()
    return {
        "texts": [
            {"text": text.text, "logprob": text.logprob, "finish": text.finish, "symbols": len(text.tokens)}
            for text in result
        ],
        "complete": result.is_complete,
        "exact": result.is_exact,
        "bound": _finite(result.bound),
    }


def _finite(number: float) -> float | None:
    """Return a number, or None for an infinity, which JSON does not have."""
    return number if math.isfinite(number) else None
