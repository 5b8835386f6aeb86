"""A tokenizer whose symbols are one byte or two characters long."""

from gentext import hookimpl


@hookimpl
def register_tokenizers(register):
    register("pairs", "gentext_pairs.tokenizer:PairTokenizer", summary="frequent pairs of characters, and bytes")
