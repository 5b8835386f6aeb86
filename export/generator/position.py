"""One position of a generator: the step, the chain, the draw, and `accept` of the links. (spox)"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import spox
import spox.opset.ai.onnx.v21 as op
from spox import Var

from gentext.export.generator.states import split_graph
from gentext.export.network.step import lift_weights
from gentext.export.strategies.call import call_strategy
from gentext.export.strategies.facts import NO_FACTS, Facts
from gentext.export.strategies.indexing import int_vector
from gentext.export.strategies.namespace import xp
from gentext.export.strategies.traced import Traced
from gentext.exported.metadata import Bundle
from gentext.exported.signature import Signature
from gentext.noise import DRAW
from gentext.sampling.chain import Chain, Link

#: The largest uniform number of gentext; a larger one, which a foreign caller may feed, could draw a masked symbol.
LARGEST_UNIFORM = np.float32(1 - 2.0**-24)

TracedArrays = dict[str, Traced]
#: Link -> parameter -> what holds for it.
ParamFacts = Mapping[str, Mapping[str, Facts]]


@dataclasses.dataclass
class LoopState:
    """The values that one position passes to the next."""

    token: Var
    """The symbol of the position before [N]."""
    model: list[Var]
    """The model's states, as `gentext.export.generator.states` splits them."""
    chain: dict[str, TracedArrays]
    """Link -> state -> array."""


@dataclasses.dataclass
class PositionOutput:
    """The results of one position, or of all positions with one more axis in front."""

    tokens: Var
    """[N]"""
    logits: Var
    """Of the step, before the chain [N, V]."""
    tops: Var
    """The largest logit after the chain [N, 1]: not finite where every symbol is masked."""
    ended: list[Var]
    """Whether a link has ended the row [N]: one element; none where no link that runs ends rows."""


@dataclasses.dataclass(frozen=True)
class LoopInvariants:
    """The values that are the same at every position."""

    weights: dict[str, Var]
    """The constants of the step, by name."""
    params: dict[str, TracedArrays]
    """Link -> parameter -> array with a row for each row of the batch, even where the input has one for all."""
    tables: dict[str, TracedArrays]
    """Link -> table -> array."""
    active: dict[str, Var]
    """Link -> whether any row uses it, so that a branch can leave it out. A link that is missing here always runs."""

    def without_branches(self) -> LoopInvariants:
        """Return the same, so that every link runs."""
        return dataclasses.replace(self, active={})

    def with_facts(self, facts: ParamFacts) -> LoopInvariants:
        """Return the same, with what holds for the parameters."""
        params = {
            link: {
                name: Traced(array.var, facts=facts.get(link, {}).get(name, NO_FACTS)) for name, array in arrays.items()
            }
            for link, arrays in self.params.items()
        }
        return dataclasses.replace(self, params=params)


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
    """Builds the nodes of one position; `build` may be called several times."""

    def __init__(self, step: onnx.ModelProto, bundle: Bundle, chain: Chain, signature: Signature) -> None:
        self.bundle, self.chain, self.signature = bundle, chain, signature
        split_step, self.carried = split_graph(step, bundle)
        lifted_step, weights = lift_weights(split_step)
        self._inlined_step = spox.inline(lifted_step)
        self.weights = {name: op.const(array) for name, array in weights.items()}

    def position_inputs(self, noise: Var, forced: Var) -> PositionInput:
        """Return the inputs of all positions from the call's noise [K, N, U] and forced symbols [K, N]."""
        u = self._noise_columns(noise, DRAW)
        largest_uniform = op.const(LARGEST_UNIFORM)
        u = op.cast(op.where(op.less_or_equal(u, largest_uniform), u, largest_uniform), to=np.float64)
        # With u = -1 the draw gives 0, so where a symbol is forced it is the larger of the two.
        is_drawn = op.less(op.unsqueeze(forced, int_vector(2)), op.const(np.int64(0)))
        u = op.where(is_drawn, u, op.const(np.float64(-1)))
        noise_links = [link.name for link in self.chain if link.strategy.uniforms]
        return PositionInput(forced, u, {name: self._noise_columns(noise, name) for name in noise_links})

    def build(
        self, state: LoopState, inputs: PositionInput, invariants: LoopInvariants
    ) -> tuple[LoopState, PositionOutput]:
        """Return the next state and the output. Only the links whose state is in ``state`` run."""
        # the step
        tensor_names = [tensor.name for tensor in self.carried]
        model_states = dict(zip(tensor_names, state.model, strict=True))
        step_results = self._inlined_step(tokens=state.token, **model_states, **invariants.weights)
        next_model_states = [step_results[f"{name}_out"] for name in tensor_names]

        # the chain
        logits = self._mask_empty_records(self._mask_unknown(step_results["logits"]), state.token)
        link_states, link_outputs = {}, {}
        links = [link for link in self.chain if link.name in state.chain]
        for link in links:
            logits, link_states[link.name] = self._apply_link(link, logits, state.chain[link.name], inputs, invariants)
            link_outputs[link.name] = logits

        # the draw
        drawn_tokens, top_logits = build_draw(logits, inputs.u)
        token = op.max([drawn_tokens, inputs.forced])

        # the update of the links
        is_new = op.less(inputs.forced, op.const(np.int64(0)))
        for link in links:
            if link.strategy.accepts:
                link_states[link.name] = self._accept_token(
                    link, token, link_outputs[link.name], link_states[link.name], is_new, invariants
                )
        end_flags = [link_states[link.name][link.strategy.ends].var for link in links if link.strategy.ends is not None]
        ended = [functools.reduce(op.or_, end_flags)] if end_flags else []
        output = PositionOutput(token, step_results["logits"], top_logits, ended)
        return LoopState(token, next_model_states, link_states), output

    def link_params(self, inputs: Mapping[str, Var], link: Link) -> TracedArrays:
        """Return a link's parameters with one row for each row of the batch; ``inputs`` are the call's."""
        rows = op.shape(inputs["token"])
        params = {}
        for name, spec in link.strategy.params.items():
            width = self.bundle.vocab_size if spec.per_symbol else 1
            shape = op.concat([rows, int_vector(width)], axis=0)
            row_params = op.expand(inputs[f"{link.name}.{name}"], shape)
            params[name] = Traced(op.reshape(row_params, int_vector(-1, width)))  # so that the width is known
        return params

    def _apply_link(
        self, link: Link, logits: Var, state: TracedArrays, inputs: PositionInput, invariants: LoopInvariants
    ) -> tuple[Var, TracedArrays]:
        state_names = list(link.strategy.state)

        def run_link() -> list[Var]:
            noise = Traced(inputs.noise[link.name]) if link.strategy.uniforms else None
            params, tables = invariants.params[link.name], invariants.tables[link.name]
            new_logits, next_state = call_strategy(link, "apply", xp, Traced(logits), params, state, noise, tables)
            return [new_logits.var, *(next_state[name].var for name in state_names)]

        unchanged_vars = [logits, *(state[name].var for name in state_names)]
        next_logits, *next_state = _run_if_active(link, run_link, unchanged_vars, invariants)
        return next_logits, {name: Traced(var) for name, var in zip(state_names, next_state, strict=True)}

    def _accept_token(
        self, link: Link, token: Var, logits: Var, state: TracedArrays, is_new: Var, invariants: LoopInvariants
    ) -> TracedArrays:
        state_names = list(link.strategy.state)

        def run_link() -> list[Var]:
            params, tables = invariants.params[link.name], invariants.tables[link.name]
            is_new_column = Traced(op.unsqueeze(is_new, int_vector(1)))
            next_state = call_strategy(
                link, "accept", xp, Traced(token), Traced(logits), params, state, tables, is_new_column
            )
            return [next_state[name].var for name in state_names]

        next_state = _run_if_active(link, run_link, [state[name].var for name in state_names], invariants)
        return {name: Traced(var) for name, var in zip(state_names, next_state, strict=True)}

    def _mask_unknown(self, logits: Var) -> Var:
        """Return logits [N, V] at which the symbol for unknown characters is never drawn."""
        unknown = self.bundle.tokenizer.unknown
        if unknown is None:
            return logits
        mask = np.zeros((1, self.bundle.vocab_size), np.float32)
        mask[0, unknown] = -np.inf
        return op.add(logits, op.const(mask))

    def _mask_empty_records(self, logits: Var, token: Var) -> Var:
        """Return logits [N, V] at which the boundary symbol is not drawn behind itself: tokens [N] are read last."""
        if not self.bundle.never_empty:
            return logits
        followed_by = np.full((1, self.bundle.vocab_size), -1)  # the token behind which each symbol is not drawn
        followed_by[0, self.bundle.boundary] = self.bundle.boundary
        is_masked = op.equal(op.unsqueeze(token, int_vector(1)), op.const(followed_by))
        return op.where(is_masked, op.const(np.float32(-np.inf)), logits)

    def _noise_columns(self, noise: Var, link_name: str) -> Var:
        """Return the columns of noise [K, N, U] that belong to a link, or to the draw."""
        first_column, column_count = self.signature.noise[link_name]
        return op.slice(noise, int_vector(first_column), int_vector(first_column + column_count), int_vector(2))


def _run_if_active(
    link: Link, run_link: Callable[[], list[Var]], unchanged_vars: list[Var], invariants: LoopInvariants
) -> list[Var]:
    """Return the results of ``run_link``; at run time, ``unchanged_vars`` where no row uses the link."""
    if link.name not in invariants.active or not unchanged_vars:
        return run_link()
    branch_results = op.if_(
        invariants.active[link.name],
        then_branch=run_link,
        else_branch=lambda: [op.identity(var) for var in unchanged_vars],
    )
    return list(branch_results)


def build_draw(logits: Var, u: Var) -> tuple[Var, Var]:
    """Build `gentext.sampling.draw.draw_tokens`, node for node, for uniform numbers float64 [N, 1] below 1.

    Returns tokens [N] and the largest logit of each row [N, 1]. With such a number one of the running sums is
    greater than its share of the total, and the first one that is belongs to a symbol with a positive weight. So
    the reference's rule for a number with which no sum is needs no nodes here.
    """
    top_logits = op.reduce_max(logits, int_vector(1), keepdims=1)
    running_sums = op.cumsum(op.cast(op.exp(op.sub(logits, top_logits)), to=np.float64), op.const(np.int64(1)))
    total_weight = op.gather(running_sums, int_vector(-1), axis=1)
    is_over = op.cast(op.greater(running_sums, op.mul(u, total_weight)), to=np.uint8)
    return op.arg_max(is_over, axis=1, keepdims=0), top_logits
