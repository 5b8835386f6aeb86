"""Completes the names of settings on the screen."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from prompt_toolkit.completion import CompleteEvent, Completion
from prompt_toolkit.document import Document

from gentext.cli.interactive.commands import Commands


class SettingCompleter:
    """Completes the names of settings, and shows their values and meanings. A `Completer`."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        """Yield the settings whose names begin with what was typed."""
        word = document.text_before_cursor
        for setting in self._commands.settings():
            if setting.name.startswith(word):
                yield Completion(
                    f"{setting.name} ",
                    -len(word),
                    display=f"{setting.name} {setting.text}",
                    display_meta=setting.meaning,
                )

    async def get_completions_async(self, document: Document, event: CompleteEvent) -> AsyncGenerator[Completion, None]:
        """Yield the same."""
        for completion in self.get_completions(document, event):
            yield completion
