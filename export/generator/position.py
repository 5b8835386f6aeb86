"""One position of a generator: step, chain, draw, and every link's look at what was chosen. (spox)"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import spox
import spox.opset.ai.onnx.v21 as op
from spox import Var

from gentext.bundle import Bundle
from gentext.chain import Chain, Link
from gentext.export.generator.states import split_states
from gentext.export.network.step import lift_weights
from gentext.export.strategies.call import call
from gentext.export.strategies.namespace import xp
from gentext.export.strategies.traced import Traced, axes
from gentext.noise import DRAW
from gentext.signature import Signature

#: The largest uniform there is; a foreign one beyond it would choose a symbol that is masked.
LARGEST_UNIFORM = np.float32(1 - 2.0**-24)

Arrays = dict[str, Traced]


@dataclasses.dataclass
class LoopState:
    """What one position hands to the next."""

    token: Var
    model: list[Var]
    """The parts of the states: see gentext.export.generator.states."""
    chain: dict[str, Arrays]


@dataclasses.dataclass
class PositionOutput:
    """What one position says, or all of them with one more axis in front."""

    tokens: Var
    """[N]"""
    logits: Var
    """Of the step, before the chain [N, V]."""
    tops: Var
    """The largest logit behind the chain [N, 1]: not finite where everything is masked."""


@dataclasses.dataclass(frozen=True)
class LoopInvariants:
    """What is the same at every position, by link; so it is computed once a call."""

    weights: dict[str, Var]
    params: dict[str, Arrays]
    """One row for each row of the batch, even where one was given for all."""
    tables: dict[str, Arrays]
    active: dict[str, Var]
    """Whether any row uses a link, so that a branch can leave it out; links that are not here always run."""

    def without_branches(self) -> LoopInvariants:
        """Return the same, so that every link runs."""
        return dataclasses.replace(self, active={})


@dataclasses.dataclass(frozen=True)
class PositionInput:
    """What comes from outside for one position, or for all of them with one more axis in front."""

    forced: Var
    """[N]"""
    u: Var
    """Of the draw, float64 [N, 1]."""
    noise: dict[str, Var]
    """Of each link that asks, float32 [N, columns]."""

    def at(self, index: Var) -> PositionInput:
        """Return one position's share."""
        return PositionInput(
            op.gather(self.forced, index, axis=0),
            op.gather(self.u, index, axis=0),
            {name: op.gather(one, index, axis=0) for name, one in self.noise.items()},
        )


class PositionBuilder:
    """Builds the nodes of one position, as often as it is asked to."""

    def __init__(self, step: onnx.ModelProto, bundle: Bundle, chain: Chain, signature: Signature) -> None:
        self.bundle, self.chain, self.signature = bundle, chain, signature
        cut, self.parts = split_states(step, bundle)
        lifted, weights = lift_weights(cut)
        self._step = spox.inline(lifted)
        self.weights = {name: op.const(array) for name, array in weights.items()}

    def given(self, noise: Var, forced: Var) -> PositionInput:
        """Return noise [K, N, U] and forced [K, N] as the positions want them."""
        u = self._columns(noise, DRAW)
        limit = op.const(LARGEST_UNIFORM)
        u = op.cast(op.where(op.less_or_equal(u, limit), u, limit), to=np.float64)
        # Where a symbol is forced, the draw gives 0, and so the larger of the two is the forced one.
        u = op.where(op.less(op.unsqueeze(forced, axes(2)), op.const(np.int64(0))), u, op.const(np.float64(-1)))
        names = [link.name for link in self.chain if link.strategy.uniforms]
        return PositionInput(forced, u, {name: self._columns(noise, name) for name in names})

    def build(self, at: LoopState, given: PositionInput, fixed: LoopInvariants) -> tuple[LoopState, PositionOutput]:
        """Return what follows ``at`` and what is said; the links whose state ``at`` holds run."""
        names = [part.name for part in self.parts]
        results = self._step(tokens=at.token, **dict(zip(names, at.model, strict=True)), **fixed.weights)
        raw = results["logits"]
        logits = self._without_unknown(raw)
        states, outputs = {}, {}
        links = [link for link in self.chain if link.name in at.chain]
        for link in links:
            logits, states[link.name] = self._apply(link, logits, at.chain[link.name], given, fixed)
            outputs[link.name] = logits
        drawn, top = draw(logits, given.u)
        token = op.max([drawn, given.forced])
        new = op.less(given.forced, op.const(np.int64(0)))
        for link in links:
            if link.strategy.accepts:
                states[link.name] = self._accept(link, token, outputs[link.name], states[link.name], new, fixed)
        model = [results[f"{part.name}_out"] for part in self.parts]
        return LoopState(token, model, states), PositionOutput(token, raw, top)

    def _apply(
        self, link: Link, logits: Var, state: Arrays, given: PositionInput, fixed: LoopInvariants
    ) -> tuple[Var, Arrays]:
        def run() -> list[Var]:
            noise = Traced(given.noise[link.name]) if link.strategy.uniforms else None
            params, tables = fixed.params[link.name], fixed.tables[link.name]
            result, new = call(link, "apply", xp, Traced(logits), params, state, noise, tables)
            return [result.var, *(new[name].var for name in names)]

        names = list(link.strategy.state)
        changed, *parts = self._when(fixed, link, run, [logits, *(state[name].var for name in names)])
        return changed, {name: Traced(var) for name, var in zip(names, parts, strict=True)}

    def _accept(self, link: Link, token: Var, logits: Var, state: Arrays, new: Var, fixed: LoopInvariants) -> Arrays:
        def run() -> list[Var]:
            params, tables = fixed.params[link.name], fixed.tables[link.name]
            flag = Traced(op.unsqueeze(new, axes(1)))
            after = call(link, "accept", xp, Traced(token), Traced(logits), params, state, tables, flag)
            return [after[name].var for name in names]

        names = list(link.strategy.state)
        parts = self._when(fixed, link, run, [state[name].var for name in names])
        return {name: Traced(var) for name, var in zip(names, parts, strict=True)}

    def _when(self, fixed: LoopInvariants, link: Link, run: Callable[[], list[Var]], otherwise: list[Var]) -> list[Var]:
        """Run a link only where it changes anything: a neutral one costs a branch, not its nodes."""
        if link.name not in fixed.active or not otherwise:
            return run()
        results = op.if_(
            fixed.active[link.name], then_branch=run, else_branch=lambda: [op.identity(var) for var in otherwise]
        )
        return list(results)

    def _without_unknown(self, logits: Var) -> Var:
        unknown = self.bundle.tokenizer.unknown
        if unknown is None:
            return logits
        mask = np.zeros((1, self.bundle.vocab_size), np.float32)
        mask[0, unknown] = -np.inf
        return op.add(logits, op.const(mask))

    def params(self, given: Mapping[str, Var], link: Link) -> Arrays:
        """Return a link's parameters with one row for each row of the batch."""
        rows = op.shape(given["token"])
        out = {}
        for name, spec in link.strategy.params.items():
            width = self.bundle.vocab_size if spec.per_symbol else 1
            out[name] = Traced(op.expand(given[f"{link.name}.{name}"], op.concat([rows, axes(width)], axis=0)))
        return out

    def _columns(self, noise: Var, name: str) -> Var:
        first, count = self.signature.noise[name]
        return op.slice(noise, axes(first), axes(first + count), axes(2))


def draw(logits: Var, u: Var) -> tuple[Var, Var]:
    """The draw of gentext.chain, node for node, with uniforms float64 [N, 1] below 1.

    Returns tokens [N] and the largest logit of each row [N, 1]. With such a uniform some running sum
    exceeds its share of the total, and the first that does belongs to a symbol with weight: what the
    reference does for other uniforms has no nodes here.
    """
    top = op.reduce_max(logits, axes(1), keepdims=1)
    running = op.cumsum(op.cast(op.exp(op.sub(logits, top)), to=np.float64), op.const(np.int64(1)))
    total = op.gather(running, axes(-1), axis=1)
    over = op.cast(op.greater(running, op.mul(u, total)), to=np.uint8)
    return op.arg_max(over, axis=1, keepdims=0), top
