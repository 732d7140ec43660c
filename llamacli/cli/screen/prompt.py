"""What the user says, typed on a terminal that can edit: history, search, completion, paste, an editor.

The only file that imports prompt_toolkit; a chat that is piped or plain never does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition, is_searching
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import create_input
from prompt_toolkit.input.ansi_escape_sequences import ANSI_SEQUENCES
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import ColorDepth, create_output

from llamacli.cli.context import Context
from llamacli.cli.screen.look import Look
from llamacli.cli.screen.reader import opens_block, without_quotes

Complete = Callable[[str], Iterable[tuple[str, int]]]
"""From the text before the cursor to candidates: the text to insert, and how many typed characters it replaces."""

_SHIFT_ENTER = "\x1b[13;2u"
"""What terminals that tell keys apart (CSI u) send for Shift-Enter."""


class PromptReader:
    """Reads messages with an editable prompt on stderr, so that stdout holds answers only."""

    def __init__(self, context: Context, look: Look, complete: Complete, history: Path | None) -> None:
        self._look = look
        colored = context.console.colored(context.console.err)
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            history=_history(history),
            completer=_Completer(complete),
            complete_while_typing=False,
            key_bindings=_keys(),
            prompt_continuation=lambda width, line, wrapped: " " * width,
            color_depth=None if colored else ColorDepth.DEPTH_1_BIT,
            input=create_input(context.stdin),
            output=create_output(stdout=context.console.err),
            tempfile_suffix=".md",
            reserve_space_for_menu=4,
        )

    def read(self, default: str = "") -> str:
        """The next message. Raises EOFError for Ctrl-D and KeyboardInterrupt for Ctrl-C, both on an empty line."""
        return without_quotes(self._session.prompt(self._look.pick("› ", "> "), default=default))

    def confirm(self, question: str) -> bool:
        """One line that must begin with y; it does not enter the history."""
        session: PromptSession[str] = PromptSession(input=self._session.input, output=self._session.output)
        try:
            return session.prompt(f"{question} [y/N] ").strip().lower() in ("y", "yes")
        except (EOFError, KeyboardInterrupt):
            return False


class _Completer(Completer):
    def __init__(self, complete: Complete) -> None:
        self._complete = complete

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        for text, replaced in self._complete(document.text_before_cursor):
            yield Completion(text, start_position=-replaced)


def _history(path: Path | None) -> History:
    """The messages of earlier chats, readable by their owner only; without a file, of this one."""
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)


def _keys() -> KeyBindings:
    ANSI_SEQUENCES.setdefault(_SHIFT_ENTER, Keys.ControlJ)
    keys = KeyBindings()
    empty = Condition(lambda: _buffer_is_empty())

    @keys.add("enter", filter=~is_searching)
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # Enter takes the completion; a second one sends
        elif opens_block(buffer.text):
            buffer.insert_text("\n")
        elif buffer.text.strip():
            buffer.validate_and_handle()

    @keys.add(Keys.Vt100MouseEvent)
    @keys.add(Keys.WindowsMouseEvent)
    def no_mouse(event: KeyPressEvent) -> None:
        """Escape sequences within pasted text may look like a mouse, which nobody asked for."""

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c", filter=~is_searching)
    def clear(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.text:
            buffer.history_forward(len(buffer.history.get_strings()))
            buffer.text = ""  # not reset(), which would forget the history until it is read again
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    @keys.add("c-g")
    def editor(event: KeyPressEvent) -> None:
        if sys.platform == "win32" and not (os.environ.get("VISUAL") or os.environ.get("EDITOR")):
            os.environ["EDITOR"] = "notepad"  # the toolkit knows only the editors of other systems
        event.current_buffer.open_in_editor(validate_and_handle=False)

    @keys.add("escape", "escape", filter=empty)
    def undo(event: KeyPressEvent) -> None:
        event.app.exit(result="/undo")

    return keys


def _buffer_is_empty() -> bool:
    from prompt_toolkit.application import get_app

    app: Any = get_app()
    return not app.current_buffer.text
