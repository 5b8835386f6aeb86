"""Filters: creates those that a command names, and checks what they answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gentext.components.creation import create_component
from gentext.config import build_config, config_class
from gentext.errors import ConfigError, GenError, PluginError, UsageError, exit_error, nearest, reason
from gentext.interfaces import Filter
from gentext.manager import host, is_strict


class CheckedFilter:
    """A filter whose errors and answers are checked, so that each mistake is one line that names it."""

    def __init__(self, name: str, texts_filter: Filter) -> None:
        if not callable(texts_filter):
            raise PluginError(
                f"the filter {name!r} is {type(texts_filter).__name__}; expected an object that is called with texts"
            )
        self.name = name
        """The name of the component."""
        self._filter = texts_filter

    def __call__(self, texts: Sequence[str]) -> list[bool]:
        """Return whether each of the texts may stay, in their order.

        Raises PluginError where the filter raises, and where its answers are not one boolean for each text.
        """
        texts = list(texts)
        with _name_errors(self.name, lambda: f"fails on {self._describe_cause(texts)}"):
            answers: object = self._filter(texts)
        return self._check_answers(answers, len(texts))

    def _check_answers(self, answers: object, count: int) -> list[bool]:
        """Return the answers of the filter to so many texts as a list."""
        if isinstance(answers, np.ndarray):
            answers = answers.tolist()
        if not isinstance(answers, list | tuple):
            raise PluginError(
                f"the filter {self.name!r} answers with {type(answers).__name__}; expected a list of booleans"
            )
        if len(answers) != count:
            raise PluginError(
                f"the filter {self.name!r} gives {len(answers)} answers to {count} texts; expected one for each text"
            )
        for answer in answers:
            if not isinstance(answer, bool | np.bool_):
                raise PluginError(f"the filter {self.name!r} answers {answer!r:.40}; expected True or False")
        return [bool(answer) for answer in answers]

    def _describe_cause(self, texts: Sequence[str]) -> str:
        """Return how a message names the first text that makes the filter raise an exception by itself."""
        for text in texts:
            try:
                self._filter([text])
            except KeyboardInterrupt:
                raise
            except BaseException:
                return f"the text {text!r:.80}"
        return f"{len(texts)} texts"


def create_filters(filters: Sequence[str | Filter], options: Mapping[str, Any]) -> list[CheckedFilter]:
    """Create registered filters by name, and check functions as they are.

    ``options`` has a table of options by the name of a filter, as ``--set filter.NAME.KEY=VALUE`` gives it. Raises
    UsageError for options of a filter that is not used, ConfigError for what is no table, and what `create_filter`
    raises.
    """
    names = [each for each in filters if isinstance(each, str)]
    for name, table in options.items():
        if not isinstance(table, Mapping):
            raise ConfigError(f"filter.{name} = {table!r}: expected options of the filter, as in filter.NAME.KEY=VALUE")
        if name not in names:
            raise UsageError(f"filter.{name}: there is no filter {name} to set options of.{nearest(str(name), names)}")
    return [
        create_filter(each, options.get(each, {}))
        if isinstance(each, str)
        else CheckedFilter(f"filters[{number}]", each)
        for number, each in enumerate(filters)
    ]


def create_filter(name: str, options: Mapping[str, Any]) -> CheckedFilter:
    """Create the registered filter of that name; ``options`` are those of its Config.

    Raises UnknownComponent, ConfigError for wrong options, and PluginError where the filter cannot be created.
    """
    registered = host().registry.find("filter", name)
    target = registered.load()
    config = build_config(config_class(target), options, f"filter.{name}")
    return CheckedFilter(name, create_component(registered, target, config))


@contextlib.contextmanager
def _name_errors(name: str, describe: Callable[[], str]) -> Iterator[None]:
    """Turn what a filter raises into one line that names it; Ctrl-C and errors that are meant for the user get through.

    ``describe`` returns what the filter did. With GEN_PLUGINS_STRICT=1 an exception stays as it is, for its author.
    """
    try:
        yield
    except (GenError, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise exit_error(f"the filter {name!r}", error) from error
    except BaseException as error:  # asyncio.CancelledError and others are no Exception
        if is_strict():
            raise
        problem = f"the filter {name!r} {describe()}: {reason(error)}"
        raise PluginError(f"{problem}; GEN_PLUGINS_STRICT=1 shows where") from error
