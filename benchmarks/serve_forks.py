"""Texts that are cut, continued and forked over two replicas, which are killed and started again in between."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from serve_client import ServerError, ask_once, error_message
from serve_process import Server
from serve_texts import SETTINGS, Text, draw_text, write_texts

from gentext.generation.rows import RowState, row_requests
from gentext.generation.slots import Slots
from gentext.generation.writing import prepare_writing
from gentext.library.loading import open_text_model
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.requests.options import writing_options
from gentext.requests.spelling import KEYWORD_SPELLING

#: Characters of a text at least and at most.
SHORTEST, LONGEST = 60, 400
#: Continuations and forks of each cut text.
FORKS = 20
#: Requests at a time.
CLIENTS = 32
#: What is appended to a text that is forked.
ADDED = (" Then ", "\n", "")


@dataclasses.dataclass(frozen=True)
class Fork:
    """A text that is cut twice: written by three requests, each on the replica that comes next."""

    text: Text
    cuts: tuple[int, int]
    """Characters before the first cut, and before the second one."""
    seed: int | None = None
    """The new seed from the first cut on; None: the text goes on as if it were not cut."""
    added: str = ""
    """What is appended at the first cut."""


def draw_forks(count: int, seed: int) -> Iterator[Fork]:
    """Yield texts to cut: of each `FORKS` with the same beginning, half go on, and half are forked with a new seed."""
    rng = random.Random(seed)
    unstopped = [number for number, setting in enumerate(SETTINGS) if "stop" not in setting]
    for _ in range(count // FORKS):
        length = rng.randrange(SHORTEST, LONGEST)
        text = dataclasses.replace(draw_text(rng, [length]), setting=rng.choice(unstopped))
        first_cut = rng.randrange(1, length - 1)
        for number in range(FORKS):
            cuts = (first_cut, rng.randrange(first_cut + 1, length))
            is_fork = number % 2 == 1
            yield Fork(text, cuts, rng.getrandbits(32) if is_fork else None, rng.choice(ADDED) if is_fork else "")


async def write_part(replica: Server, fork: Fork, length: int, session: str | None, **others: Any) -> tuple[str, str]:
    """Return the next characters of a text, and the session behind them."""
    body = {"prompt": "", "max_tokens": length, **SETTINGS[fork.text.setting], "session": session, **others}
    if session is None:
        body = fork.text.request(max_tokens=length)
    answer = await ask_once(replica.address, "/v1/completions", body)
    if answer.status != 200:
        raise ServerError(f"{answer.status}: {error_message(answer)}")
    choice = answer.choices[0]
    if choice.session is None:
        raise ServerError("the choice has no session")
    return choice.text, choice.session


async def continue_fork(replicas: Sequence[Server], number: int, fork: Fork, beginning: tuple[str, str]) -> str:
    """Return the whole text of a fork from its first part, which has been written."""
    text, session = beginning
    others: dict[str, Any] = {} if fork.seed is None else {"seed": fork.seed, "prompt": fork.added}
    lengths = (fork.cuts[1] - fork.cuts[0], fork.text.length - fork.cuts[1])
    for turn, length in enumerate(lengths):
        replica = replicas[(number + turn) % len(replicas)]
        part, session = await write_part(replica, fork, length, session, **(others if turn == 0 else {}))
        text += part
    return text


class Reference:
    """The same texts in this process: rows of `gentext.generation.slots.Slots`, with their own states."""

    def __init__(self, path: Path) -> None:
        sampler = open_text_model(path)._sampler
        assert isinstance(sampler, OnnxGenerator)
        self.sampler = sampler
        self.slots = Slots(sampler.session, sampler.bundle, 1)

    def write(self, fork: Fork) -> str:
        """Return the text of a fork."""
        text, first_cut = fork.text, fork.cuts[0]
        beginning, state = self._write_row(text.prompt, text.seed, text.setting, first_cut, None)
        seed = text.seed if fork.seed is None else fork.seed
        return beginning + self._write_row(fork.added, seed, text.setting, text.length - first_cut, state)[0]

    def _write_row(
        self, prompt: str, seed: int, setting: int, length: int, state: RowState | None
    ) -> tuple[str, RowState | None]:
        options = writing_options(length=length, seed=seed, parameters=SETTINGS[setting])
        writing = prepare_writing(self.sampler, [prompt], options, KEYWORD_SPELLING)
        [request] = row_requests(writing, keeps_state=True)
        slot = self.slots.join(request, state)
        while not slot.is_free:
            self.slots.advance()
        return slot.text.text, self.slots.state(slot)


async def run_forks(
    path: Path, folder: Path, count: int, seed: int, say: Callable[[str], None]
) -> list[tuple[str, ...]]:
    """Return the row about continued and forked texts."""
    key_file = folder / "session.key"
    key_file.touch(0o600)
    key_file.write_text(f"{secrets.token_hex(32)}\n", encoding="ascii")
    forks = list(draw_forks(count, seed))
    replicas = [
        Server([path], folder / f"replica{number}.log", "--session-key-file", str(key_file)).start()
        for number in range(2)
    ]
    try:
        firsts = {fork.text: fork for fork in forks}
        numbers = itertools.cycle(range(len(replicas)))
        beginnings = {
            text: await write_part(replicas[next(numbers)], fork, fork.cuts[0], None) for text, fork in firsts.items()
        }
        written = await continue_all(replicas, forks[: count // 2], beginnings)
        for replica in replicas:
            left = replica.kill()
            say(f"kill -9 of a replica; workers still there after 5 s: {len(left)}; it is started again")
            replica.start()
        written += await continue_all(replicas, forks[count // 2 :], beginnings)
    finally:
        for replica in replicas:
            replica.stop()
    uncut = {text: expected for text, expected, _ in write_texts(path, firsts)}
    reference = Reference(path)
    equal = 0
    for fork, text in zip(forks, written, strict=True):
        expected = uncut[fork.text] if fork.seed is None else reference.write(fork)
        equal += text == expected
        if text != expected and len(forks) - equal < 10:
            say(f"different: {fork}: {text!r:.200}; expected {expected!r:.200}")
    tokens = [len(session) for _, session in beginnings.values()]
    say(f"tokens of sessions have {min(tokens):,} to {max(tokens):,} characters")
    return [
        (
            f"{len(forks):,} forks and continuations over two replicas, killed and started again in between",
            f"{equal:,} equal",
            f"{len(forks):,} equal",
            "",
        )
    ]


async def continue_all(
    replicas: Sequence[Server], forks: Sequence[Fork], beginnings: dict[Text, tuple[str, str]]
) -> list[str]:
    """Return the texts of forks, several at a time; an error stands in place of its text."""
    free = asyncio.Semaphore(CLIENTS)

    async def write(number: int, fork: Fork) -> str:
        async with free:
            try:
                return await continue_fork(replicas, number, fork, beginnings[fork.text])
            except (ServerError, OSError) as error:
                return f"error: {error}"

    return await asyncio.gather(*(write(number, fork) for number, fork in enumerate(forks)))
