"""One position of a generator: the step, the chain, the draw, and the links' update with the chosen symbol. (spox)"""

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
from gentext.export.generator.states import split_graph
from gentext.export.network.step import lift_weights
from gentext.export.strategies.call import call_strategy
from gentext.export.strategies.indexing import int_vector
from gentext.export.strategies.namespace import xp
from gentext.export.strategies.traced import Traced
from gentext.noise import DRAW
from gentext.signature import Signature

#: The largest uniform number of gentext; a larger one, which a foreign caller may feed, could draw a masked symbol.
LARGEST_UNIFORM = np.float32(1 - 2.0**-24)

Arrays = dict[str, Traced]


@dataclasses.dataclass
class LoopState:
    """The values that one position hands to the next."""

    token: Var
    """The symbol of the position before [N]."""
    model: list[Var]
    """The model's states, as `gentext.export.generator.states` splits them."""
    chain: dict[str, Arrays]
    """Link -> state -> array."""


@dataclasses.dataclass
class PositionOutput:
    """The results of one position, or of all positions with one more axis in front."""

    tokens: Var
    """[N]"""
    logits: Var
    """Of the step, before the chain [N, V]."""
    tops: Var
    """The largest logit behind the chain [N, 1]: not finite where everything is masked."""


@dataclasses.dataclass(frozen=True)
class LoopInvariants:
    """The values that are the same at every position."""

    weights: dict[str, Var]
    """The constants of the step, by name."""
    params: dict[str, Arrays]
    """Link -> parameter -> array with a row for each row of the batch, even where the input has one for all."""
    tables: dict[str, Arrays]
    """Link -> table -> array."""
    active: dict[str, Var]
    """Link -> whether any row uses it, so that a branch can leave it out. A link that is missing here always runs."""

    def without_branches(self) -> LoopInvariants:
        """Return the same, so that every link runs."""
        return dataclasses.replace(self, active={})


@dataclasses.dataclass(frozen=True)
class PositionInput:
    """The inputs of one position, or of all positions with one more axis in front."""

    forced: Var
    """The symbol that must be chosen, or -1 where one is drawn [N]."""
    u: Var
    """The uniform number of the draw, float64 [N, 1]; -1 where a symbol is forced."""
    noise: dict[str, Var]
    """Link -> its uniform numbers, float32 [N, columns]; only for links that need some."""

    def select(self, position: Var) -> PositionInput:
        """Return the inputs of one position out of those of all."""
        return PositionInput(
            op.gather(self.forced, position, axis=0),
            op.gather(self.u, position, axis=0),
            {name: op.gather(noise, position, axis=0) for name, noise in self.noise.items()},
        )


class PositionBuilder:
    """Builds the nodes of one position, as often as it is called."""

    def __init__(self, step: onnx.ModelProto, bundle: Bundle, chain: Chain, signature: Signature) -> None:
        self.bundle, self.chain, self.signature = bundle, chain, signature
        split_step, self.carried = split_graph(step, bundle)
        lifted_step, weights = lift_weights(split_step)
        self._step = spox.inline(lifted_step)
        self.weights = {name: op.const(array) for name, array in weights.items()}

    def position_inputs(self, noise: Var, forced: Var) -> PositionInput:
        """Return the inputs of all positions from the call's noise [K, N, U] and forced symbols [K, N]."""
        u = self._noise_columns(noise, DRAW)
        limit = op.const(LARGEST_UNIFORM)
        u = op.cast(op.where(op.less_or_equal(u, limit), u, limit), to=np.float64)
        # With u = -1 the draw gives 0, so where a symbol is forced it is the larger of the two.
        is_drawn = op.less(op.unsqueeze(forced, int_vector(2)), op.const(np.int64(0)))
        u = op.where(is_drawn, u, op.const(np.float64(-1)))
        names = [link.name for link in self.chain if link.strategy.uniforms]
        return PositionInput(forced, u, {name: self._noise_columns(noise, name) for name in names})

    def build(
        self, state: LoopState, inputs: PositionInput, invariants: LoopInvariants
    ) -> tuple[LoopState, PositionOutput]:
        """Return the next state and the output. Only the links whose state is in ``state`` run."""
        # the step
        names = [tensor.name for tensor in self.carried]
        model_states = dict(zip(names, state.model, strict=True))
        results = self._step(tokens=state.token, **model_states, **invariants.weights)
        next_model_states = [results[f"{name}_out"] for name in names]

        # the chain
        logits = self._mask_unknown(results["logits"])
        link_states, link_outputs = {}, {}
        links = [link for link in self.chain if link.name in state.chain]
        for link in links:
            logits, link_states[link.name] = self._apply(link, logits, state.chain[link.name], inputs, invariants)
            link_outputs[link.name] = logits

        # the draw
        drawn, top = draw(logits, inputs.u)
        token = op.max([drawn, inputs.forced])

        # the update of the links
        new = op.less(inputs.forced, op.const(np.int64(0)))
        for link in links:
            if link.strategy.accepts:
                link_states[link.name] = self._accept(
                    link, token, link_outputs[link.name], link_states[link.name], new, invariants
                )
        return LoopState(token, next_model_states, link_states), PositionOutput(token, results["logits"], top)

    def link_params(self, inputs: Mapping[str, Var], link: Link) -> Arrays:
        """Return a link's parameters with one row for each row of the batch; ``inputs`` are the call's."""
        rows = op.shape(inputs["token"])
        params = {}
        for name, spec in link.strategy.params.items():
            width = self.bundle.vocab_size if spec.per_symbol else 1
            shape = op.concat([rows, int_vector(width)], axis=0)
            params[name] = Traced(op.expand(inputs[f"{link.name}.{name}"], shape))
        return params

    def _apply(
        self, link: Link, logits: Var, state: Arrays, inputs: PositionInput, invariants: LoopInvariants
    ) -> tuple[Var, Arrays]:
        names = list(link.strategy.state)

        def run() -> list[Var]:
            noise = Traced(inputs.noise[link.name]) if link.strategy.uniforms else None
            params, tables = invariants.params[link.name], invariants.tables[link.name]
            result, next_state = call_strategy(link, "apply", xp, Traced(logits), params, state, noise, tables)
            return [result.var, *(next_state[name].var for name in names)]

        unchanged = [logits, *(state[name].var for name in names)]
        next_logits, *next_state = _run_if_active(link, run, unchanged, invariants)
        return next_logits, {name: Traced(var) for name, var in zip(names, next_state, strict=True)}

    def _accept(
        self, link: Link, token: Var, logits: Var, state: Arrays, new: Var, invariants: LoopInvariants
    ) -> Arrays:
        names = list(link.strategy.state)

        def run() -> list[Var]:
            params, tables = invariants.params[link.name], invariants.tables[link.name]
            new_column = Traced(op.unsqueeze(new, int_vector(1)))
            next_state = call_strategy(
                link, "accept", xp, Traced(token), Traced(logits), params, state, tables, new_column
            )
            return [next_state[name].var for name in names]

        next_state = _run_if_active(link, run, [state[name].var for name in names], invariants)
        return {name: Traced(var) for name, var in zip(names, next_state, strict=True)}

    def _mask_unknown(self, logits: Var) -> Var:
        """Return logits [N, V] at which the symbol for unknown characters is never drawn."""
        unknown = self.bundle.tokenizer.unknown
        if unknown is None:
            return logits
        mask = np.zeros((1, self.bundle.vocab_size), np.float32)
        mask[0, unknown] = -np.inf
        return op.add(logits, op.const(mask))

    def _noise_columns(self, noise: Var, name: str) -> Var:
        """Return the columns of noise [K, N, U] that belong to a link, or to the draw."""
        first, count = self.signature.noise[name]
        return op.slice(noise, int_vector(first), int_vector(first + count), int_vector(2))


def _run_if_active(
    link: Link, run: Callable[[], list[Var]], unchanged: list[Var], invariants: LoopInvariants
) -> list[Var]:
    """Return the results of ``run``, and at run time ``unchanged`` in their place where no row uses the link."""
    if link.name not in invariants.active or not unchanged:
        return run()
    results = op.if_(
        invariants.active[link.name], then_branch=run, else_branch=lambda: [op.identity(var) for var in unchanged]
    )
    return list(results)


def draw(logits: Var, u: Var) -> tuple[Var, Var]:
    """Build `gentext.chain.draw`, node for node, for uniform numbers float64 [N, 1] below 1.

    Returns tokens [N] and the largest logit of each row [N, 1]. With such a number one of the running sums is
    greater than its share of the total, and the first one that is belongs to a symbol with a positive weight. So
    the reference's rule for a number with which no sum is needs no nodes here.
    """
    top = op.reduce_max(logits, int_vector(1), keepdims=1)
    running = op.cumsum(op.cast(op.exp(op.sub(logits, top)), to=np.float64), op.const(np.int64(1)))
    total = op.gather(running, int_vector(-1), axis=1)
    over = op.cast(op.greater(running, op.mul(u, total)), to=np.uint8)
    return op.arg_max(over, axis=1, keepdims=0), top
