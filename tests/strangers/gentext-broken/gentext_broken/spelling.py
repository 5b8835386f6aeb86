"""Misspells the name of a hook, which would never be called."""

from gentext import hookimpl


@hookimpl
def register_strategys(register):
    register("lost", "gentext_broken.strategies:Lost", summary="never found")
