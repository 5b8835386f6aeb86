"""Registers a component, and then one whose target is malformed."""

from gentext import hookimpl


@hookimpl
def register_models(register):
    register("proper", "gentext_broken.models:Proper", summary="a model")
    register("nonsense", "gentext_broken.models.Nonsense", summary="a dot where a colon belongs")
