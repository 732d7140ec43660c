"""The keyboard while a model answers: Ctrl-C stops it, and what is typed does not run into the answer."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TextIO


class Presses:
    """How often Ctrl-C was pressed."""

    count = 0


@contextlib.contextmanager
def stop_on_interrupt(stop: Callable[[], None]) -> Iterator[Presses]:
    """Within this block Ctrl-C calls `stop`; pressed again it raises KeyboardInterrupt."""
    presses = Presses()
    if threading.current_thread() is not threading.main_thread():
        yield presses
        return

    def pressed(signum: int, frame: FrameType | None) -> None:
        presses.count += 1
        if presses.count > 1:
            raise KeyboardInterrupt
        stop()

    before = signal.signal(signal.SIGINT, pressed)
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def unseen_typing(stdin: TextIO) -> Iterator[None]:
    """Within this block a terminal does not echo; what is typed is there for the next prompt. Elsewhere nothing."""
    try:
        import termios
    except ImportError:  # Windows echoes only while a line is read
        yield
        return
    try:
        handle = stdin.fileno()
        before = termios.tcgetattr(handle)
    except (OSError, ValueError, termios.error):
        yield
        return
    quiet = [*before]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(handle, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
