"""A text that a model has read: the surprise of each symbol, and what its hidden units tell about the text."""

from __future__ import annotations

import base64
import codecs
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.console import show_controls
from gentext.describe import tokenizer_of
from gentext.errors import CorpusError, UsageError, nearest
from gentext.exported.metadata import Bundle, readable_symbol
from gentext.files.file_names import readable_name
from gentext.inspection.reading import Reading, read_tokens, unit_names
from gentext.inspection.text_features import Feature, is_measurable, text_features
from gentext.inspection.unit_information import BINS, UnitInformation, measure_information
from gentext.interfaces import Ids, OpenSampler
from gentext.notebooks import facts_html, surprise_html
from gentext.requests.spelling import Spelling
from gentext.scoring.score import encode_text
from gentext.scoring.unknown_characters import UnknownCharacters

#: The most probable symbols in place of each symbol, at most.
MAX_TOP = 20
#: Units that are shown for each feature.
BEST_UNITS = 3
#: The share of a unit's activations that are smaller than what has the full colour.
SCALE_QUANTILE = 0.99


@dataclasses.dataclass(frozen=True)
class InspectedText:
    """A text as a model reads it: the surprise of each symbol, and what the hidden units tell about the text.

    `gentext.TextModel.inspect` returns one. In a notebook it shows the text in colours.
    """

    model_name: str
    text_name: str
    vocabulary: list[str] = dataclasses.field(repr=False)
    """All symbols of the model, by token."""
    reading: Reading = dataclasses.field(repr=False)
    """Tokens, log-probabilities, the most probable symbols and the hidden units, as arrays."""
    features: list[Feature] = dataclasses.field(repr=False)
    """Their classes are those behind each symbol."""
    information: list[UnitInformation | None] = dataclasses.field(repr=False)
    """What units tell about each feature; None where the text has too few places of it."""
    chosen_units: list[int] = dataclasses.field(repr=False)
    """The units that the user chose."""
    units: list[int] = dataclasses.field(repr=False)
    """The units that are shown: those that tell most about the features, and those that the user chose."""

    def __repr__(self) -> str:
        return f"<gentext inspection: {self.summary}>"

    def _repr_html_(self) -> str:
        text = surprise_html(self.summary, self.symbols, self.reading.logprobs.tolist())
        return text + facts_html("Hidden units that tell most, with bits", self.best_units())

    @property
    def symbols(self) -> list[str]:
        """The symbols of the text, in order."""
        return [self.vocabulary[token] for token in self.reading.tokens.tolist()]

    @property
    def bits_per_symbol(self) -> float:
        """The mean surprise."""
        return float(-self.reading.logprobs.mean() / np.log(2))

    @property
    def summary(self) -> str:
        """Return what was read, in one line."""
        return (
            f"{self.model_name} reads {len(self.reading.tokens):,} symbols of {self.text_name}: "
            f"{self.bits_per_symbol:.3f} bits of surprise a symbol"
        )

    @property
    def estimate(self) -> str:
        """Return how the information of units was measured, in a few sentences."""
        return (
            f"Mutual information between a unit's activation behind a symbol, in {BINS} bins of equal counts, and a "
            f"feature of that place, in bits a place, less the bias of the estimate (Miller 1955). By chance: the "
            f"most that any of the {len(self.reading.unit_names):,} units tells about the feature of another place "
            f"of the text. Units that tell no more are not listed."
        )

    def unit_label(self, unit: int) -> str:
        """Return the feature of which a unit tells the largest share, with the bits; or that there is none."""
        shares = [
            (information.bits[unit] / information.entropy, f"{feature.name}, {information.bits[unit]:.3f} bits")
            for feature, information in zip(self.features, self.information, strict=True)
            if information is not None and information.bits[unit] > information.chance
        ]
        return max(shares)[1] if shares else "no feature above chance"

    def telling_units(self) -> list[int]:
        """Return the unit that tells most about each feature, those first that tell the largest share."""
        shares = [
            (float(information.bits[unit] / information.entropy), unit)
            for information in self.information
            if information is not None
            for unit in information.best_units(1)
        ]
        return list(dict.fromkeys(unit for _, unit in sorted(shares, reverse=True)))

    def series(self, unit: int) -> tuple[NDArray[np.float32], float]:
        """Return a unit's activations as -1 to 1, and the activation that 1 stands for."""
        activations = self.reading.activations[:, unit]
        scale = float(np.quantile(np.abs(activations), SCALE_QUANTILE)) or 1.0
        return np.clip(activations / scale, -1, 1), scale

    def save(self, path: str | Path) -> None:
        """Write the page of `gen inspect`, one HTML file that needs nothing else.

        Raises RunError where the file cannot be written.
        """
        from gentext.inspection.page import write_page

        write_page(Path(path), f"{self.text_name}, read by {self.model_name}", self._page_data())

    def lines(self) -> Iterator[str]:
        """Yield the summary, and a line for each feature."""
        yield self.summary
        for name, units in self.best_units().items():
            yield f"{name}: {units}"

    def best_units(self) -> dict[str, str]:
        """Return, by the name of each feature, the units that tell most about it, with the bits; in words."""
        units_by_name = {}
        for feature, information in zip(self.features, self.information, strict=True):
            if information is None:
                units_by_name[feature.name] = "too few places in this text"
                continue
            names = [
                f"{self.reading.unit_names[unit]} {information.bits[unit]:.3f}"
                for unit in information.best_units(BEST_UNITS)
            ]
            units = ", ".join(names) or "none above chance"
            bounds = f"of {information.entropy:.3f} bits; by chance {information.chance:.3f}"
            units_by_name[feature.name] = f"{units} ({bounds})"
        return units_by_name

    def _page_data(self) -> dict[str, Any]:
        """Return what the page's script reads. Arrays are base64 of little-endian numbers."""
        reading = self.reading
        numbers = {unit: number for number, unit in enumerate(self.units)}
        units = []
        for unit in self.units:
            series, scale = self.series(unit)
            label = self.unit_label(unit)
            codes = _encode(np.rint(series * 127), np.int8)
            units.append({"name": reading.unit_names[unit], "label": label, "scale": scale, "series": codes})
        features = [
            {
                "name": feature.name,
                "meaning": feature.meaning,
                "entropy": information and information.entropy,
                "chance": information and information.chance,
                "best": [
                    {"unit": numbers[unit], "bits": float(information.bits[unit])}
                    for unit in (information.best_units(BEST_UNITS) if information else [])
                    if information
                ],
            }
            for feature, information in zip(self.features, self.information, strict=True)
        ]
        return {
            "summary": show_controls(self.summary),
            "estimate": self.estimate,
            "symbols": [show_controls(symbol) for symbol in self.vocabulary],
            "tokens": _encode(reading.tokens, np.uint32),
            "surprise": _encode(-reading.logprobs, np.float32),
            "topCount": reading.top_tokens.shape[1],
            "topTokens": _encode(reading.top_tokens, np.uint32),
            "topSurprise": _encode(-reading.top_logprobs, np.float32),
            "units": units,
            "features": features,
        }


def check_inspection(bundle: Bundle, top_count: object, chosen_units: Sequence[str], spelling: Spelling) -> None:
    """Raise UsageError for an impossible number of symbols, or for a hidden unit that the model does not have."""
    if not isinstance(top_count, int) or not 1 <= top_count <= MAX_TOP:
        raise UsageError(f"{spelling.assignment('top', top_count)}: expected a whole number from 1 to {MAX_TOP}")
    if isinstance(chosen_units, str):
        raise UsageError(f"{spelling.assignment('unit', chosen_units)}: expected a list of names")
    names = unit_names(bundle)
    known_names = set(names)
    for name in chosen_units:
        if name not in known_names:
            expected = f"{names[0]} to {names[-1]}" if names else "none, as the model has no states of real numbers"
            given = spelling.assignment("unit", name)
            raise UsageError(f"{given}: no such hidden unit; expected {expected}.{nearest(name, names)}")


def tokens_to_inspect(bundle: Bundle, text: str, text_name: str, characters: UnknownCharacters) -> Ids:
    """Return the tokens of a text, from which ``characters`` were left out, and report those that were unknown.

    Raises CorpusError for an empty text, and for an unknown character without a symbol.
    """
    if not text:
        raise CorpusError(f"{text_name}: no text to inspect")
    tokenizer = tokenizer_of(bundle)
    characters.count_replaced(text, tokenizer, f"{text_name}: ")
    characters.report(text_name)
    return encode_text(bundle, tokenizer, text)


def inspect_tokens(
    sampler: OpenSampler, tokens: Ids, top_count: int, chosen_units: Sequence[str], model_path: Path, text_name: str
) -> InspectedText:
    """Read the symbols of a text, measure what the hidden units tell about it, and choose those that are shown.

    Errors are those of `gentext.inspection.reading.read_tokens`.
    """
    reading = read_tokens(sampler, tokens, top_count)
    features = _features_of_symbols(sampler.bundle.token_bytes, reading)
    measured = [feature for feature in features if is_measurable(feature.classes)]
    information: dict[str, UnitInformation] = {}
    if reading.unit_names and measured:
        results = measure_information(reading.activations, [feature.classes for feature in measured])
        information = {feature.name: result for feature, result in zip(measured, results, strict=True)}
    chosen = [reading.unit_names.index(name) for name in chosen_units]
    units = list(chosen)
    for result in information.values():
        units += result.best_units(BEST_UNITS)
    return InspectedText(
        readable_name(model_path.name or str(model_path)),
        readable_name(text_name),
        [readable_symbol(symbol) for symbol in sampler.bundle.token_bytes],
        reading,
        features,
        [information.get(feature.name) for feature in features],
        chosen,
        list(dict.fromkeys(units)),
    )


def _features_of_symbols(token_bytes: Sequence[bytes], reading: Reading) -> list[Feature]:
    """Return the features of the place behind each symbol: those of the character that it is in, or ends."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text, places = "", []
    for token in reading.tokens:
        text += decoder.decode(token_bytes[int(token)])
        places.append(max(0, len(text) - 1))
    if not text:
        return []
    return [dataclasses.replace(feature, classes=feature.classes[places]) for feature in text_features(text)]


def _encode(array: NDArray[Any], dtype: type[np.generic]) -> str:
    return base64.b64encode(array.astype(np.dtype(dtype).newbyteorder("<")).tobytes()).decode("ascii")
