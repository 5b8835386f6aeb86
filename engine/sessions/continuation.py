"""Ends a request with a session, and begins one with it: the text goes on as if it had never been cut."""

from __future__ import annotations

import dataclasses

import numpy as np

from gentext.errors import SessionConflict, UsageError
from gentext.exported.metadata import Bundle
from gentext.generation.rows import RowRequest, RowState, row_requests
from gentext.generation.stacking import MATCH
from gentext.generation.writing import prepare_writing
from gentext.interfaces import OpenSampler
from gentext.matching.match_tables import DONE_STATE, FIRST_STATE, MATCH_LINK
from gentext.requests.declaration import WritingOptions
from gentext.requests.spelling import Spelling
from gentext.sessions.session import (
    Session,
    check_origin,
    file_fingerprint,
    pack_state,
    runtime_version,
    state_error,
    unpack_state,
)
from gentext.sessions.session_settings import SessionSettings


def make_session(bundle: Bundle, settings: SessionSettings, state: RowState) -> Session:
    """Return the session of a text that was written with these settings.

    What has matched, whole, is behind the text: whoever goes on with it writes freely.
    """
    if MATCH.state not in state.automata:
        settings = settings | {"match": None, "json_schema": None, "match_prime": False, "prime": ""}
    elif not settings["match_prime"]:
        settings = settings | {"prime": ""}
    return Session(file_fingerprint(bundle), runtime_version(), settings, pack_state(state))


def continue_text(
    sampler: OpenSampler, session: Session, prompt: str, options: WritingOptions, spelling: Spelling
) -> tuple[RowRequest, RowState]:
    """Return the request and the state with which a slot goes on with a text, behind a prompt that is appended to it.

    ``options`` are those of one text, merged with the session's settings. A text that is cut in the middle of what it
    must match goes on there, with as many characters as the options allow. Raises SessionError for a session of
    another file, and what `gentext.generation.writing.prepare_writing` raises.
    """
    bundle = sampler.bundle
    check_origin(session, file_fingerprint(bundle), runtime_version())
    state = unpack_state(session.row, bundle)
    if is_within_match(session, options["match"], options["json_schema"]):
        request = _continue_match(sampler, session.settings, prompt, options, spelling)
        if request.automata[MATCH.state].key != state.automata[MATCH.state]:
            raise SessionConflict(
                "session: what the text must match is other tables here than where it was begun; begin the text again",
                "session_other_runtime",
            )
        state = _limit_match(request, state, spelling)
    else:
        continues = int(state.arrays["token"][0]) != bundle.start or len(state.unread) > 0
        options = options | {"continues": continues}
        [request] = row_requests(prepare_writing(sampler, [prompt], options, spelling), keeps_state=True)
        state = dataclasses.replace(
            state, automata={name: key for name, key in state.automata.items() if name != MATCH.state}
        )
    return request, state


def is_within_match(session: Session, match: object, json_schema: object) -> bool:
    """Return whether a session is in the middle of what its text must match, and goes on there."""
    settings = session.settings
    return MATCH.state in session.row.automata and (match, json_schema) == (settings["match"], settings["json_schema"])


def _continue_match(
    sampler: OpenSampler, settings: SessionSettings, prompt: str, options: WritingOptions, spelling: Spelling
) -> RowRequest:
    """Return the request for what is left of a text that must match."""
    if prompt:
        raise UsageError(
            f"{spelling.assignment('prompt', prompt)}: expected none, as the session is in the middle of what its text "
            f"must match; give what the new text must match, or no prompt"
        )
    # The tables are those of the beginning, which depend on the prime, and fit into any length.
    begin = options | {
        "length": None,
        "match_prime": settings["match_prime"],
        "unknown": settings["unknown"],
        "continues": True,
    }
    [request] = row_requests(prepare_writing(sampler, [settings["prime"]], begin, spelling), keeps_state=True)
    most_symbols = options["length"] if sampler.bundle.has_one_character_symbols else None
    return dataclasses.replace(request, prime=request.prime[:0], length=options["length"], most_symbols=most_symbols)


def _limit_match(request: RowRequest, state: RowState, spelling: Spelling) -> RowState:
    """Return a state that has as many characters left for what must match as the request allows.

    Raises UsageError where they are too few.
    """
    if request.length is None:
        return state
    automaton = request.automata[MATCH.state]
    need, least_need = (automaton.tables[name] for name in MATCH.by_state)
    number = int(state.arrays[MATCH.state][0])
    if not 0 <= number < automaton.states:
        raise state_error(f"{MATCH.state} {number}; expected 0 to {automaton.states - 1}")
    # The first bytes of a character count for it.
    left = request.length - bool(state.decoder.unfinished)
    least = int(need[number].min())
    if number >= FIRST_STATE and least > left:
        raise UsageError(
            f"{spelling.assignment('length', request.length)}: what is left of the text that must match has {least:,} "
            f"characters at least; allow so many"
        )
    if number >= FIRST_STATE and least_need[number] > left:
        number = DONE_STATE
    arrays = {MATCH.state: np.array([number]), f"{MATCH_LINK}.left": np.array([left])}
    return dataclasses.replace(state, arrays=state.arrays | arrays)
