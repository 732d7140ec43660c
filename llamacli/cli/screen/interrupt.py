"""Ctrl-C while a model answers: the first stops the answer, the second does not wait for it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


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
