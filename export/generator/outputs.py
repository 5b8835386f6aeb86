"""What a call of a generator says about its positions, once all of them are drawn. (spox)

Where a row ends does not change what the next position draws, so none of this stands in the loop.
"""

from __future__ import annotations

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from gentext.export.generator.loop import either, loop
from gentext.export.strategies.traced import axes
from gentext.signature import FINISH

Names = dict[str, Var]


def emitted(tokens: Var, top: Var, forced: Var, ended: Var, stopped: Var) -> tuple[Var, Var]:
    """Return the tokens to hand out [K, N], -1 behind a row's end, and how each row ended [N].

    ``top`` [K, N, 1] is the largest logit behind the chain, ``stopped`` [K, N] whether a stop string is
    complete. A forced position neither stops nor ends a row; one with everything masked says nothing.
    """
    new = op.less(forced, op.const(np.int64(0)))
    finite = op.less(op.abs(op.squeeze(top, axes(2))), op.const(np.float32(np.inf)))
    masked = op.and_(op.not_(finite), new)
    running = op.const(np.int64(FINISH.index("running")))
    code = op.where(op.and_(stopped, new), op.const(np.int64(FINISH.index("stop"))), running)
    code = op.where(masked, op.const(np.int64(FINISH.index("masked"))), code)
    codes = op.concat([op.unsqueeze(ended, axes(0)), code], axis=0)  # how it stood before, then each position
    event = op.cast(op.greater(codes, running), to=np.int32)
    before = op.slice(op.cumsum(event, op.const(np.int64(0))), axes(0), axes(-1), axes(0))
    silent = op.or_(op.greater(before, op.const(np.int32(0))), masked)
    first = op.arg_max(event, axis=0, keepdims=1)
    ended_out = op.squeeze(op.gather_elements(codes, first, axis=0), axes(0))
    return op.where(silent, op.const(np.int64(-1)), tokens), ended_out


def log_probabilities(logits: Var, tokens: Var) -> Var:
    """Return log-softmax of logits [K, N, V] at tokens [K, N]."""
    picked = op.gather_elements(op.log_softmax(logits, axis=2), op.unsqueeze(tokens, axes(2)), axis=2)
    return op.squeeze(picked, axes(2))


def advance(state: Var, token: Var, table: Var) -> Var:
    """Return the automaton's states [N] behind tokens [N]."""
    row = op.gather(table, state, axis=0)
    return op.squeeze(op.gather_elements(row, op.unsqueeze(token, axes(1)), axis=1), axes(1))


def automaton(tokens: Var, state: Var, table: Var, final: Var) -> tuple[Var, Var]:
    """Return where a stop string is complete [K, N] and the last states [N], by a loop where there is any."""

    def position(at: Names, given: Names, same: Names) -> tuple[Names, Names]:
        after = advance(at["state"], given["token"], same["table"])
        return {"state": after}, {"state": after}

    some = op.greater(op.gather(op.shape(final), op.const(np.int64(0))), op.const(np.int64(1)))
    trips = op.mul(op.gather(op.shape(tokens), op.const(np.int64(0))), op.cast(some, to=np.int64))
    last, said = loop(position, trips, {"state": state}, {"token": tokens}, {"table": table})
    stopped = either(
        some,
        {"stopped": op.gather(final, said["state"], axis=0)},
        {"stopped": op.cast(op.mul(tokens, op.const(np.int64(0))), to=np.bool_)},
    )
    return stopped["stopped"], last["state"]
