"""varied: only texts of so many different characters."""

import dataclasses

import numpy as np

from gentext.config import NonNegative


@dataclasses.dataclass(frozen=True)
class VariedConfig:
    """Options of the filter ``varied``."""

    characters: NonNegative = 3
    """Different characters of a text, at least."""


class Varied:
    """Answers with an array."""

    Config = VariedConfig

    def __init__(self, config):
        self._characters = config.characters

    def __call__(self, texts):
        return np.array([len(set(text)) >= self._characters for text in texts], np.bool_)
