"""Which loops a generator has: fast ones for the usual calls, and a last one for all. (spox)"""

from __future__ import annotations

import dataclasses

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from gentext.export.generator.outputs import NamedVars
from gentext.export.generator.position import LoopInvariants, ParamFacts
from gentext.export.strategies.facts import Facts
from gentext.export.strategies.indexing import int_vector
from gentext.sampling.chain import DEFAULT_CHAIN, Chain, Link, LinkArrays

#: A loop of the usual links alone is worth the time to open it where it leaves out so many others.
MIN_LINKS_LEFT_OUT = 4


@dataclasses.dataclass(frozen=True)
class LoopKind:
    """A loop, and the calls that it serves."""

    names: list[str]
    """Its links."""
    is_enough: Var
    """Whether it serves a call that no earlier loop serves."""
    has_branches: bool
    """Whether it leaves out, by branches, the links that no row uses."""
    facts: ParamFacts
    """What holds for the parameters of the calls that it serves, so that its links can leave out nodes."""

    def specialise(self, invariants: LoopInvariants) -> LoopInvariants:
        """Return the invariants of this loop."""
        invariants = invariants.with_facts(self.facts)
        return invariants if self.has_branches else invariants.without_branches()


def find_loop_kinds(chain: Chain, tables: LinkArrays, inputs: NamedVars, active: NamedVars) -> list[LoopKind]:
    """Return the loops of a generator. The last one serves all calls.

    A branch that is not taken costs time at each position, and so do nodes for a parameter that no row uses. So the
    first loop is for calls that use exactly the links that the chain's default parameters use: it has only those, and
    no branches. The second has the usual links without states, each in a branch, if it leaves out many. In both, the
    parameters that have no effect by default are constants.

    ``tables`` are the default values of the links' tables, ``active`` is whether any row uses a link. One that is
    missing there is always active, and in every loop.
    """
    loop_kinds, names = [], chain.names
    default_names = chain.active(chain.param_arrays(1), tables).names
    default_facts = {link.name: _find_facts(link, only_active=True) for link in chain if link.name in default_names}
    if len(default_names) < len(names) or any(default_facts.values()):
        differs = [op.not_(is_active) if name in default_names else is_active for name, is_active in active.items()]
        differs += _differences(inputs, default_facts)
        loop_kinds.append(LoopKind(default_names, op.not_(_is_any_true(differs)), False, default_facts))
    # A link with a state has two branches, also to update it, so `match` is left to the loop of all.
    usual_links = [
        link for link in chain if link.name not in active or (link.name in DEFAULT_CHAIN and not link.strategy.state)
    ]
    usual_names = [link.name for link in usual_links]
    if usual_names and len(names) - len(usual_names) >= MIN_LINKS_LEFT_OUT:
        facts = {link.name: _find_facts(link, only_active=False) for link in usual_links}
        differs = [is_active for name, is_active in active.items() if name not in usual_names]
        differs += _differences(inputs, facts)
        loop_kinds.append(LoopKind(usual_names, op.not_(_is_any_true(differs)), True, facts))
    return [*loop_kinds, LoopKind(names, op.const(True), True, {})]


def _find_facts(link: Link, *, only_active: bool) -> dict[str, Facts]:
    """Return what usually holds for the parameters of a link that is used; ``only_active``: in every row.

    The first parameter, or the switch, is what a request sets: it is never neutral in a row that uses the link, and
    hardly ever decisive. The others stay at their defaults, where these have no effect.
    """
    strategy = link.strategy
    main_name = strategy.switch or next(iter(strategy.params), None)
    facts = {}
    for name, param in strategy.params.items():
        is_at_default = link.defaults[name] == param.neutral
        if name == main_name:
            if only_active and not is_at_default:
                numbers = [param.neutral, *([] if param.decisive is None else [param.decisive])]
                facts[name] = Facts(never=frozenset(float(np.dtype(param.dtype).type(number)) for number in numbers))
        elif is_at_default and param.is_option:
            facts[name] = Facts(np.dtype(param.dtype).type(param.neutral))
    return facts


def _differences(inputs: NamedVars, facts: ParamFacts) -> list[Var]:
    """Return conditions of which none is true where the facts hold in all rows."""
    differences = []
    for link_name, link_facts in facts.items():
        for name, fact in link_facts.items():
            numbers = inputs[f"{link_name}.{name}"]
            if fact.value is not None:
                differences.append(_is_any_true_of(op.not_(op.equal(numbers, op.const(fact.value)))))
            for number in sorted(fact.never):
                constant = op.const(np.array(number, numbers.unwrap_tensor().dtype))
                differences.append(_is_any_true_of(op.equal(numbers, constant)))
    return differences


def _is_any_true_of(flags: Var) -> Var:
    return op.cast(op.reduce_max(op.cast(flags, to=np.uint8), keepdims=0), to=np.bool_)


def _is_any_true(flags: list[Var]) -> Var:
    return _is_any_true_of(op.concat([op.unsqueeze(flag, int_vector(0)) for flag in flags], axis=0))
