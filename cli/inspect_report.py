"""What `gen inspect` shows, before it is a page or a picture."""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gentext.exported.metadata import readable_symbol
from gentext.files.file_names import readable_name
from gentext.library.loading import TextModel
from gentext.scoring.inspection import Inspection
from gentext.scoring.text_features import Feature, is_measurable, text_features
from gentext.scoring.unit_information import BINS, UnitInformation, measure_information

#: Units that are shown for each feature.
BEST_UNITS = 3
#: The share of a unit's activations that are smaller than what has the full colour.
SCALE_QUANTILE = 0.99


@dataclasses.dataclass(frozen=True)
class Report:
    """A text as a model reads it, with the units that are shown."""

    model_name: str
    text_name: str
    symbols: list[str]
    """The symbol of each token."""
    inspection: Inspection
    features: list[Feature]
    """Their classes are those behind each symbol."""
    information: list[UnitInformation | None]
    """What units tell about each feature; None where the text has too few places of it."""
    chosen_units: list[int]
    """The units that the user chose."""
    units: list[int]
    """The units that are shown: those that tell most about the features, and those that the user chose."""

    @property
    def bits_per_symbol(self) -> float:
        """The mean surprise."""
        return float(-self.inspection.logprobs.mean() / np.log(2))

    @property
    def summary(self) -> str:
        """Return what was read, in one line."""
        return (
            f"{self.model_name} reads {len(self.inspection.tokens):,} symbols of {self.text_name}: "
            f"{self.bits_per_symbol:.3f} bits of surprise a symbol"
        )

    @property
    def estimate(self) -> str:
        """Return how the information of units was measured, in a few sentences."""
        return (
            f"Mutual information between a unit's activation behind a symbol, in {BINS} bins of equal counts, and a "
            f"feature of that place, in bits a place, less the bias of the estimate (Miller 1955). By chance: the "
            f"most that any of the {len(self.inspection.unit_names):,} units tells about the feature of another place "
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
        activations = self.inspection.activations[:, unit]
        scale = float(np.quantile(np.abs(activations), SCALE_QUANTILE)) or 1.0
        return np.clip(activations / scale, -1, 1), scale

    def lines(self) -> Iterator[str]:
        """Yield the summary, and a line for each feature."""
        yield self.summary
        for feature, information in zip(self.features, self.information, strict=True):
            if information is None:
                yield f"{feature.name}: too few places in this text"
                continue
            names = [
                f"{self.inspection.unit_names[unit]} {information.bits[unit]:.3f}"
                for unit in information.best_units(BEST_UNITS)
            ]
            units = ", ".join(names) or "none above chance"
            yield f"{feature.name}: {units} (of {information.entropy:.3f} bits; by chance {information.chance:.3f})"


def build_report(model: TextModel, text_name: str, inspection: Inspection, chosen_units: Sequence[str]) -> Report:
    """Measure what the units tell about the text, and choose those that are shown."""
    features = _features_of_symbols(model.bundle.token_bytes, inspection)
    measured = [feature for feature in features if is_measurable(feature.classes)]
    information: dict[str, UnitInformation] = {}
    if inspection.unit_names and measured:
        results = measure_information(inspection.activations, [feature.classes for feature in measured])
        information = {feature.name: result for feature, result in zip(measured, results, strict=True)}
    chosen = [inspection.unit_names.index(name) for name in chosen_units]
    units = list(chosen)
    for result in information.values():
        units += result.best_units(BEST_UNITS)
    return Report(
        readable_name(model.path.name or str(model.path)),
        readable_name(text_name),
        [readable_symbol(symbol) for symbol in model.bundle.token_bytes],
        inspection,
        features,
        [information.get(feature.name) for feature in features],
        chosen,
        list(dict.fromkeys(units)),
    )


def _features_of_symbols(token_bytes: Sequence[bytes], inspection: Inspection) -> list[Feature]:
    """Return the features of the place behind each symbol: those of the character that it is in, or ends."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text, places = "", []
    for token in inspection.tokens:
        text += decoder.decode(token_bytes[int(token)])
        places.append(max(0, len(text) - 1))
    if not text:
        return []
    return [dataclasses.replace(feature, classes=feature.classes[places]) for feature in text_features(text)]
