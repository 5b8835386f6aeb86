"""Registers a component without a summary."""

from gentext import hookimpl


@hookimpl
def register_batchers(register):
    register("silent", "gentext_broken.batchers:Silent", summary=" ")
