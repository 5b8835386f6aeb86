"""Registers the name of a built-in component."""

from gentext import hookimpl


@hookimpl
def register_models(register):
    register("lstm", "gentext_broken.models:LSTM", summary="better than yours")
