"""gentext as a library: opens a trained model. `gen sample` and `gen eval` use the same functions.

Nothing is printed: the lines that the commands print on stderr are in `TextModel.messages`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from gentext import console
from gentext.arguments import show_arguments, with_defaults
from gentext.components.creation import create_component
from gentext.components.samplers import check_opened
from gentext.config import build_config, config_class
from gentext.errors import UsageError, refuse_exit
from gentext.generation.writing import WrittenText
from gentext.interfaces import Sampler
from gentext.library.declaration import OpenArguments
from gentext.library.text_model import TextModel, TextStream
from gentext.manager import host
from gentext.requests.keywords import check_names
from gentext.runs.source import FILE_SAMPLER, find_source, openable_sources
from gentext.settings import check_device, check_threads

__all__ = ["TextModel", "TextStream", "WrittenText", "load"]


@show_arguments
def load(
    path: str | os.PathLike[str] | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    **arguments: Unpack[OpenArguments],
) -> TextModel:
    """Open a trained model: a run folder, an .onnx file, or a name of ``gen models``; None: the newest exported run.

    ``device`` is auto, cpu or cuda. ``threads`` is how many the computation may use at most, 0 for the number that
    suits the model; the text is the same. ``sampler`` names the component that runs the model, and ``options`` sets
    options of it. ``verify=False`` opens a file that was changed on purpose, whose bytes do not fit its check.

    Raises a subclass of `gentext.GenError`: RunError when there is no such run or when it was not exported,
    FileFormatError for a file that is damaged or not from gentext, DeviceError for a device that cannot be used.
    """
    if not isinstance(path, str | os.PathLike | None):
        raise UsageError(f"path = {path!r}: expected the path of a run or of an .onnx file")
    check_names(arguments, OpenArguments, "load")
    with console.quiet() as messages:
        model = open_from_arguments(None if path is None else Path(path), arguments, options)
    model.add_messages(messages)
    return model


def open_from_arguments(
    path: Path | None, arguments: OpenArguments, options: Mapping[str, Any] | None = None
) -> TextModel:
    """Open a model as `load` does, but print the messages on stderr, as the commands do."""
    chosen = with_defaults(arguments, OpenArguments)
    check_device(chosen["device"])
    check_threads(chosen["threads"])
    sampler_options = dict(options or {})
    if chosen["threads"]:
        sampler_options["threads"] = chosen["threads"]
    if not chosen["verify"]:
        sampler_options["verify"] = False
    return open_text_model(path, chosen["device"], chosen["sampler"], sampler_options)


def open_text_model(
    path: Path | None,
    device: str = "auto",
    sampler: str = FILE_SAMPLER,
    options: Mapping[str, Any] | None = None,
) -> TextModel:
    """Open a model whose arguments are checked; ``options`` are all that the sampler gets."""
    registered = host().registry.find("sampler", sampler)
    sampler_class = registered.load()
    config = build_config(config_class(sampler_class), options or {}, "sampler")
    source = find_source(path, openable_sources(sampler_class, sampler), sampler)
    sampler_component: Sampler = create_component(registered, sampler_class, config)
    with refuse_exit(f"the sampler {sampler!r}"):
        opened_sampler = check_opened(sampler, sampler_component.open(source, device))
    return TextModel(source, opened_sampler, device, verify=(options or {}).get("verify") is not False)
