"""Ctrl-C and its like while native code runs: held back, seen by callbacks, delivered when Python goes on.

Python runs a signal's handler at the next line of Python in the main thread. While the engine computes that line is in a
callback, and what a handler raises there is lost: C has nobody to hand it to. So for as long as native code runs a
handler that only takes a note stands in for the real one, which gets the signal when the block ends.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))


class Held:
    """Signals held back as long as the block runs; true as soon as one has come. Blocks may be nested.

    Outside the main thread, where no handler runs, it does nothing.
    """

    def __init__(self) -> None:
        self._came: list[int] = []
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._came)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came.append(number)

    def __enter__(self) -> Held:
        if threading.current_thread() is threading.main_thread():
            try:
                for number in _SIGNALS:
                    handler = signal.getsignal(number)
                    if callable(handler):  # neither ignored, nor left to the system, nor set by C
                        self._before[number] = handler
                        signal.signal(number, self._note)
            except BaseException:
                self._restore()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        for number in self._came:
            self._before[number](number, None)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
