"""One position of a generator: step, chain, draw, and every link's look at what was chosen. (spox)"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import spox
import spox.opset.ai.onnx.v21 as op
from spox import Var

from gentext.bundle import Bundle
from gentext.chain import Chain, Link
from gentext.export.namespace import xp
from gentext.export.rules import call
from gentext.export.step import lift_weights
from gentext.export.trace import Traced, axes
from gentext.noise import DRAW
from gentext.signature import FINISH, Signature

Given = Mapping[str, Var]


@dataclasses.dataclass
class Carried:
    """What one position hands to the next, and what it says."""

    token: Var
    model: list[Var]
    chain: dict[str, dict[str, Traced]]
    stop: Var
    ended: Var
    logits: Var
    emitted: Var
    logprob: Var


class Position:
    """Builds the nodes of one position, as often as it is asked to."""

    def __init__(self, step: onnx.ModelProto, bundle: Bundle, chain: Chain, signature: Signature) -> None:
        self.bundle, self.chain, self.signature = bundle, chain, signature
        lifted, weights = lift_weights(step)
        self._step = spox.inline(lifted)
        self._weights = {name: op.const(array) for name, array in weights.items()}

    def build(self, at: Carried, noise: Var, forced: Var, given: Given, active: Mapping[str, Var] | None) -> Carried:
        """Return what follows ``at``, with noise [N, U] and forced [N].

        ``active`` tells of each link whether any row uses it, so that a branch can leave it out;
        with None there are no branches.
        """
        names = [one.name for one in self.bundle.states]
        results = self._step(tokens=at.token, **dict(zip(names, at.model, strict=True)), **self._weights)
        raw = op.reshape(results["logits"], axes(-1, self.bundle.vocab_size))
        logits = self._without_unknown(raw)
        states, outputs = {}, {}
        for link in self.chain:
            noise_of = Traced(self._columns(noise, link.name)) if link.strategy.uniforms else None
            logits, states[link.name] = self._apply(link, logits, at.chain[link.name], noise_of, given, active)
            outputs[link.name] = logits
        drawn, masked = draw(logits, self._columns(noise, DRAW))
        new = op.less(forced, op.const(np.int64(0)))
        token = op.where(new, drawn, forced)
        for link in self.chain:
            if link.strategy.accepts:
                states[link.name] = self._accept(link, token, outputs, states[link.name], new, given, active)
        stop, stopped = self._advance_stop(at.stop, token, given)
        running = op.equal(at.ended, op.const(np.int64(0)))
        ended = op.where(
            op.and_(running, new),
            op.where(masked, _code("masked"), op.where(stopped, _code("stop"), op.const(np.int64(0)))),
            at.ended,
        )
        silent = op.or_(op.not_(running), op.and_(masked, new))
        return Carried(
            token,
            [
                reshaped(results[f"{one.name}_out"], ["N" if s is None else s for s in one.shape])
                for one in self.bundle.states
            ],
            states,
            stop,
            ended,
            raw,
            emitted=op.where(silent, op.const(np.int64(-1)), token),
            logprob=_logprob(raw, token),
        )

    def _apply(
        self,
        link: Link,
        logits: Var,
        state: dict[str, Traced],
        noise: Traced | None,
        given: Given,
        active: Mapping[str, Var] | None,
    ) -> tuple[Var, dict[str, Traced]]:
        def run() -> list[Var]:
            result, new = call(
                link, "apply", xp, Traced(logits), self.params(given, link), state, noise, self._tables(given, link)
            )
            return [result.var, *(new[name].var for name in names)]

        names = list(link.strategy.state)
        shapes: list[list[int | str]] = [["N", self.bundle.vocab_size]]
        shapes += [["N", *link.strategy.state[name].shape] for name in names]
        changed, *parts = self._when(active, link, run, [logits, *(state[name].var for name in names)], shapes)
        return changed, {name: Traced(var) for name, var in zip(names, parts, strict=True)}

    def _accept(
        self,
        link: Link,
        token: Var,
        outputs: dict[str, Var],
        state: dict[str, Traced],
        new: Var,
        given: Given,
        active: Mapping[str, Var] | None,
    ) -> dict[str, Traced]:
        def run() -> list[Var]:
            after = call(
                link,
                "accept",
                xp,
                Traced(token),
                Traced(outputs[link.name]),
                self.params(given, link),
                state,
                self._tables(given, link),
                Traced(op.unsqueeze(new, axes(1))),
            )
            return [after[name].var for name in names]

        names = list(link.strategy.state)
        shapes: list[list[int | str]] = [["N", *link.strategy.state[name].shape] for name in names]
        parts = self._when(active, link, run, [state[name].var for name in names], shapes)
        return {name: Traced(var) for name, var in zip(names, parts, strict=True)}

    def _when(
        self,
        active: Mapping[str, Var] | None,
        link: Link,
        run: Callable[[], list[Var]],
        otherwise: list[Var],
        shapes: Sequence[Sequence[int | str]],
    ) -> list[Var]:
        """Run a link only where it changes anything: a neutral one costs a branch, not its nodes."""
        if active is None or link.name not in active or not otherwise:
            return run()
        results = op.if_(
            active[link.name], then_branch=run, else_branch=lambda: [op.identity(var) for var in otherwise]
        )
        return [reshaped(var, shape) for var, shape in zip(results, shapes, strict=True)]

    def _without_unknown(self, logits: Var) -> Var:
        unknown = self.bundle.tokenizer.unknown
        if unknown is None:
            return logits
        mask = np.zeros((1, self.bundle.vocab_size), np.float32)
        mask[0, unknown] = -np.inf
        return op.add(logits, op.const(mask))

    def _advance_stop(self, state: Var, token: Var, given: Given) -> tuple[Var, Var]:
        """Return the automaton's next state and whether a stop string is complete; a prime ends nothing."""
        row = op.gather(given["stop_table"], state, axis=0)
        after = op.squeeze(op.gather_elements(row, op.unsqueeze(token, axes(1)), axis=1), axes(1))
        return after, op.gather(given["stop_final"], after, axis=0)

    def params(self, given: Given, link: Link) -> dict[str, Traced]:
        """Return a link's parameters with one row for each row of the batch, even when one was given for all."""
        rows = op.shape(given["token"])
        out = {}
        for name, spec in link.strategy.params.items():
            width = self.bundle.vocab_size if spec.per_symbol else 1
            out[name] = Traced(op.expand(given[f"{link.name}.{name}"], op.concat([rows, axes(width)], axis=0)))
        return out

    def _tables(self, given: Given, link: Link) -> dict[str, Traced]:
        return {name: Traced(given[f"{link.name}.{name}"], shared=True) for name in link.strategy.tables}

    def _columns(self, noise: Var, name: str) -> Var:
        first, count = self.signature.noise[name]
        return op.slice(noise, axes(first), axes(first + count), axes(1))


def draw(logits: Var, u: Var) -> tuple[Var, Var]:
    """The draw of gentext.chain, node for node: tokens [N] and which rows have everything masked [N]."""
    top = op.reduce_max(logits, axes(1), keepdims=1)
    weights = op.exp(op.sub(logits, top))
    running = op.cumsum(op.cast(weights, to=np.float64), op.const(np.int64(1)))
    total = op.slice(running, axes(-1), axes(np.iinfo(np.int64).max), axes(1))
    over = op.cast(op.greater(running, op.mul(op.cast(u, to=np.float64), total)), to=np.uint8)
    first = op.arg_max(over, axis=1, keepdims=0)
    unmasked = op.cast(op.greater(weights, op.const(np.float32(0))), to=np.uint8)
    last = op.arg_max(unmasked, axis=1, keepdims=0, select_last_index=1)
    found = op.cast(op.reduce_max(over, axes(1), keepdims=0), to=np.bool_)
    top_row = op.squeeze(top, axes(1))
    finite = op.less(op.abs(top_row), op.const(np.float32(np.inf)))
    return op.where(found, first, last), op.not_(finite)


def _logprob(logits: Var, token: Var) -> Var:
    """Return log-softmax of logits [N, V] at tokens [N]."""
    top = op.reduce_max(logits, axes(1), keepdims=1)
    weight = op.reduce_sum(op.exp(op.sub(logits, top)), axes(1), keepdims=1)
    # In float32, onnxruntime's log depends on where a row stands in the batch.
    total = op.add(op.cast(op.log(op.cast(weight, to=np.float64)), to=np.float32), top)
    picked = op.gather_elements(logits, op.unsqueeze(token, axes(1)), axis=1)
    return op.squeeze(op.sub(picked, total), axes(1))


def _code(finish: str) -> Var:
    return op.const(np.int64(FINISH.index(finish)))


def reshaped(var: Var, shape: Sequence[int | str]) -> Var:
    """Say again what shape a value has: control flow and inlined graphs forget it."""
    return op.reshape(var, axes(*(size if isinstance(size, int) else -1 for size in shape)))
