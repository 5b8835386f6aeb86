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
from gentext.export.namespace import xp
from gentext.export.position import Carried, Position, reshaped
from gentext.export.proto import IR_VERSION, declare
from gentext.export.rules import call
from gentext.export.trace import Traced, axes
from gentext.signature import signature


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
        begin, active = self._begin(given), self._active(given)

        def body(index: Var, keep: Var, *carried: Var) -> Sequence[Var]:
            noise = op.reshape(op.gather(given["noise"], index, axis=0), axes(-1, self.signature.columns))
            forced = op.reshape(op.gather(given["forced"], index, axis=0), axes(-1))
            done = self._position.build(self._unpack(carried), noise, forced, given, active)
            return [keep, *self._pack(done), done.emitted, done.logprob]

        trips = op.gather(op.shape(given["forced"]), op.const(np.int64(0)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the ranks that the next line restores
            *carried, tokens, logprobs = op.loop(trips, v_initial=self._pack(begin), body=body)
        # A loop forgets the rank of what it carries, so it is said again.
        restored = [reshaped(var, shape) for var, shape in zip(carried, self._carried_shapes(), strict=True)]
        return self._build(given, self._unpack(restored), op.flatten(tokens, axis=1), op.flatten(logprobs, axis=1), "K")

    def unrolled(self, positions: int) -> onnx.ModelProto:
        """Return the generator for a fixed number of positions, without any control flow."""
        given = self._arguments(positions)
        step, tokens, logprobs = self._begin(given), [], []
        for index in range(positions):
            noise = op.gather(given["noise"], op.const(np.int64(index)), axis=0)
            forced = op.gather(given["forced"], op.const(np.int64(index)), axis=0)
            step = self._position.build(step, noise, forced, given, None)
            tokens.append(op.unsqueeze(step.emitted, axes(0)))
            logprobs.append(op.unsqueeze(step.logprob, axes(0)))
        return self._build(given, step, op.concat(tokens, axis=0), op.concat(logprobs, axis=0), positions)

    # -- the interface --------------------------------------------------------------------------

    def _arguments(self, positions: int | None) -> dict[str, Var]:
        return {
            one.name: spox.argument(Tensor(np.dtype(one.dtype), _concrete(one.shape, positions)))
            for one in self.signature.inputs
        }

    def _build(
        self, given: dict[str, Var], last: Carried, tokens: Var, logprobs: Var, positions: int | str
    ) -> onnx.ModelProto:
        results = {"tokens": tokens, "logprobs": logprobs, "logits": last.logits}
        results |= {"ended_out": last.ended, "stop_state_out": last.stop}
        results |= {f"{one.name}_out": var for one, var in zip(self.bundle.states, last.model, strict=True)}
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
        helper.set_model_props(proto, self.bundle.to_metadata())
        onnx.checker.check_model(proto, full_check=True)
        return proto

    # -- the first position ------------------------------------------------------------------

    def _begin(self, given: dict[str, Var]) -> Carried:
        """Start fresh rows anew, and take the others up where they were."""
        fresh = given["fresh"]
        rows = op.shape(given["token"])
        token = op.where(fresh, op.const(np.int64(self.bundle.start)), given["token"])
        model = [
            op.where(_beside(fresh, len(one.shape), one.spec.batch_axis), _row(one), given[one.name])
            for one in self.bundle.states
        ]
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
        zero = op.const(np.int64(0))
        size = op.concat([rows, axes(self.bundle.vocab_size)], axis=0)
        return Carried(
            token,
            model,
            chain,
            stop=op.where(fresh, zero, given["stop_state"]),
            ended=op.where(fresh, zero, given["ended"]),
            logits=op.constant_of_shape(size, value=np.zeros(1, np.float32)),
            emitted=token,
            logprob=op.cast(token, to=np.float32),
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
        return [step.token, step.stop, step.ended, step.logits, *step.model, *states]

    def _carried_shapes(self) -> list[Sequence[int | str]]:
        states = [one.strategy.state for one in self.chain]
        shapes: list[Sequence[int | str]] = [("N",), ("N",), ("N",), ("N", self.bundle.vocab_size)]
        shapes += [tuple("N" if size is None else size for size in one.shape) for one in self.bundle.states]
        return shapes + [("N", *spec.shape) for state in states for spec in state.values()]

    def _unpack(self, carried: Sequence[Var]) -> Carried:
        token, stop, ended, logits, *rest = carried
        count = len(self.bundle.states)
        model, flat = list(rest[:count]), list(rest[count:])
        chain = {link.name: {name: Traced(flat.pop(0)) for name in link.strategy.state} for link in self.chain}
        return Carried(token, model, chain, stop, ended, logits, token, logits)


def _beside(flag: Var, ndim: int, axis: int) -> Var:
    """Return flags [N] in the place of one axis among ``ndim``."""
    return op.unsqueeze(flag, axes(*(at for at in range(ndim) if at != axis))) if ndim > 1 else flag


def _row(state: Any) -> Var:
    return op.const(np.expand_dims(state.row(), state.spec.batch_axis))


def _scalar(spec: Any) -> Var:
    return op.const(np.array(spec.neutral, spec.dtype))


def _concrete(shape: Sequence[int | str], positions: int | None) -> tuple[int | str, ...]:
    return tuple(positions if size == "K" and positions is not None else size for size in shape)
