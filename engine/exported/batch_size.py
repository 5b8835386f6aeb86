"""How many texts are written side by side: as many as are fast, and fit into memory."""

from __future__ import annotations

import math

from gentext.exported.metadata import Bundle

#: Rows of one batch at most. On a CPU a model of 256 units wrote 29,500 characters a second in batches of 256 rows,
#: 34,800 in batches of 1,024, 35,800 in batches of 2,048, and 28,700 in batches of 4,096, with 250 MB more memory than
#: in those of 256. A GPU captures its graph for 1,024 rows, too.
BATCH_ROWS = 1024
#: Characters of one batch at most, with its primes. Until its text is printed, each new one takes about 40 bytes of
#: memory: 8 for the token, 32 for the log-probability, which makes 80 MB. Each of the most probable symbols at it takes
#: 12, and counts as one more.
BATCH_CHARACTERS = 2**21
#: Numbers of one batch at most, in all states and in the logits and the noise of one position: 64 MB of float32.
BATCH_NUMBERS = 2**24


def max_texts(text_characters: int) -> int:
    """Return how many texts of so many characters, with their primes, may be in memory; at least 1."""
    return max(BATCH_CHARACTERS // max(text_characters, 1), 1)


def max_rows(bundle: Bundle) -> int:
    """Return how many rows of the model's states may be in memory; at least 1."""
    return max(BATCH_NUMBERS // bundle.row_elements, 1)


def choose_batch_rows(bundle: Bundle, texts: int, text_characters: int) -> int:
    """Return how many of so many texts are written side by side."""
    limit = min(BATCH_ROWS, max_texts(text_characters), max_rows(bundle))
    # Batches of one size: a GPU prepares for each size anew, and a small last batch would be slow.
    return math.ceil(texts / math.ceil(texts / limit))
