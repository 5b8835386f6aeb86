"""The outputs of a generator's call that are computed once all of its positions are drawn. (spox)

Where a row ends does not change what the next position draws, so none of this is inside the loop.
"""

from __future__ import annotations

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from gentext.export.generator.loop import loop, select
from gentext.export.strategies.indexing import int_vector
from gentext.signature import FINISH

NamedVars = dict[str, Var]


def end_rows(tokens: Var, top_logits: Var, forced: Var, ended: Var, stopped: Var) -> tuple[Var, Var]:
    """Return the tokens [K, N], with -1 behind a row's end, and how each row ended [N], a code of FINISH.

    ``tokens`` [K, N] were drawn or forced, ``top_logits`` [K, N, 1] are the largest logits behind the chain,
    ``forced`` [K, N] is -1 where a token was drawn, ``ended`` [N] says how the rows ended before this call, and
    ``stopped`` [K, N] whether a stop string is complete. A forced position neither stops nor ends a row; a
    position with everything masked gives -1.
    """
    drawn = op.less(forced, op.const(np.int64(0)))
    finite = op.less(op.abs(op.squeeze(top_logits, int_vector(2))), op.const(np.float32(np.inf)))
    masked = op.and_(op.not_(finite), drawn)
    running = op.const(np.int64(FINISH.index("running")))
    code = op.where(op.and_(stopped, drawn), op.const(np.int64(FINISH.index("stop"))), running)
    code = op.where(masked, op.const(np.int64(FINISH.index("masked"))), code)
    # From here on there are K + 1 positions: the first is the code before this call.
    codes = op.concat([op.unsqueeze(ended, int_vector(0)), code], axis=0)
    ends = op.cast(op.greater(codes, running), to=np.int32)
    ends_before = op.slice(op.cumsum(ends, op.const(np.int64(0))), int_vector(0), int_vector(-1), int_vector(0))
    silent = op.or_(op.greater(ends_before, op.const(np.int32(0))), masked)
    first_end = op.arg_max(ends, axis=0, keepdims=1)
    next_ended = op.squeeze(op.gather_elements(codes, first_end, axis=0), int_vector(0))
    return op.where(silent, op.const(np.int64(-1)), tokens), next_ended


def log_probabilities(logits: Var, tokens: Var) -> Var:
    """Return log-softmax of logits [K, N, V] at tokens [K, N]."""
    picked = op.gather_elements(op.log_softmax(logits, axis=2), op.unsqueeze(tokens, int_vector(2)), axis=2)
    return op.squeeze(picked, int_vector(2))


def advance_automaton(state: Var, token: Var, table: Var) -> Var:
    """Return the stop automaton's states [N] behind tokens [N]; ``table`` is [S, V]."""
    row = op.gather(table, state, axis=0)
    return op.squeeze(op.gather_elements(row, op.unsqueeze(token, int_vector(1)), axis=1), int_vector(1))


def run_automaton(tokens: Var, state: Var, table: Var, final: Var) -> tuple[Var, Var]:
    """Return where a stop string is complete [K, N], and the automaton's last states [N].

    Without stop strings the automaton has one state, and the loop no iterations.
    """

    def advance(state: NamedVars, inputs: NamedVars, invariants: NamedVars) -> tuple[NamedVars, NamedVars]:
        next_state = advance_automaton(state["state"], inputs["token"], invariants["table"])
        return {"state": next_state}, {"state": next_state}

    has_strings = op.greater(op.gather(op.shape(final), op.const(np.int64(0))), op.const(np.int64(1)))
    positions = op.gather(op.shape(tokens), op.const(np.int64(0)))
    trips = op.mul(positions, op.cast(has_strings, to=np.int64))
    last_state, states = loop(advance, trips, {"state": state}, {"token": tokens}, {"table": table})
    stopped = select(
        has_strings,
        {"stopped": op.gather(final, states["state"], axis=0)},
        {"stopped": op.cast(op.mul(tokens, op.const(np.int64(0))), to=np.bool_)},
    )
    return stopped["stopped"], last_state["state"]
