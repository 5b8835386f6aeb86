"""How a model is opened: every option with its type, default and help, for `gentext.load` and for commands."""

# The annotations are read when a command starts, so they are not turned into texts.
from typing import Annotated, TypedDict

from gentext.arguments import Flag, Option, with_defaults
from gentext.runs.source import FILE_SAMPLER


class SamplerArguments(TypedDict, total=False):
    """What runs the model."""

    sampler: Annotated[str, Option("``onnx`` or ``torch``, or a plugin's", FILE_SAMPLER)]


class DeviceArguments(TypedDict, total=False):
    """Which device computes."""

    device: Annotated[str, Option("``auto``, ``cpu`` or ``cuda``", "auto")]


class ThreadsArguments(TypedDict, total=False):
    """How many threads compute."""

    threads: Annotated[int, Option("threads; they do not change the result. Default: by the size of the file", 0)]


class VerifyArguments(TypedDict, total=False):
    """Whether to check what is opened."""

    verify: Annotated[
        bool,
        Option("whether a file must fit its check", True),
        Flag(help="open a file even where its check fails"),
    ]


class FileArguments(DeviceArguments, VerifyArguments, total=False):
    """How the built-in sampler opens a file."""


class ThreadedFileArguments(DeviceArguments, ThreadsArguments, VerifyArguments, total=False):
    """How it opens one, where a command has threads of its own."""


class OpenArguments(SamplerArguments, DeviceArguments, ThreadsArguments, VerifyArguments, total=False):
    """How a model is opened. A new option of all commands that open one belongs into one of these classes."""


#: For commands that have flags for a part of them.
OPEN_DEFAULTS: OpenArguments = with_defaults(OpenArguments(), OpenArguments)
