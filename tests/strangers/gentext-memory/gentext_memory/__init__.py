"""A model with one gate, one state tensor, and a beginning that it learns."""

from gentext import hookimpl


@hookimpl
def register_models(register):
    register("mgu", "gentext_memory.model:MinimalGatedUnit", summary="one layer with a single gate")
