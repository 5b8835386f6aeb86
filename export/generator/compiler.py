"""Builds generator.onnx: the step of a model and the entire sampling chain in one graph that writes text. (spox)

One iteration of the loop runs the step on a token of each row, runs the chain on the logits, draws a token with
uniform numbers that are an input, and calls `accept` of every link with it. docs/formats.md lists the inputs and
outputs.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import onnx
import spox
import spox.opset.ai.onnx.v21 as op
from onnx import helper, numpy_helper
from spox import Tensor, Var

from gentext.export.generator.loop import build_loop
from gentext.export.generator.loop_kinds import find_loop_kinds
from gentext.export.generator.outputs import (
    NamedVars,
    advance_automaton,
    concat_loops,
    end_rows,
    find_top_symbols,
    pick_log_probabilities,
    run_automaton,
)
from gentext.export.generator.position import LoopInvariants, LoopState, PositionBuilder, PositionOutput
from gentext.export.generator.states import merge_states, split_states
from gentext.export.generator.tree import flatten, unflatten
from gentext.export.generator.unrolled import make_capturable
from gentext.export.proto import IR_VERSION, check_graph, declare_shape, number_nodes
from gentext.export.strategies.call import call_strategy
from gentext.export.strategies.indexing import int_vector, select
from gentext.export.strategies.namespace import xp
from gentext.export.strategies.traced import Traced
from gentext.exported.metadata import Bundle, StateMeta
from gentext.exported.signature import TOP_COUNT, Signature, flat_arrays, signature
from gentext.sampling.chain import Chain, Link, LinkArrays
from gentext.sampling.configured_chain import describe_links
from gentext.strategy import Param, Table


@dataclasses.dataclass(frozen=True)
class _CallResult:
    """The results of all positions of a call."""

    state: LoopState
    """The state after the last position."""
    outputs: PositionOutput
    """Of all positions, stacked along a first axis of size K."""
    stopped: Var
    """Whether a stop string is complete at a position [K, N]."""
    stop_state: Var
    """The state of the stop automaton after the last position [N]."""


class Compiler:
    """Builds the graph of one model and one chain."""

    def __init__(self, step: onnx.ModelProto, bundle: Bundle, chain: Chain, tables: LinkArrays) -> None:
        """``tables`` are the default values of the inputs of the links' tables."""
        self.bundle = dataclasses.replace(bundle, kind="generator", chain=describe_links(chain))
        self.chain = chain
        self._tables = tables
        card = self.bundle.card | {"fingerprint": self._compute_fingerprint(step)}
        self.bundle = dataclasses.replace(self.bundle, card=card)
        self.signature = signature(self.bundle)
        self._position_builder = PositionBuilder(step, self.bundle, chain, self.signature)

    def compile_loop(self) -> onnx.ModelProto:
        """Return the generator for as many positions as its input ``forced`` has.

        It has up to three loops, of which a call runs one: see `find_loop_kinds`.
        """
        inputs = _declare_inputs(self.signature, None)
        state, invariants = self._initial_loop_state(inputs), self._loop_invariants(inputs)
        position_inputs = self._position_builder.position_inputs(inputs["noise"], inputs["forced"])
        trips = op.gather(op.shape(inputs["forced"]), op.const(np.int64(0)))
        outputs = []
        for loop_kind in find_loop_kinds(self.chain, self._tables, inputs, invariants.active):
            loop_trips = _trips_where(trips, loop_kind.is_enough)
            trips = op.sub(trips, loop_trips)
            loop_state, loop_outputs = build_loop(
                self._position_builder.build,
                loop_trips,
                dataclasses.replace(state, chain={name: state.chain[name] for name in loop_kind.names}),
                position_inputs,
                loop_kind.specialise(invariants),
            )
            # All loops but one run no times and return their initial state, so they can follow each other.
            state = dataclasses.replace(loop_state, chain=state.chain | loop_state.chain)
            outputs.append(loop_outputs)
        joined_outputs = outputs[0]
        if len(outputs) > 1:
            joined_outputs = concat_loops(outputs, self.bundle.vocab_size, op.shape(inputs["token"]))
        stopped, stop_state = run_automaton(
            joined_outputs.tokens, self._initial_stop_state(inputs), inputs["stop_table"], inputs["stop_final"]
        )
        return self._build_model(inputs, _CallResult(state, joined_outputs, stopped, stop_state), "K", self.bundle)

    def compile_unrolled(self, positions: int) -> onnx.ModelProto:
        """Return the generator for a fixed number of positions, without any control flow."""
        card = self.bundle.card | {"positions": positions}
        bundle = dataclasses.replace(self.bundle, kind="unrolled", card=card)
        inputs = _declare_inputs(signature(bundle), positions)
        state, invariants = self._initial_loop_state(inputs), self._loop_invariants(inputs).without_branches()
        position_inputs = self._position_builder.position_inputs(inputs["noise"], inputs["forced"])
        stop_state = self._initial_stop_state(inputs)
        stop_states: list[Var] = []
        outputs: list[PositionOutput] = []
        for position in range(positions):
            state, output = self._position_builder.build(
                state, position_inputs.select(op.const(np.int64(position))), invariants
            )
            stop_state = advance_automaton(stop_state, output.tokens, inputs["stop_table"])
            outputs.append(output)
            stop_states.append(stop_state)
        flat_outputs = [flatten(output) for output in outputs]
        stacked_vars = {name: _stack_vars([variables[name] for variables in flat_outputs]) for name in flat_outputs[0]}
        stopped = op.gather(inputs["stop_final"], _stack_vars(stop_states))
        call_result = _CallResult(state, unflatten(outputs[0], stacked_vars), stopped, stop_state)
        return make_capturable(self._build_model(inputs, call_result, positions, bundle))

    def _compute_fingerprint(self, step: onnx.ModelProto) -> str:
        """Return a hash that all files of one step, chain and tables share, and no others: SHA-256, hexadecimal."""
        digest = hashlib.sha256(step.SerializeToString(deterministic=True))
        for name, text in sorted(self.bundle.to_metadata().items()):
            digest.update(f"{name}={text}".encode())
        for link, tables in sorted(self._tables.items()):
            for name, array in sorted(tables.items()):
                digest.update(f"{link}.{name}".encode() + np.asarray(array).tobytes())
        return digest.hexdigest()

    # -- the interface --------------------------------------------------------------------------

    def _build_model(
        self, inputs: NamedVars, call_result: _CallResult, positions: int | str, bundle: Bundle
    ) -> onnx.ModelProto:
        """Return the file with the outputs of the bundle's signature, the defaults of the inputs, and the metadata."""
        outputs = self._output_vars(inputs, call_result)
        ports = signature(bundle)
        proto = spox.build(inputs, {port.name: outputs[port.name] for port in ports.outputs})
        shapes = {port.name: port.shape for port in ports.outputs}
        for value_info in proto.graph.output:
            declare_shape(value_info, [positions if size == "K" else size for size in shapes[value_info.name]])
        table_defaults = flat_arrays(self._tables)
        for port in ports.inputs:
            if port.default is not None:
                array = np.asarray(table_defaults.get(port.name, port.default), port.dtype)
                proto.graph.initializer.append(numpy_helper.from_array(array, port.name))
        number_nodes(proto.graph)
        proto.ir_version = IR_VERSION
        proto.producer_name = "gentext"
        helper.set_model_props(proto, bundle.to_metadata())
        check_graph(proto)
        return proto

    def _output_vars(self, inputs: NamedVars, call_result: _CallResult) -> NamedVars:
        """Return the outputs of the signature by name."""
        state, position_outputs = call_result.state, call_result.outputs
        ended_before = op.where(inputs["fresh"], op.const(np.int64(0)), inputs["ended"])
        tokens, ended = end_rows(
            position_outputs.tokens,
            position_outputs.tops,
            inputs["forced"],
            ended_before,
            call_result.stopped,
            position_outputs.ended,
            self.bundle.boundary,
        )
        logits = position_outputs.logits
        logprobs = op.log_softmax(logits, axis=2)
        outputs = {"tokens": tokens, "logprobs": pick_log_probabilities(logprobs, position_outputs.tokens)}
        if TOP_COUNT in inputs:
            outputs |= find_top_symbols(logits, logprobs, inputs[TOP_COUNT], self.bundle.vocab_size)
        outputs["logits"] = op.gather(logits, op.const(np.int64(-1)), axis=0)
        outputs |= {"ended_out": ended, "stop_state_out": call_result.stop_state}
        model_states = merge_states(state.model, self._position_builder.carried)
        outputs |= {f"{name}_out": var for name, var in model_states.items()}
        for link in self.chain:
            for name in link.strategy.state:
                outputs[f"{link.name}.{name}_out"] = state.chain[link.name][name].var
        return outputs

    # -- the first position ------------------------------------------------------------------

    def _initial_loop_state(self, inputs: NamedVars) -> LoopState:
        """Return the state before the first position: of fresh rows the initial one, of the others the input."""
        fresh = inputs["fresh"]
        token = op.where(fresh, op.const(np.int64(self.bundle.start)), inputs["token"])
        model_states = {
            state.name: select(
                _flags_along_axis(fresh, len(state.shape), state.spec.batch_axis),
                _initial_row(state),
                inputs[state.name],
            )
            for state in self.bundle.states
        }
        link_states = {link.name: self._initial_link_state(link, inputs) for link in self.chain}
        return LoopState(token, split_states(model_states, self._position_builder.carried), link_states)

    def _initial_link_state(self, link: Link, inputs: NamedVars) -> dict[str, Traced]:
        initial_arrays = {
            name: Traced(op.const(np.full((1, *spec.shape), spec.initial, spec.dtype)))
            for name, spec in link.strategy.state.items()
        }
        initial_arrays |= call_strategy(link, "start", xp, self._position_builder.link_params(inputs, link))
        link_state = {}
        for name, spec in link.strategy.state.items():
            fresh = _flags_along_axis(inputs["fresh"], 1 + len(spec.shape), 0)
            link_state[name] = Traced(select(fresh, initial_arrays[name].var, inputs[f"{link.name}.{name}"]))
        return link_state

    def _initial_stop_state(self, inputs: NamedVars) -> Var:
        """Return the state of each row's stop automaton before the first position."""
        return op.where(inputs["fresh"], op.const(np.int64(0)), inputs["stop_state"])

    def _loop_invariants(self, inputs: NamedVars) -> LoopInvariants:
        """Return the values that are the same at every position."""
        params, tables = {}, {}
        for link in self.chain:
            params[link.name] = self._position_builder.link_params(inputs, link)
            tables[link.name] = {
                name: Traced(inputs[f"{link.name}.{name}"], shared=True) for name in link.strategy.tables
            }
        return LoopInvariants(self._position_builder.weights, params, tables, self._active_links(inputs))

    def _active_links(self, inputs: NamedVars) -> NamedVars:
        """Return, for each link that can be turned off, whether any row uses it: see `Strategy.switch`."""
        active_links = {}
        for link in self.chain:
            differences = []
            for name, spec in link.strategy.switches.items():
                differs_from_neutral = op.not_(op.equal(inputs[f"{link.name}.{name}"], _neutral_value(spec)))
                differences.append(op.reduce_max(op.cast(differs_from_neutral, to=np.int32), keepdims=0))
            if differences:
                active_links[link.name] = op.cast(op.max(differences), to=np.bool_)
        return active_links


def _declare_inputs(ports: Signature, positions: int | None) -> NamedVars:
    """Return the inputs of a signature; with ``positions``, the axis K has that size."""
    arguments = {}
    for port in ports.inputs:
        shape = tuple(positions if size == "K" and positions is not None else size for size in port.shape)
        arguments[port.name] = spox.argument(Tensor(np.dtype(port.dtype), shape))
    return arguments


def _flags_along_axis(flags: Var, ndim: int, axis: int) -> Var:
    """Return flags [N] as an array of ``ndim`` axes, of which all but ``axis`` have the size 1."""
    if ndim == 1:
        return flags
    return op.unsqueeze(flags, int_vector(*(other_axis for other_axis in range(ndim) if other_axis != axis)))


def _trips_where(trips: Var, condition: Var) -> Var:
    """Return the number of iterations, or 0 where the condition is false."""
    return op.mul(trips, op.cast(condition, to=np.int64))


def _stack_vars(variables: Sequence[Var]) -> Var:
    return op.concat([op.unsqueeze(var, int_vector(0)) for var in variables], axis=0)


def _initial_row(state: StateMeta) -> Var:
    """Return the initial value of a model's state, for one row."""
    return op.const(np.expand_dims(state.initial_row(), state.spec.batch_axis))


def _neutral_value(spec: Param | Table) -> Var:
    return op.const(np.array(spec.neutral, spec.dtype))
