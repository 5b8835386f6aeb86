"""Names a parameter that the hook does not have."""

from gentext import hookimpl


@hookimpl
def register_models(registry):
    registry("wrong", "gentext_broken.models:Wrong", summary="a model")
