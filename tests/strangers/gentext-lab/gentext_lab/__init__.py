"""A batcher, a trainer, a sampler and a filter. The diary beside them is a second plugin."""

from gentext import hookimpl

gentext_hooks = 3


@hookimpl
def register_batchers(register):
    register("windows", "gentext_lab.windows:RandomWindows", summary="windows from anywhere, nothing carried")


@hookimpl
def register_trainers(register):
    register("sgd", "gentext_lab.sgd:PlainSGD", summary="stochastic gradient descent, and nothing else")


@hookimpl
def register_samplers(register):
    register("unigram", "gentext_lab.unigram:Unigram", summary="a baseline that knows frequencies only")


@hookimpl
def register_filters(register):
    register("varied", "gentext_lab.varied:Varied", summary="only texts of many different characters")
