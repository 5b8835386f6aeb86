"""Plugins: installed modules whose hooks, links, tokenizers and samplers raise, print, or return what is wrong."""

from __future__ import annotations

from fuzz.example import Example, Special
from fuzz.material import SMALL, Material
from hypothesis import strategies as st

HEADER = """
import asyncio, sys
import numpy as np
from gentext import NoConfig, Param, State, Strategy, Table, hookimpl

class Silent(Exception):
    def __str__(self):
        raise ValueError("no text")

class Bare(BaseException):
    pass

def recurse(*arguments):
    return recurse(*arguments)
"""
#: What code of a plugin may do instead of its work. ``OWN`` is the right result.
BODIES = [
    "return OWN",
    "raise ValueError('wrong')",
    "raise Silent()",
    "raise Bare('wrong')",
    "raise SystemExit(0)",
    "raise SystemExit(77)",
    "raise SystemExit('x' * 3000)",
    "raise MemoryError()",
    "raise OSError(28, 'No space left on device')",
    "raise asyncio.CancelledError()",
    "raise RuntimeError('a\\nb' * 2000)",
    "return recurse()",
    "return None",
    "return 'text'",
    "return ()",
    "return (None, None)",
    "return [1, 2, 3]",
    "return {}",
    "return {'a': np.zeros(3)}",
    "return float('nan')",
    "return object()",
    "return -1",
    "return 10**30",
    "return (x for x in ())",
    "print('noise'); return OWN",
    "print('noise', file=sys.stderr); return OWN",
    "return np.full((1, 19), np.nan, np.float32)",
    "return np.zeros((5, 5, 5), np.complex64)",
    "return np.zeros(0)",
    "return (np.full((1, 19), np.nan, np.float32), {})",
    "return (np.zeros((1, 2), np.float64), {})",
    "return b'\\xff'",
    "sys.stdout.close(); return OWN",
]
STRATEGY = """
class Link(Strategy):
    params = {params}
    state = {state}
    tables = {tables}
    place = {place}

    def apply(self, xp, logits, params, state, noise, tables):
        {apply}

    def accept(self, xp, token, logits, params, state, tables, new):
        {accept}

    def start(self, xp, params):
        {start}

    def make_tables(self, tokenizer, options):
        {make_tables}
"""
TOKENIZER = """
class Tokenizer:
    Config = NoConfig
    vocab_size = {vocab_size}
    unknown = {unknown}

    @classmethod
    def build(cls, text, config):
        {build}

    @classmethod
    def from_state(cls, state):
        {from_state}

    def encode(self, text):
        {encode}

    def token_bytes(self, token):
        {token_bytes}

    def state(self):
        {state}
"""
SAMPLER = """
class Sampler:
    Config = NoConfig
    opens = {opens}

    def __init__(self, config):
        {init}

    def open(self, source, device):
        {open}
"""
HOOKS = '''
@hookimpl
def register_strategies(register):
    register("link", {target}Link, summary="a link")
    {register}

@hookimpl
def register_tokenizers(register):
    register("tokens", Tokenizer, summary="a tokenizer")

@hookimpl
def register_samplers(register):
    register("other", Sampler, summary="a sampler")

@hookimpl
def register_commands(cli):
    @cli.command()
    def own({signature}):
        """A command of its own."""
        {own}
    {commands}

@hookimpl
def {hook}({arguments}):
    {life}

{top}
'''
LIFE = ["run_started", "step_done", "evaluated", "checkpoint_saved", "run_finished", "run_closed", "export_run"]
LIFE += ["adjust_settings", "unheard_hook"]
COMMANDS: list[list[str]] = [
    ["sample", "run", "--length", "3", "--seed", "1", "--chain", "link,temperature"],
    ["sample", "run", "--length", "3", "--seed", "1", "--chain", "top_k,link", "--prime", "ab", "--strength", "0.5"],
    ["sample", "run", "--length", "3", "--seed", "1", "--sampler", "other"],
    ["train", "tiny.txt", "--run", "new", "--steps", "1", *SMALL],
    ["train", "tiny.txt", "--run", "new", "--steps", "1", "--set", "tokenizer.name=tokens", *SMALL],
    ["train", "tiny.txt", "--run", "new", "--steps", "1", "--set", "chain.links=['link']", *SMALL],
    ["plugins"],
    ["plugins", "--json"],
    ["plugins", "link", "--check"],
    ["plugins", "link"],
    ["own"],
    ["own", "3"],
    ["doctor"],
    ["info", "run"],
    ["sample", "--help"],
]
METADATA = b"Metadata-Version: 2.1\nName: gentext-fuzz\nVersion: 1.0\n"


def distribution(module: str) -> dict[str, bytes | Special]:
    """Return the files of an installed distribution whose plugin has this source."""
    return {
        "site/fuzz_plugin.py": module.encode(),
        "site/gentext_fuzz-1.0.dist-info/METADATA": METADATA,
        "site/gentext_fuzz-1.0.dist-info/entry_points.txt": b"[gentext]\nfuzz = fuzz_plugin\n",
    }


def body(own: str) -> st.SearchStrategy[str]:
    """A function's body: right in half of the cases, so that what comes after it is reached."""
    return st.one_of(st.just(f"return {own}"), st.sampled_from(BODIES).map(lambda code: code.replace("OWN", own)))


@st.composite
def module(draw: st.DrawFn) -> str:
    """The source of a plugin."""
    params = [
        "{}",
        "{'strength': Param(0.0, 'how strong', low=0, high=1)}",
        "{'strength': None}",
        "None",
        "{'': Param(1.0)}",
    ]
    states = ["{}", "{'seen': State((1,))}", "{'seen': State((2**40,))}", "{'seen': State((-1,), 'int64')}", "[]"]
    tables = ["{}", "{'bias': Table((None,))}", "{'bias': Table((2**33,))}", "3"]
    link = STRATEGY.format(
        params=draw(st.sampled_from(params)),
        state=draw(st.sampled_from(states)),
        tables=draw(st.sampled_from(tables)),
        place=draw(st.sampled_from(["'shape'", "'mask'", "'penalty'", "'nowhere'", "None"])),
        apply=draw(body("logits, state")),
        accept=draw(body("state")),
        start=draw(body("{}")),
        make_tables=draw(body("{}")),
    )
    tokenizer = TOKENIZER.format(
        vocab_size=draw(st.sampled_from(["256", "256", "0", "-1", "2**40", "'x'", "3.5", "None"])),
        unknown=draw(st.sampled_from(["None", "None", "0", "999", "'x'"])),
        build=draw(body("cls()")),
        from_state=draw(body("cls()")),
        encode=draw(body("np.frombuffer(text.encode(), np.uint8).astype(np.int64)")),
        token_bytes=draw(body("bytes([token])")),
        state=draw(body("{}")),
    )
    opens = ["('run',)", "('any file', 'exported run')", "('nothing',)", "None", "3"]
    sampler = SAMPLER.format(
        opens=draw(st.sampled_from(opens)), init=draw(st.sampled_from(["pass", *BODIES[1:12]])), open=draw(body("None"))
    )
    hooks = HOOKS.format(
        target=draw(st.sampled_from(["", "", "", "'fuzz_plugin:'+'x' or "])),
        register=draw(st.sampled_from(["pass", "pass", *REGISTRATIONS, *BODIES[1:12]])),
        signature=draw(st.sampled_from(["", "number: int = 3", "number: object = 3"])),
        own=draw(body("None")),
        commands=draw(st.sampled_from(["pass", "pass", *BODIES[1:12], "cli.command('train')(own)"])),
        hook=draw(st.sampled_from(LIFE)),
        arguments=draw(st.sampled_from(["", "", "run", "nothing"])),
        life=draw(body("None")),
        top=draw(
            st.sampled_from(
                ["", "", "", "", *(one for one in BODIES[1:12] if one.startswith("raise")), "syntax error ("]
            )
        ),
    )
    return HEADER + link + tokenizer + sampler + hooks


#: Registrations that are wrong in themselves.
REGISTRATIONS = [
    "register('top_k', Link, summary='a name that exists')",
    "register('', Link, summary='no name')",
    "register(None, None, summary=None)",
    "register('x', 'nowhere:Nothing', summary='a target that is missing')",
    "register('y', 3, summary='\\x1b[31m' * 3)",
]


@st.composite
def examples(draw: st.DrawFn, material: Material) -> Example:
    """A distribution with a plugin, and a command that uses it."""
    command = draw(st.sampled_from(COMMANDS))
    files = distribution(draw(module())) | {"run": Special("run"), "tiny.txt": material.text}
    own_statuses = (77, 255) if command[0] == "own" else ()
    needs_training = command[0] == "train" or "--check" in command
    return Example(files, [command], base=not needs_training, interrupt_after=4, own_statuses=own_statuses)
