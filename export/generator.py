"""generator.onnx: the step of a model and the whole sampling chain in one graph that writes text. (spox)

One iteration of the loop feeds a token of each row to the step, runs the chain on the logits, draws
with uniforms that came as an input, and lets every link see what was chosen. docs/formats.md lists
the interface.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import spox
import spox.opset.ai.onnx.v21 as op
from onnx import helper, numpy_helper
from spox import Tensor, Var

from gentext.bundle import Bundle
from gentext.chain import Chain, Values
from gentext.describe import chain_meta
from gentext.export.ending import advance, automaton, emitted, log_probabilities
from gentext.export.hoist import hoist
from gentext.export.namespace import xp
from gentext.export.position import Carried, Fixed, Position, reshaped
from gentext.export.proto import IR_VERSION, declare
from gentext.export.rules import call
from gentext.export.states import put_together, take_apart
from gentext.export.trace import Traced, axes
from gentext.signature import signature


@dataclasses.dataclass(frozen=True)
class _Said:
    """All positions of a call, and the automaton behind them."""

    tokens: Var
    logits: Var
    tops: Var
    stopped: Var
    stop: Var


class Compiler:
    """Builds the graph of one model and one chain."""

    def __init__(self, step: onnx.ModelProto, bundle: Bundle, chain: Chain, tables: Values) -> None:
        """``tables`` are what the inputs of the links' tables hold when nobody feeds them."""
        self.bundle = dataclasses.replace(bundle, kind="generator", chain=chain_meta(chain))
        self.chain = chain
        self._tables = tables
        self.signature = signature(self.bundle)
        self._position = Position(step, self.bundle, chain, self.signature)

    def loop(self) -> onnx.ModelProto:
        """Return the generator as one Loop over as many positions as ``forced`` has."""
        given = self._arguments(None)
        begin, fixed = self._begin(given), self._fixed(given, branches=True)
        outside = self._position.given(given["noise"], given["forced"])

        def body(index: Var, keep: Var, *carried: Var) -> Sequence[Var]:
            position = outside.at(op.reshape(index, op.const(np.empty(0, np.int64))))
            done = self._position.build(self._unpack(carried), position, fixed)
            return [keep, *self._pack(done), done.token, done.logits, done.top]

        trips = op.gather(op.shape(given["forced"]), op.const(np.int64(0)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the ranks that the next lines restore
            *carried, tokens, logits, tops = op.loop(trips, v_initial=self._pack(begin), body=body)
        # A loop forgets the rank of what it carries, so it is said again.
        restored = [reshaped(var, shape) for var, shape in zip(carried, self._carried_shapes(), strict=True)]
        tokens = op.flatten(tokens, axis=1)
        rows = op.shape(tokens)
        logits = op.reshape(logits, op.concat([rows, axes(self.bundle.vocab_size)], axis=0))
        tops = op.reshape(tops, op.concat([rows, axes(1)], axis=0))
        stopped, stop = automaton(tokens, self._stop(given), given["stop_table"], given["stop_final"])
        said = _Said(tokens, logits, tops, stopped, stop)
        return self._build(given, self._unpack(restored), said, "K")

    def unrolled(self, positions: int) -> onnx.ModelProto:
        """Return the generator for a fixed number of positions, without any control flow."""
        given = self._arguments(positions)
        step, fixed = self._begin(given), self._fixed(given, branches=False)
        outside = self._position.given(given["noise"], given["forced"])
        stop, stops, steps = self._stop(given), [], []
        for index in range(positions):
            step = self._position.build(step, outside.at(op.const(np.int64(index))), fixed)
            stop = advance(stop, step.token, given["stop_table"])
            steps.append(step)
            stops.append(stop)
        tokens, logits, tops = (
            op.concat([op.unsqueeze(one, axes(0)) for one in each], axis=0)
            for each in zip(*((one.token, one.logits, one.top) for one in steps), strict=True)
        )
        stopped = op.gather(given["stop_final"], op.concat([op.unsqueeze(one, axes(0)) for one in stops], axis=0))
        return self._build(given, step, _Said(tokens, logits, tops, stopped, stop), positions)

    # -- the interface --------------------------------------------------------------------------

    def _arguments(self, positions: int | None) -> dict[str, Var]:
        return {
            one.name: spox.argument(Tensor(np.dtype(one.dtype), _concrete(one.shape, positions)))
            for one in self.signature.inputs
        }

    def _build(self, given: dict[str, Var], last: Carried, said: _Said, positions: int | str) -> onnx.ModelProto:
        ended = op.where(given["fresh"], op.const(np.int64(0)), given["ended"])
        tokens, ended = emitted(said.tokens, said.tops, given["forced"], ended, said.stopped)
        results = {"tokens": tokens, "logprobs": log_probabilities(said.logits, said.tokens), "logits": last.logits}
        results |= {"ended_out": ended, "stop_state_out": said.stop}
        states = put_together(last.model, self._position.parts)
        results |= {f"{name}_out": var for name, var in states.items()}
        for link in self.chain:
            for name in link.strategy.state:
                results[f"{link.name}.{name}_out"] = last.chain[link.name][name].var
        proto = spox.build(given, {one.name: results[one.name] for one in self.signature.outputs})
        hoist(proto.graph)
        for value in proto.graph.output:
            shape = next(one.shape for one in self.signature.outputs if one.name == value.name)
            declare(value, [positions if size == "K" else size for size in shape])
        tables = {f"{link}.{name}": one for link, made in self._tables.items() for name, one in made.items()}
        for one in self.signature.inputs:
            if one.default is not None:
                array = np.asarray(tables.get(one.name, one.default), one.dtype)
                proto.graph.initializer.append(numpy_helper.from_array(array, one.name))
        proto.ir_version = IR_VERSION
        proto.producer_name = "gentext"
        helper.set_model_props(proto, self.bundle.to_metadata())
        onnx.checker.check_model(proto, full_check=True)
        return proto

    # -- the first position ------------------------------------------------------------------

    def _begin(self, given: dict[str, Var]) -> Carried:
        """Start fresh rows anew, and take the others up where they were."""
        fresh = given["fresh"]
        rows = op.shape(given["token"])
        token = op.where(fresh, op.const(np.int64(self.bundle.start)), given["token"])
        states = {
            one.name: op.where(_beside(fresh, len(one.shape), one.spec.batch_axis), _row(one), given[one.name])
            for one in self.bundle.states
        }
        chain: dict[str, dict[str, Traced]] = {}
        for link in self.chain:
            declared = {
                name: Traced(op.const(np.full((1, *spec.shape), spec.initial, spec.dtype)))
                for name, spec in link.strategy.state.items()
            }
            declared |= call(link, "start", xp, self._position.params(given, link))
            chain[link.name] = {
                name: Traced(
                    op.where(_beside(fresh, 1 + len(spec.shape), 0), declared[name].var, given[f"{link.name}.{name}"])
                )
                for name, spec in link.strategy.state.items()
            }
        size = op.concat([rows, axes(self.bundle.vocab_size)], axis=0)
        logits = op.constant_of_shape(size, value=np.zeros(1, np.float32))
        return Carried(token, take_apart(states, self._position.parts), chain, logits, logits)

    def _stop(self, given: dict[str, Var]) -> Var:
        """Return where the automaton of each row stands before the first position."""
        return op.where(given["fresh"], op.const(np.int64(0)), given["stop_state"])

    def _fixed(self, given: dict[str, Var], *, branches: bool) -> Fixed:
        """Return what the links are given at every position."""
        return Fixed(
            {link.name: self._position.params(given, link) for link in self.chain},
            {
                link.name: {name: Traced(given[f"{link.name}.{name}"], shared=True) for name in link.strategy.tables}
                for link in self.chain
            },
            self._active(given) if branches else None,
        )

    def _active(self, given: dict[str, Var]) -> dict[str, Var]:
        """Return, for each link that has a neutral value, whether any row leaves it."""
        active = {}
        for link in self.chain:
            moved = [
                op.reduce_max(
                    op.cast(op.not_(op.equal(given[f"{link.name}.{name}"], _scalar(spec))), to=np.uint8), keepdims=0
                )
                for name, spec in link.strategy.params.items()
            ]
            if moved:
                active[link.name] = op.cast(op.max(moved), to=np.bool_)
        return active

    # -- what a Loop carries, flat ----------------------------------------------------------------

    def _pack(self, step: Carried) -> list[Var]:
        states = [one.var for link in self.chain for one in step.chain[link.name].values()]
        return [step.token, step.logits, *step.model, *states]

    def _carried_shapes(self) -> list[Sequence[int | str]]:
        shapes: list[Sequence[int | str]] = [("N",), ("N", self.bundle.vocab_size)]
        shapes += [part.shape for part in self._position.parts]
        return shapes + [("N", *spec.shape) for link in self.chain for spec in link.strategy.state.values()]

    def _unpack(self, carried: Sequence[Var]) -> Carried:
        token, logits, *rest = carried
        count = len(self._position.parts)
        model, flat = list(rest[:count]), list(rest[count:])
        chain = {link.name: {name: Traced(flat.pop(0)) for name in link.strategy.state} for link in self.chain}
        return Carried(token, model, chain, logits, logits)


def _beside(flag: Var, ndim: int, axis: int) -> Var:
    """Return flags [N] in the place of one axis among ``ndim``."""
    return op.unsqueeze(flag, axes(*(at for at in range(ndim) if at != axis))) if ndim > 1 else flag


def _row(state: Any) -> Var:
    return op.const(np.expand_dims(state.row(), state.spec.batch_axis))


def _scalar(spec: Any) -> Var:
    return op.const(np.array(spec.neutral, spec.dtype))


def _concrete(shape: Sequence[int | str], positions: int | None) -> tuple[int | str, ...]:
    return tuple(positions if size == "K" and positions is not None else size for size in shape)
