"""generator.onnx: the step of a model and the whole sampling chain in one graph that writes text. (spox)

One iteration of the loop feeds a token of each row to the step, runs the chain on the logits, draws
with uniforms that came as an input, and lets every link see what was chosen. docs/formats.md lists
the interface.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import spox
import spox.opset.ai.onnx.v21 as op
from onnx import helper, numpy_helper
from spox import Tensor, Var

from gentext.bundle import Bundle
from gentext.chain import Chain, Link, LinkArrays
from gentext.describe import chain_meta
from gentext.export.generator.loop import loop
from gentext.export.generator.outputs import advance, automaton, emitted, log_probabilities
from gentext.export.generator.position import LoopInvariants, LoopState, PositionBuilder, PositionOutput
from gentext.export.generator.states import put_together, take_apart
from gentext.export.generator.tree import leaves, replaced
from gentext.export.generator.unrolled import for_capture
from gentext.export.proto import IR_VERSION, declare
from gentext.export.strategies.call import call
from gentext.export.strategies.namespace import xp
from gentext.export.strategies.traced import Traced, axes
from gentext.signature import signature


@dataclasses.dataclass(frozen=True)
class _Done:
    """All positions of a call."""

    last: LoopState
    said: PositionOutput


class Compiler:
    """Builds the graph of one model and one chain."""

    def __init__(self, step: onnx.ModelProto, bundle: Bundle, chain: Chain, tables: LinkArrays) -> None:
        """``tables`` are what the inputs of the links' tables hold when nobody feeds them."""
        self.bundle = dataclasses.replace(bundle, kind="generator", chain=chain_meta(chain))
        self.chain = chain
        self._tables = tables
        card = self.bundle.card | {"fingerprint": self._fingerprint(step)}
        self.bundle = dataclasses.replace(self.bundle, card=card)
        self.signature = signature(self.bundle)
        self._position = PositionBuilder(step, self.bundle, chain, self.signature)

    def looped(self) -> onnx.ModelProto:
        """Return the generator for as many positions as ``forced`` has.

        Two loops stand in it, and each call uses one: the values that the chain has by default need few of its
        links, and those run without branches.
        """
        given = self._arguments(None)
        begin, fixed = self._begin(given), self._fixed(given)
        outside = self._position.given(given["noise"], given["forced"])
        idle = [link.name for link in self.chain if link.name in fixed.active and _idle(link)]
        trips = op.gather(op.shape(given["forced"]), op.const(np.int64(0)))
        done = []
        if idle:
            used = _any([flag if name in idle else op.not_(flag) for name, flag in fixed.active.items()])
            chain = {name: states for name, states in begin.chain.items() if name not in idle}
            lean = dataclasses.replace(begin, chain=chain)
            usual = _times(trips, op.not_(used))
            last, said = loop(self._position.build, usual, lean, outside, fixed.without_branches())
            begin, trips = dataclasses.replace(last, chain=begin.chain | last.chain), _times(trips, used)
            done.append(said)
        last, said = loop(self._position.build, trips, begin, outside, fixed)
        said = _joined([*done, said], self.bundle.vocab_size, op.shape(given["token"])) if done else said
        stopped, stop = automaton(said.tokens, self._stop(given), given["stop_table"], given["stop_final"])
        return self._build(given, _Done(last, said), stopped, stop, "K", self.bundle)

    def unrolled(self, positions: int) -> onnx.ModelProto:
        """Return the generator for a fixed number of positions, without any control flow."""
        given = self._arguments(positions)
        last, fixed = self._begin(given), self._fixed(given).without_branches()
        outside = self._position.given(given["noise"], given["forced"])
        stop, stops, said = self._stop(given), [], []
        for index in range(positions):
            last, one = self._position.build(last, outside.at(op.const(np.int64(index))), fixed)
            stop = advance(stop, one.tokens, given["stop_table"])
            said.append(one)
            stops.append(stop)
        every = {name: _stacked([leaves(one)[name] for one in said]) for name in leaves(said[0])}
        done = _Done(last, replaced(said[0], every))
        stopped = op.gather(given["stop_final"], _stacked(stops))
        card = self.bundle.card | {"positions": positions}
        bundle = dataclasses.replace(self.bundle, kind="unrolled", card=card)
        return for_capture(self._build(given, done, stopped, stop, positions, bundle))

    def _fingerprint(self, step: onnx.ModelProto) -> str:
        """Return what all files made from one step and chain share, and no others: SHA-256, in hexadecimal."""
        digest = hashlib.sha256(step.SerializeToString(deterministic=True))
        for entry in sorted(self.bundle.to_metadata().items()):
            digest.update("=".join(entry).encode())
        for link, made in sorted(self._tables.items()):
            for name, array in sorted(made.items()):
                digest.update(f"{link}.{name}".encode() + np.asarray(array).tobytes())
        return digest.hexdigest()

    # -- the interface --------------------------------------------------------------------------

    def _arguments(self, positions: int | None) -> dict[str, Var]:
        return {
            one.name: spox.argument(Tensor(np.dtype(one.dtype), _concrete(one.shape, positions)))
            for one in self.signature.inputs
        }

    def _build(
        self, given: dict[str, Var], done: _Done, stopped: Var, stop: Var, positions: int | str, bundle: Bundle
    ) -> onnx.ModelProto:
        last, said = done.last, done.said
        ended = op.where(given["fresh"], op.const(np.int64(0)), given["ended"])
        tokens, ended = emitted(said.tokens, said.tops, given["forced"], ended, stopped)
        results = {"tokens": tokens, "logprobs": log_probabilities(said.logits, said.tokens)}
        results["logits"] = op.gather(said.logits, op.const(np.int64(-1)), axis=0)
        results |= {"ended_out": ended, "stop_state_out": stop}
        states = put_together(last.model, self._position.parts)
        results |= {f"{name}_out": var for name, var in states.items()}
        for link in self.chain:
            for name in link.strategy.state:
                results[f"{link.name}.{name}_out"] = last.chain[link.name][name].var
        proto = spox.build(given, {one.name: results[one.name] for one in self.signature.outputs})
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
        helper.set_model_props(proto, bundle.to_metadata())
        onnx.checker.check_model(proto, full_check=True)
        return proto

    # -- the first position ------------------------------------------------------------------

    def _begin(self, given: dict[str, Var]) -> LoopState:
        """Start fresh rows anew, and take the others up where they were."""
        fresh = given["fresh"]
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
        return LoopState(token, take_apart(states, self._position.parts), chain)

    def _stop(self, given: dict[str, Var]) -> Var:
        """Return where the automaton of each row stands before the first position."""
        return op.where(given["fresh"], op.const(np.int64(0)), given["stop_state"])

    def _fixed(self, given: dict[str, Var]) -> LoopInvariants:
        """Return what the links are given at every position."""
        return LoopInvariants(
            self._position.weights,
            {link.name: self._position.params(given, link) for link in self.chain},
            {
                link.name: {name: Traced(given[f"{link.name}.{name}"], shared=True) for name in link.strategy.tables}
                for link in self.chain
            },
            self._active(given),
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


def _beside(flag: Var, ndim: int, axis: int) -> Var:
    """Return flags [N] in the place of one axis among ``ndim``."""
    return op.unsqueeze(flag, axes(*(at for at in range(ndim) if at != axis))) if ndim > 1 else flag


def _idle(link: Link) -> bool:
    """Tell whether a link changes nothing while nobody sets its parameters."""
    return all(link.defaults[name] == spec.neutral for name, spec in link.strategy.params.items())


def _any(flags: list[Var]) -> Var:
    return op.cast(op.reduce_max(op.cast(_stacked(flags), to=np.uint8), keepdims=0), to=np.bool_)


def _joined(parts: list[PositionOutput], vocab_size: int, rows: Var) -> PositionOutput:
    """Return what was said in several loops; one that did nothing has forgotten its sizes."""
    row = {"tokens": (), "logits": (vocab_size,), "tops": (1,)}
    joined = {
        name: op.concat(
            [op.reshape(leaves(one)[name], op.concat([axes(-1), rows, axes(*last)], axis=0)) for one in parts], axis=0
        )
        for name, last in row.items()
    }
    return replaced(parts[0], joined)


def _times(trips: Var, flag: Var) -> Var:
    return op.mul(trips, op.cast(flag, to=np.int64))


def _stacked(values: Sequence[Var]) -> Var:
    return op.concat([op.unsqueeze(one, axes(0)) for one in values], axis=0)


def _row(state: Any) -> Var:
    return op.const(np.expand_dims(state.row(), state.spec.batch_axis))


def _scalar(spec: Any) -> Var:
    return op.const(np.array(spec.neutral, spec.dtype))


def _concrete(shape: Sequence[int | str], positions: int | None) -> tuple[int | str, ...]:
    return tuple(positions if size == "K" and positions is not None else size for size in shape)
