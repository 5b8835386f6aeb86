"""Three links of the sampling chain: one with a state, one with noise of its own, one with a table."""

from gentext import hookimpl


@hookimpl
def register_strategies(register):
    register("novelty", "gentext_novelty.novelty:Novelty", summary="tire of symbols that were just written")
    register("typo", "gentext_novelty.typo:Typo", summary="hit a random key now and then")
    register("exclude", "gentext_novelty.exclude:Exclude", summary="never write some characters")
