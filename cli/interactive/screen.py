"""A text in turns on a whole terminal, by prompt_toolkit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, cast

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import Completer
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import Layout
from prompt_toolkit.layout.containers import ConditionalContainer, Float, FloatContainer, HSplit, VSplit, Window
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
from prompt_toolkit.layout.menus import CompletionsMenu
from prompt_toolkit.layout.processors import BeforeInput, TabsProcessor
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.styles import Style

from gentext.cli.interactive.commands import FINISH_REMARKS, Commands
from gentext.cli.interactive.completer import SettingCompleter
from gentext.cli.interactive.surprise import SURPRISE_STYLES, SurpriseLexer
from gentext.console import show_controls
from gentext.errors import GenError, text_of

#: Keys and what they do, in the words for a wide terminal, and in those for one of 80 columns.
HELP = [
    ("Tab", "go on"),
    ("S-Tab", "other seed"),
    ("^C", "stop"),
    ("^Z ^Y", "undo, redo"),
    ("^P ^N", "branches"),
    ("^O", "options"),
    ("^S", "save"),
    ("^D", "end"),
]
SHORT_HELP = [
    *(("Tab", "go on"), ("S-Tab", "other"), ("^C", "stop"), ("^Z", "undo")),
    *(("^N", "branch"), ("^O", "set"), ("^S", "save"), ("^D", "end")),
]
WIDE_COLUMNS = 100
#: The middle colours of the palette Solarized, which can be read on black and on white.
STYLE = {
    **SURPRISE_STYLES,
    "typed": "bold",
    "status": "reverse",
    "help.key": "bold",
    "error": "#dc322f bold",
    "message": "#268bd2",
}
#: Seconds between two pieces on the screen, so that a fast model can be watched.
FRAME_SECONDS = 0.02


def run_screen(commands: Commands, prime: str) -> None:
    """Show the text and obey keys until the user ends; then print the text, so that it stays on the terminal."""
    screen = Screen(commands, prime)
    screen.application.run()
    if screen.text:
        print(screen.text)


class Screen:
    """The text in a buffer, whose cursor is where the model goes on, and lines below it."""

    def __init__(self, commands: Commands, prime: str) -> None:
        self._commands, self._tree = commands, commands.tree
        self._message: tuple[str, str] = ("", "")
        """The class of a style and a line to show."""
        self._is_writing = self._must_stop = False
        self._next_actions: list[Callable[[], None]] = []
        """What keys ask for that were pressed while the model wrote, which stops it."""
        is_writing = Condition(lambda: self._is_writing)
        self._buffer = Buffer(
            document=Document(prime, len(prime)),
            multiline=True,
            read_only=is_writing,
            on_text_changed=self._clear_message,
        )
        self._prompt = Buffer(
            multiline=False, completer=cast(Completer, SettingCompleter(commands)), complete_while_typing=True
        )
        lexer = SurpriseLexer(commands.tree)
        self._control = BufferControl(
            self._buffer, lexer=cast(Lexer, lexer), input_processors=[TabsProcessor()], focus_on_click=True
        )
        self._prompt_control = BufferControl(self._prompt, input_processors=[BeforeInput(":", style="class:help.key")])
        self.application: Application[None] = Application(
            layout=self._make_layout(),
            key_bindings=self._bind_keys(is_writing),
            style=Style.from_dict(STYLE),
            full_screen=True,
            enable_page_navigation_bindings=True,
        )

    @property
    def text(self) -> str:
        return self._buffer.text

    def _make_layout(self) -> Layout:
        is_asking = Condition(lambda: self.application.layout.has_focus(self._prompt))
        is_odd = Condition(lambda: self.application.output.get_size().columns % 2 == 1)
        status = VSplit(
            [
                Window(FormattedTextControl(self._format_settings), height=1, style="class:status"),
                Window(
                    FormattedTextControl(self._format_place), height=1, style="class:status", dont_extend_width=True
                ),
            ]
        )
        lines = HSplit(
            [
                # prompt_toolkit takes it that each row is full. Characters of two columns fill an even number of them.
                VSplit([Window(self._control, wrap_lines=True), ConditionalContainer(Window(width=1), is_odd)]),
                status,
                ConditionalContainer(Window(self._prompt_control, height=1), is_asking),
                ConditionalContainer(
                    Window(FormattedTextControl(self._format_help), wrap_lines=True, dont_extend_height=True),
                    ~is_asking,
                ),
            ]
        )
        menu = Float(CompletionsMenu(max_height=12), xcursor=True, ycursor=True)
        return Layout(FloatContainer(lines, [menu]), focused_element=self._control)

    # -- lines below the text ----------------------------------------------------------------------

    def _format_settings(self) -> StyleAndTextTuples:
        return [("", f" {show_controls(self._commands.describe_settings())}")]

    def _format_place(self) -> StyleAndTextTuples:
        cursor, text = self._buffer.cursor_position, self.text
        branch = None if self._is_writing else self._tree.describe_branch(text, cursor)
        parts = ["writing"] if self._is_writing else []
        parts += [] if branch is None else [f"branch {branch[0]} of {branch[1]}"]
        parts.append(f"{cursor:,} of {len(text):,}" if cursor < len(text) else f"{len(text):,} characters")
        return [("", f"  {'  '.join(parts)} ")]

    def _format_help(self) -> StyleAndTextTuples:
        if self._message[1]:
            return [(f"class:{self._message[0]}", f" {self._message[1]}")]
        is_wide = self.application.output.get_size().columns >= WIDE_COLUMNS
        return [
            fragment
            for keys, meaning in (HELP if is_wide else SHORT_HELP)
            for fragment in (("class:help.key", f" {keys}"), ("class:help", f" {meaning} "))
        ]

    def _show(self, message: str, style: str = "message") -> None:
        self._message = (style, show_controls(message.replace("\n", " ")))

    def _clear_message(self, _: object = None) -> None:
        self._message = ("", "")

    # -- keys --------------------------------------------------------------------------------------

    def _bind_keys(self, is_writing: Condition) -> KeyBindings:
        bindings = KeyBindings()
        is_text = Condition(lambda: self.application.layout.has_focus(self._control))
        is_asking = Condition(lambda: self.application.layout.has_focus(self._prompt))

        def bind(key: str, action: Callable[[], None], when: Any = is_text) -> None:
            def handle(event: KeyPressEvent) -> None:
                self._clear_message()
                if self._is_writing:
                    self._stop_for(action)
                else:
                    action()

            bindings.add(key, filter=when)(handle)

        bind("tab", lambda: self._start(self._text_before_cursor()), is_text & ~is_writing)
        bindings.add("tab", filter=is_writing)(lambda event: None)
        bind("s-tab", self._write_again)
        bind("c-z", self._buffer.undo)
        bind("c-y", self._buffer.redo)
        bind("c-p", lambda: self._change_branch(-1))
        bind("c-n", lambda: self._change_branch(1))
        bind("c-o", lambda: self._ask(""))
        bind("c-s", lambda: self._ask(f"save {self._commands.saved_path or ''}"))
        bind("c-d", self._end)
        for key in ("c-c", "<sigint>"):
            bind(key, lambda: self._show("stopped; ^D ends, and the text is printed then"))
            bind(key, self._leave_prompt, is_asking)
        bind("escape", self._leave_prompt, is_asking)
        bind("enter", self._answer, is_asking)

        def type_ahead(event: KeyPressEvent) -> None:
            if event.data.isprintable() or event.key_sequence[0].key == Keys.BracketedPaste:
                text = event.data.replace("\r\n", "\n").replace("\r", "\n")
                self._stop_for(lambda: self.application.current_buffer.insert_text(text))

        for key in (Keys.Any, Keys.BracketedPaste):
            bindings.add(key, filter=is_writing)(type_ahead)
        return bindings

    def _end(self) -> None:
        self.application.exit()

    def _text_before_cursor(self) -> str:
        return self.text[: self._buffer.cursor_position]

    def _write_again(self) -> None:
        text = self._text_before_cursor()
        self._start(text[: self._tree.last_begin(text)])

    def _change_branch(self, step: int) -> None:
        cursor = self._buffer.cursor_position
        branch = self._tree.describe_branch(self.text, cursor)
        if branch is None:
            self._show("no branch before the cursor; move it to a place and press Tab, or Shift-Tab")
            return
        self._buffer.save_to_undo_stack()
        self._buffer.document = Document(self._tree.branch(self.text, cursor, step), branch[2])
        self._buffer.cursor_position = len(self.text)

    def _ask(self, beginning: str) -> None:
        self._prompt.document = Document(beginning, len(beginning))
        self.application.layout.focus(self._prompt)
        if not beginning:
            self._prompt.start_completion(select_first=False)

    def _leave_prompt(self) -> None:
        self.application.layout.focus(self._control)

    def _answer(self) -> None:
        line = self._prompt.text
        self._leave_prompt()
        if not line.strip():
            return
        try:
            self._show(self._commands.run(line, self.text))
        except GenError as error:
            self._show(text_of(error), "error")

    # -- writing -----------------------------------------------------------------------------------

    def _start(self, text: str) -> None:
        """Have the model go on behind a text, in the background."""
        self._buffer.save_to_undo_stack()
        self._buffer.document = Document(text, len(text))
        self._is_writing, self._must_stop = True, False
        self.application.create_background_task(self._write(text))

    def _stop_for(self, action: Callable[[], None]) -> None:
        self._next_actions.append(action)
        self._must_stop = True

    async def _write(self, text: str) -> None:
        pieces = self._tree.write(text)
        loop = asyncio.get_running_loop()
        try:
            while not self._must_stop:
                piece = await loop.run_in_executor(None, _next_piece, pieces)
                if piece is None:
                    break
                if piece:
                    text += piece
                    self._buffer.set_document(Document(text, len(text)), bypass_readonly=True)
                    self.application.invalidate()
                    await asyncio.sleep(FRAME_SECONDS)
            if remark := FINISH_REMARKS.get(self._tree.finish):
                self._show(remark)
        except GenError as error:
            self._show(text_of(error), "error")
        finally:
            pieces.close()
            self._is_writing = False
        actions, self._next_actions = self._next_actions, []
        for action in actions:
            action()
        self.application.invalidate()


def _next_piece(pieces: Generator[str, None, None]) -> str | None:
    """Return the next piece, None at the end: a future cannot carry StopIteration."""
    return next(pieces, None)
