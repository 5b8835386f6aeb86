"""What a user can say besides text: settings of the text to come, and where to save."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from gentext.cli.links import FlagSpelling
from gentext.errors import UsageError, nearest
from gentext.files.atomic import write_text
from gentext.files.escapes import decode_escapes
from gentext.library.loading import TextModel
from gentext.requests.options import UNKNOWN_POLICIES
from gentext.requests.styles import STYLES
from gentext.sessions.text_tree import TextTree

#: Remarks on how a text has ended.
FINISH_REMARKS: Mapping[str, str] = {
    "masked": "the chain left no symbol to draw",
    "end": "the record has ended",
}


class SettingSpelling(FlagSpelling):
    """Parameters as they are typed here: ``top-k 5``."""

    def name(self, parameter: str) -> str:
        return super().name(parameter).removeprefix("--")

    def full_name(self, link: str, parameter: str) -> str:
        return super().full_name(link, parameter).removeprefix("--")

    def unknown_parameter(self, parameter: str, parameters: Collection[str]) -> UsageError:
        names = ["seed", "length", "style", "stop", "unknown", *(name.replace("_", "-") for name in parameters)]
        return UsageError(f"no setting {parameter}.{nearest(parameter, names)}")


class Setting(NamedTuple):
    """A setting of the text to come."""

    name: str
    text: str
    """Its value, as the user would type it."""
    meaning: str


class Commands:
    """The settings of a text that is being written, and the file that it was saved in."""

    def __init__(self, model: TextModel, tree: TextTree) -> None:
        self.model, self.tree = model, tree
        self.saved_path: Path | None = None
        self.saved_text = ""
        """The text when it was saved last."""

    def settings(self) -> list[Setting]:
        """Return all settings with their values."""
        options = self.tree.options
        settings = [
            Setting("seed", str(self.tree.seed), "the same seed gives the same text"),
            Setting("length", str(options["length"] or 0), "characters that Tab adds; 0: without end"),
            Setting("style", options["style"] or "", f"{', '.join(STYLES)}; none: the file's own"),
            Setting(
                "stop", " ".join(map(_escape, options["stop"])), "end behind this text, such as \\n\\n; none: nowhere"
            ),
        ]
        meaning = f"unknown characters of typed text: {', '.join(UNKNOWN_POLICIES)}"
        settings.append(Setting("unknown", options["unknown"], meaning))
        parameters = options["parameters"]
        for link in self.model.bundle.chain:
            for name, param in link.params.items():
                if param.is_option:
                    spelled = name.replace("_", "-")
                    text = str(parameters.get(spelled, parameters.get(name, f"{param.default:g}")))
                    settings.append(Setting(spelled, text, param.help))
        return settings

    def describe_settings(self) -> str:
        """Return the seed, the length, and what differs from the file's settings, in one line."""
        options = self.tree.options
        changed: Mapping[str, object] = {
            "seed": self.tree.seed,
            "length": options["length"] or 0,
            **({"style": options["style"]} if options["style"] else {}),
            **({"stop": " ".join(map(_escape, options["stop"]))} if options["stop"] else {}),
            **options["parameters"],
        }
        return "  ".join(f"{name} {setting}" for name, setting in changed.items())

    def run(self, line: str, text: str) -> str:
        """Run ``save [FILE]``, or a setting such as ``temperature 0.7``; return what to show.

        :param text: the text as it is now. Raises a GenError where that is not possible; then nothing is changed.
        """
        name, _, argument = line.strip().removeprefix("set ").strip().replace("=", " ", 1).partition(" ")
        name, argument = name.replace("_", "-"), argument.strip()
        if name in ("save", "save!"):
            return self.save(text, argument, replace=name == "save!")
        self._set(name, argument)
        return " ".join([f"{name} {argument}", *(f"({note})" for note in self.tree.notes)])

    def save(self, text: str, name: str, *, replace: bool = False) -> str:
        """Save the text, in a new file or in the one that it was saved in before. Raises UsageError, RunError."""
        path = Path(name).expanduser() if name else self.saved_path
        if path is None:
            raise UsageError("save: expected the name of a file, such as save text.txt")
        if path != self.saved_path and path.exists() and not replace:
            raise UsageError(f"{path} exists already; save! {path} replaces it")
        try:
            write_text(path, text)
        except UnicodeEncodeError as error:  # an argument of a command line may have half a surrogate pair
            raise UsageError(f"save: no text in UTF-8 at position {error.start}: {text[error.start]!r}") from None
        self.saved_path, self.saved_text = path, text
        return f"saved {len(text):,} characters in {path}"

    def _set(self, name: str, argument: str) -> None:
        options = self.tree.options
        if name in ("seed", "length"):
            if not argument.isdecimal():
                raise UsageError(f"{name} {argument}".rstrip() + ": expected a whole number")
            if name == "seed":
                self.tree.choose_seed(int(argument))
                return
            options = options | {"length": int(argument) or None}
        elif name == "style":
            options = options | {"style": None if argument in ("", "none") else argument}
        elif name == "unknown":
            options = options | {"unknown": argument}
        elif name == "stop":
            options = options | {"stop": [] if argument in ("", "none") else [decode_escapes(argument)]}
        elif not argument:
            names = ", ".join(setting.name for setting in self.settings())
            raise UsageError(f"{name or 'nothing'}: expected a setting and its value, such as temperature 0.7; {names}")
        else:
            same_parameter = {name, name.replace("-", "_")}
            parameters = {key: text for key, text in options["parameters"].items() if key not in same_parameter}
            options = options | {"parameters": parameters | {name: argument}}
        self.tree.change_options(options)


def _escape(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
