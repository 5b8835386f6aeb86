"""The outputs of a generator's call that are computed once all of its positions are drawn. (spox)

Where a row ends does not change what the next position draws, so none of this is inside the loop.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from gentext.export.generator.loop import build_loop, select_tree
from gentext.export.generator.position import PositionOutput
from gentext.export.generator.tree import flatten, unflatten
from gentext.export.strategies.indexing import int_vector
from gentext.exported.signature import FINISH_BY_CODE

#: Variables by the name of their input or output.
NamedVars = dict[str, Var]


def end_rows(
    tokens: Var,
    top_logits: Var,
    forced: Var,
    ended: Var,
    stopped: Var,
    link_ended: Sequence[Var],
    boundary: int | None = None,
) -> tuple[Var, Var]:
    """Return the tokens [K, N], with -1 after a row's end, and how each row ended [N], a code of FINISH_BY_CODE.

    ``tokens`` [K, N] were drawn or forced, ``top_logits`` [K, N, 1] are the largest logits after the chain,
    ``forced`` [K, N] is -1 where a token was drawn, ``ended`` [N] is how the rows ended before this call, and
    ``stopped`` [K, N] is whether a stop string is complete, and the only element of ``link_ended`` [K, N], where there
    is one, whether a link has ended the row. The ``boundary`` symbol ends a row that draws it. A forced position
    never ends a row; a position at which every symbol is masked, or at which a link has ended the row, gives -1.
    """
    is_drawn = op.less(forced, op.const(np.int64(0)))
    is_finite = op.less(op.abs(op.squeeze(top_logits, int_vector(2))), op.const(np.float32(np.inf)))
    is_masked = op.and_(op.not_(is_finite), is_drawn)
    running_code = op.const(np.int64(FINISH_BY_CODE.index("running")))
    new_codes = op.where(op.and_(stopped, is_drawn), op.const(np.int64(FINISH_BY_CODE.index("stop"))), running_code)
    if boundary is not None:
        is_boundary = op.and_(op.equal(tokens, op.const(np.int64(boundary))), is_drawn)
        new_codes = op.where(is_boundary, op.const(np.int64(FINISH_BY_CODE.index("end"))), new_codes)
    new_codes = op.where(is_masked, op.const(np.int64(FINISH_BY_CODE.index("masked"))), new_codes)
    is_without_token = is_masked
    for flags in link_ended:
        is_ended = op.and_(flags, is_drawn)
        new_codes = op.where(is_ended, op.const(np.int64(FINISH_BY_CODE.index("match"))), new_codes)
        is_without_token = op.or_(is_without_token, is_ended)
    # From here on there are K + 1 positions: the first is the code before this call.
    codes = op.concat([op.unsqueeze(ended, int_vector(0)), new_codes], axis=0)
    has_ended = op.cast(op.greater(codes, running_code), to=np.int32)
    ends_before = op.slice(op.cumsum(has_ended, op.const(np.int64(0))), int_vector(0), int_vector(-1), int_vector(0))
    is_silent = op.or_(op.greater(ends_before, op.const(np.int32(0))), is_without_token)
    first_end = op.arg_max(has_ended, axis=0, keepdims=1)
    next_ended = op.squeeze(op.gather_elements(codes, first_end, axis=0), int_vector(0))
    return op.where(is_silent, op.const(np.int64(-1)), tokens), next_ended


def pick_log_probabilities(logprobs: Var, tokens: Var) -> Var:
    """Return log-probabilities [K, N, V] at tokens [K, N]."""
    picked_logprobs = op.gather_elements(logprobs, op.unsqueeze(tokens, int_vector(2)), axis=2)
    return op.squeeze(picked_logprobs, int_vector(2))


def find_top_symbols(logits: Var, logprobs: Var, count: Var, vocab_size: int) -> NamedVars:
    """Return the T = min(count, V) symbols with the largest of logits [K, N, V], and their log-probabilities [K, N, T].

    Of equal logits the lower token comes first. Log-probabilities are not sorted, because different logits may round
    to one of them. With a ``count`` [] of 0 both are constants without elements: onnxruntime also computes what a call
    does not fetch.
    """

    def find() -> list[Var]:
        size = op.reshape(op.min([count, op.const(np.int64(vocab_size))]), int_vector(1))
        _, tokens = op.top_k(logits, size, axis=2)
        return [tokens, op.gather_elements(logprobs, tokens, axis=2)]

    def find_none() -> list[Var]:
        return [op.const(np.empty((0, 0, 0), np.int64)), op.const(np.empty((0, 0, 0), np.float32))]

    tokens, top_logprobs = op.if_(op.cast(count, to=np.bool_), then_branch=find, else_branch=find_none)
    return {"top_tokens": tokens, "top_logprobs": top_logprobs}


def advance_automaton(state: Var, token: Var, table: Var) -> Var:
    """Return the stop automaton's states [N] after tokens [N]; ``table`` is [S, V]."""
    table_rows = op.gather(table, state, axis=0)
    return op.squeeze(op.gather_elements(table_rows, op.unsqueeze(token, int_vector(1)), axis=1), int_vector(1))


def run_automaton(tokens: Var, state: Var, table: Var, is_final: Var) -> tuple[Var, Var]:
    """Return where a stop string is complete [K, N], and the automaton's last states [N].

    Without stop strings the automaton has one state, and the loop no iterations.
    """

    def advance(state: NamedVars, inputs: NamedVars, invariants: NamedVars) -> tuple[NamedVars, NamedVars]:
        next_state = advance_automaton(state["state"], inputs["token"], invariants["table"])
        return {"state": next_state}, {"state": next_state}

    has_stop_strings = op.greater(op.gather(op.shape(is_final), op.const(np.int64(0))), op.const(np.int64(1)))
    positions = op.gather(op.shape(tokens), op.const(np.int64(0)))
    trips = op.mul(positions, op.cast(has_stop_strings, to=np.int64))
    last_state, states = build_loop(advance, trips, {"state": state}, {"token": tokens}, {"table": table})
    stopped = select_tree(
        has_stop_strings,
        {"stopped": op.gather(is_final, states["state"], axis=0)},
        {"stopped": op.cast(op.mul(tokens, op.const(np.int64(0))), to=np.bool_)},
    )
    return stopped["stopped"], last_state["state"]


def concat_loops(loop_outputs: list[PositionOutput], vocab_size: int, rows: Var) -> PositionOutput:
    """Return the outputs of several loops, concatenated along the positions; the last loop has all outputs.

    onnxruntime does not keep the sizes of an output of a loop that ran no times, so each is reshaped to
    [K, rows, ...] first.
    """
    row_shapes = {"tokens": (), "logits": (vocab_size,), "tops": (1,)}
    flat_outputs = [flatten(output) for output in loop_outputs]
    joined_vars = {}
    for name in flat_outputs[-1]:
        shape = op.concat([int_vector(-1), rows, int_vector(*row_shapes.get(name, ()))], axis=0)
        # A loop without a link that ends rows has ended none.
        joined_vars[name] = op.concat(
            [op.reshape(variables.get(name, _false_like(variables["tokens"])), shape) for variables in flat_outputs],
            axis=0,
        )
    return unflatten(loop_outputs[-1], joined_vars)


def _false_like(integers: Var) -> Var:
    return op.cast(op.mul(integers, op.const(np.int64(0))), to=np.bool_)
