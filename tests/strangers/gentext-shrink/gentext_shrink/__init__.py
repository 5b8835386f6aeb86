"""Links that keep the rules in NumPy, and cannot be compiled: examples of what their authors are told."""

from gentext import hookimpl


@hookimpl
def register_strategies(register):
    register("fewer", "gentext_shrink.links:Fewer", summary="leave a fixed number of symbols")
    register("running", "gentext_shrink.links:Running", summary="sum up with a function that cannot be compiled")
