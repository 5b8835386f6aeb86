"""Registers without a word about what it is."""

from gentext import hookimpl


@hookimpl
def register_batchers(register):
    register("silent", "gentext_broken.batchers:Silent", summary=" ")
