"""How much dropout suits a text that is read often: of hidden units, and of n-grams."""

from __future__ import annotations

import math

from gentext.adjustments import TrainingFacts

#: Passes up to which the presets were measured, without dropout.
MAX_PASSES_WITHOUT_DROPOUT = 5.0
#: Passes at which the formula of the dropout gives 0, also where the logits are calibrated and a symbol has few
#: parameters, so that a model may be a little too sure; each doubling of the passes adds a tenth.
ZERO_DROPOUT_PASSES, ZERO_CALIBRATED_DROPOUT_PASSES = 3.0, 6.0
MAX_DROPOUT = 0.5
#: Parameters a symbol of the runs in which ZERO_DROPOUT_PASSES was measured.
MEASURED_PARAMETERS_PER_SYMBOL = 2.0
#: Passes from which some positions have no n-grams in training, since those of a text that is read often are learned by
#: heart. Their share grows so much with each doubling of the passes, up to this.
MIN_NGRAM_DROPOUT_PASSES, NGRAM_DROPOUT_PER_DOUBLING, MAX_NGRAM_DROPOUT = 2.0, 0.1, 0.3
#: Symbols below which a text is short: a model that reads n-grams learns it by heart sooner. This was measured with
#: texts of 70,000 to 420,000 symbols, which were read 7 to 38 times.
SHORT_TEXT = 600_000
#: Of a short text: the passes up to which the share without n-grams is as above, its growth with each doubling after
#: them, and the largest share.
SHORT_TEXT_NGRAM_PASSES, SHORT_TEXT_NGRAM_DROPOUT_PER_DOUBLING, MAX_SHORT_TEXT_NGRAM_DROPOUT = 4.0, 0.25, 0.8


def dropout_for_passes(passes: float, parameters_per_symbol: float, *, is_calibrated: bool) -> float:
    """Return a dropout that rises with the passes, and with the parameters that could learn the text by heart."""
    may_be_sure = is_calibrated and parameters_per_symbol < MEASURED_PARAMETERS_PER_SYMBOL
    zero_passes = ZERO_CALIBRATED_DROPOUT_PASSES if may_be_sure else ZERO_DROPOUT_PASSES
    if passes <= max(MAX_PASSES_WITHOUT_DROPOUT, zero_passes):
        return 0.0
    size_factor = min(2.0, max(0.5, math.sqrt(parameters_per_symbol / MEASURED_PARAMETERS_PER_SYMBOL)))
    return min(MAX_DROPOUT, _round_share(0.1 * math.log2(passes / zero_passes) * size_factor))


def ngram_dropout_for_passes(passes: float, *, is_short: bool) -> float:
    """Return the share of positions without n-grams in training; a short text needs more of them."""
    if not is_short or passes <= SHORT_TEXT_NGRAM_PASSES:
        return min(MAX_NGRAM_DROPOUT, _round_share(NGRAM_DROPOUT_PER_DOUBLING * math.log2(passes)))
    dropout = NGRAM_DROPOUT_PER_DOUBLING * math.log2(SHORT_TEXT_NGRAM_PASSES)
    dropout += SHORT_TEXT_NGRAM_DROPOUT_PER_DOUBLING * math.log2(passes / SHORT_TEXT_NGRAM_PASSES)
    return min(MAX_SHORT_TEXT_NGRAM_DROPOUT, _round_share(dropout))


def is_short_text(facts: TrainingFacts) -> bool:
    """Return whether the corpus is a text, not records, that a model with n-grams learns by heart soon."""
    return not facts.records and facts.symbols < SHORT_TEXT


def _round_share(share: float) -> float:
    """Return a share as a multiple of 0.05."""
    return round(round(share / 0.05) * 0.05, 2)
