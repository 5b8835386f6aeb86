"""Command lines: every command and option of gentext, with values that do not fit; odd variables of the environment."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import typer.main
from fuzz.example import Example, Special
from fuzz.material import SMALL, Material
from fuzz.mutations import NUMBERS, TEXTS
from hypothesis import strategies as st

from gentext.cli.app import build

#: What commands may be pointed at: runs, files, other things.
PATHS = [
    *("run", "run/model.onnx", "run/generator.onnx", "tiny.txt", "nothing", "folder", "run/config.toml", "-", "fifo"),
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/stdin", "/proc/self/mem", "/proc/cpuinfo", "link.onnx", "new", "."),
]
#: Regular expressions, right and wrong, for `--match`.
EXPRESSIONS = [
    "[a-z]+",
    "^(the|a) .*$",
    "a{3}",
    "(",
    "[b-a]",
    "a{2,1}",
    "(?=a)a",
    "a^",
    r"(a)\1",
    r"\p{L}",
    "(?:a{90}){90}",
]
WORDS = [*PATHS, *TEXTS, *EXPRESSIONS, *(str(one) for one in NUMBERS)]
#: Settings of components, for --set.
KEYS = [
    *(
        "model.hidden",
        "model.layers",
        "model.embedding",
        "model.dropout",
        "model.name",
        "batcher.batch",
        "batcher.length",
    ),
    *("trainer.rate", "trainer.clip", "trainer.eval_every", "trainer.warmup", "tokenizer.name", "tokenizer.min_count"),
    *(
        "run.val_frac",
        "run.threads",
        "run.seed",
        "chain.links",
        "sampler.threads",
        "model",
        "x.y",
        "",
        "model.hidden.a",
    ),
    *("trainer.optimizer", "trainer.schedule", "trainer.final", "trainer.beta2", "batcher.offset", "corpus.sha256"),
]
#: Options of links, which are no options of the command itself.
LINK_OPTIONS = [
    "--temperature",
    "--top-k",
    "--top-p",
    "--min-p",
    "--repetition",
    "--frequency",
    "--presence",
    "--typical-p",
    "--xtc-probability",
    "--dynatemp-range",
    "--logit-bias",
    "--ban",
    "--schedule",
    "--dry-multiplier",
    "--dry-sequence-breakers",
    "--mirostat",
    "--adaptive-target",
    "--top-n-sigma",
    "--p-less",
    "--first-state",
    "--nothing",
]
#: Commands that take long where all is well, and the options that keep them short.
SHORT: dict[str, list[str]] = {
    "train": ["--steps", "1", *SMALL],
    "sweep": ["--trials", "1", "--steps", "1", "--no-export"],
    "distill": ["--steps", "1", *SMALL, "--set", "batcher.windows=1", "--no-export"],
    "sample": ["--length", "20"],
    "best": ["--length", "4", "--count", "2"],
    "inspect": ["--length", "50"],
}
#: Of these, each example takes seconds where all is well.
SLOW = ("sweep", "bench", "export", "distill")
VARIABLES = {
    "GEN_RUNS": PATHS,
    "GEN_CACHE_DIR": PATHS,
    "GEN_DATA_DIR": [*PATHS, "~nobody", "~"],
    "GEN_PLUGINS": ["", "a,b", ",", "nothing", "gentext", "\x1b[0m"],
    "GEN_PLUGINS_STRICT": ["1", "0", "x", ""],
    "TMPDIR": ["/dev/null", "nowhere", "/proc", ""],
    "HOME": ["", "nowhere", "/dev/null", "~"],
    "COLUMNS": ["0", "-1", "x", "1", "100000"],
    "RANK": ["0", "-1", "x", "1"],
    "WORLD_SIZE": ["1", "0", "x", "1000000000000"],
    "LOCAL_RANK": ["x", "7"],
    "MASTER_ADDR": ["", "nowhere.invalid"],
    "MASTER_PORT": ["x", "0", "99999"],
    "LANG": ["C", "de_DE.UTF-8", "x"],
    "NO_COLOR": ["1"],
    "TERM": ["dumb", "", "x"],
    "XDG_CACHE_HOME": ["/dev/null", "nowhere"],
}


class Option(NamedTuple):
    """An option of a command."""

    names: list[str]
    is_flag: bool
    is_argument: bool


@functools.cache
def commands() -> dict[str, list[Option]]:
    """Return gentext's commands and their options, as Typer has them."""
    group: Any = typer.main.get_command(build())
    return {
        name: [
            Option(
                [*parameter.opts, *parameter.secondary_opts],
                getattr(parameter, "is_flag", False),
                parameter.param_type_name == "argument",
            )
            for parameter in command.params
        ]
        for name, command in group.commands.items()
    }


@st.composite
def command_line(draw: st.DrawFn) -> list[str]:
    """A command with some of its options, most with values that are wrong."""
    name = draw(st.sampled_from(sorted(commands())))
    if name in SLOW and draw(st.integers(0, 3)):
        name = "sample"
    words = [name]
    value = st.sampled_from(WORDS)
    for option in draw(st.lists(st.sampled_from(commands()[name]), max_size=4)) if commands()[name] else []:
        if option.is_argument:
            words.append(draw(st.sampled_from(PATHS) | value))
        elif option.is_flag:
            words.append(draw(st.sampled_from(option.names)))
        else:
            spelled = draw(setting() if "--set" in option.names else value)
            words += draw(st.sampled_from([[option.names[0], spelled], [f"{option.names[-1]}={spelled}"]]))
    if name == "sample":
        for option_name in draw(st.lists(st.sampled_from(LINK_OPTIONS), max_size=2)):
            words += [option_name, draw(value)]
    if draw(st.integers(0, 3)):
        words[1:1] = (
            ["run"]
            if name in ("sample", "best", "eval", "info", "export", "distill")
            else ["tiny.txt"] * (name == "train")
        )
    if draw(st.integers(0, 9)) == 0:
        words = draw(st.permutations(words))
    if name not in SHORT and draw(st.integers(0, 9)) == 0:
        words.append(draw(value))
    return [*words, *SHORT.get(name, [])]


@st.composite
def setting(draw: st.DrawFn) -> str:
    words = st.sampled_from(WORDS)
    return f"{draw(st.sampled_from(KEYS))}={draw(words)}" if draw(st.integers(0, 7)) else draw(words)


@st.composite
def examples(draw: st.DrawFn, material: Material) -> Example:
    """A command line in a folder with a run, in an odd environment now and then."""
    words = draw(command_line())
    environment = {}
    if draw(st.booleans()):
        for variable in draw(st.lists(st.sampled_from(sorted(VARIABLES)), max_size=3, unique=True)):
            environment[variable] = draw(st.sampled_from(VARIABLES[variable]))
    files: dict[str, Any] = {"run": Special("run"), "tiny.txt": material.text, "folder": Special("folder")}
    files |= {"fifo": Special("fifo"), "link.onnx": Special("link", "/dev/zero")}
    return Example(
        files,
        [[word.replace("\0", "") for word in words]],
        environment,
        stdin=draw(st.sampled_from([b"", b"abc", b"\xff\xfe", material.text[:2000]])),
        stdout=draw(st.sampled_from(["", "", "", "/dev/full"])),
        base=draw(st.booleans()) if words[0] != "train" else draw(st.integers(0, 4)) == 0,
        interrupt_after=draw(st.sampled_from([0.3, 1, 2])),
    )
