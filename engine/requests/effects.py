"""Remarks on parameters that a user has set, but that cannot change the text or that act against another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from gentext.sampling.chain import Chain, Link

if TYPE_CHECKING:
    from gentext.requests.spelling import LinkParameter, ParamValues, Spelling

#: Links that never mask the most probable symbol, so that they change nothing where a later link keeps only that one.
BEST_KEEPING_LINKS = frozenset(
    {"top_n_sigma", "top_k", "top_p", "min_p", "top_h", "p_less", "epsilon", "eta", "temperature", "schedule"}
)
#: (link, parameter) -> the parameter of the link without which it has no effect, where that is not the link's switch.
COMPANIONS = {("temperature", "dynatemp_exponent"): "dynatemp_range"}
#: The largest probability that two symbols can both have: above it, the threshold of `xtc` has no effect.
MAX_XTC_THRESHOLD = 0.5


class ChainEffects:
    """A chain with the numbers of its parameters, and what the user has set of them."""

    def __init__(
        self,
        chain: Chain,
        param_values: ParamValues,
        user_settings: Mapping[LinkParameter, object],
        spelling: Spelling,
        vocab_size: int,
    ) -> None:
        """``param_values`` holds what differs from the defaults; ``user_settings`` are numbers, or texts of options."""
        self.links = {link.name: link for link in chain}
        self.numbers = {link.name: {**link.defaults, **param_values.get(link.name, {})} for link in chain}
        self.active_names = chain.active(chain.param_arrays(1, self.numbers), {}).names
        self.user_settings = {key: setting for key, setting in user_settings.items() if key.link in self.links}
        self.left_out = [key for key in user_settings if key.link not in self.links]
        self.spelling, self.vocab_size = spelling, vocab_size

    def notes(self) -> list[str]:
        """Return a line for each setting that has no effect, or works against another one."""
        notes = [
            *(f"{self.spelling.name(name)} has no effect: {link} is not in the chain" for link, name in self.left_out),
            *self._after_one_symbol(),
            *self._without_companion(),
            *self._out_of_effect(),
            *self._two_temperatures(),
            *self._two_cuts(),
        ]
        return list(dict.fromkeys(notes))

    def _after_one_symbol(self) -> Iterator[str]:
        """Yield notes on what has no effect because another link leaves only one symbol."""
        names = list(self.links)
        for deciding_name in filter(self._leaves_one_symbol, names):
            for name, parameter in self.user_settings:
                if name == deciding_name or self.links[name].strategy.place == "penalty":
                    continue
                is_behind = names.index(name) > names.index(deciding_name)
                if (is_behind or name in BEST_KEEPING_LINKS) and not self._is_neutral(name, parameter):
                    yield f"{self.spelling.name(parameter)} has no effect: {deciding_name} leaves one symbol"

    def _leaves_one_symbol(self, name: str) -> bool:
        """Return whether a parameter of a link is decisive, and its others are neutral."""
        params, numbers = self.links[name].strategy.params, self.numbers[name]
        changed = [param for param, spec in params.items() if numbers[param] != spec.neutral]
        return len(changed) == 1 and numbers[changed[0]] == params[changed[0]].decisive

    def _is_neutral(self, name: str, parameter: str) -> bool:
        """Return whether a parameter is neutral; the option of a link that has tables is not."""
        params = self.links[name].strategy.params
        return parameter in params and self.numbers[name][parameter] == params[parameter].neutral

    def _without_companion(self) -> Iterator[str]:
        """Yield notes on parameters that count only beside another one of their link, which is neutral."""
        for name, parameter in self.user_settings:
            strategy = self.links[name].strategy
            companion = COMPANIONS.get((name, parameter), strategy.switch)
            if companion not in (None, parameter) and self._is_neutral(name, companion):
                yield f"{self.spelling.name(parameter)} has no effect without {self.spelling.name(companion)}"

    def _out_of_effect(self) -> Iterator[str]:
        """Yield notes on numbers beyond which a parameter no longer acts."""
        for (name, parameter), setting in self.user_settings.items():
            assignment = self.spelling.assignment(parameter, setting)
            if (name, parameter) == ("top_k", "top_k") and self.numbers[name][parameter] >= self.vocab_size:
                yield f"{assignment} has no effect: the model has {self.vocab_size} symbols"
            is_beyond = (name, parameter) == ("xtc", "xtc_threshold") and self.numbers[name][
                parameter
            ] > MAX_XTC_THRESHOLD
            if is_beyond and not self._is_neutral("xtc", "xtc_probability"):
                yield f"{assignment} turns xtc off: no two symbols are both that probable"

    def _two_temperatures(self) -> Iterator[str]:
        """Yield a note where a schedule is not the only temperature."""
        schedules = [
            parameter for (name, parameter), setting in self.user_settings.items() if name == "schedule" and setting
        ]
        if schedules and "temperature" in self.active_names and not self._leaves_one_symbol("temperature"):
            yield (
                f"{self.spelling.name(schedules[0])} divides what temperature has divided already; "
                f"for the schedule alone: {self._turn_off(self.links['temperature'])}"
            )

    def _two_cuts(self) -> Iterator[str]:
        """Yield a note where Mirostat, which chooses how many symbols to keep, is not the only link that masks."""
        masks = [
            link for link in self.links.values() if link.strategy.place == "mask" and link.name in self.active_names
        ]
        is_set = any(name in ("mirostat", *(mask.name for mask in masks)) for name, _ in self.user_settings)
        if "mirostat" in self.active_names and masks and is_set:
            yield (
                f"mirostat cuts what {', '.join(mask.name for mask in masks)} has left; "
                f"for mirostat alone: {', '.join(map(self._turn_off, masks))}"
            )

    def _turn_off(self, link: Link) -> str:
        """Return the settings by which a link is turned off, as the user writes them."""
        changed = [
            (name, spec.neutral)
            for name, spec in link.strategy.params.items()
            if name in link.strategy.switches and self.numbers[link.name][name] != spec.neutral
        ]
        return ", ".join(
            self.spelling.assignment(name, int(neutral) if float(neutral).is_integer() else neutral)
            for name, neutral in changed
        )
