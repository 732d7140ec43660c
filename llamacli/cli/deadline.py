"""`--timeout`: a limit for all that a command does."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

from llamacli.errors import TimedOut, UsageError


class Deadline:
    """A time limit for everything from the start on."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.start = time.monotonic()
        self.passed = False

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return bool(self.limit) and time.monotonic() - self.start >= self.limit

    def timer(self, stop: Any) -> threading.Timer | None:
        """A running timer that calls `stop` when the time is up, or None without a limit."""
        if not self.limit:
            return None

        def fire() -> None:
            self.passed = True
            stop()

        left = max(0.0, self.limit - (time.monotonic() - self.start))
        timer = threading.Timer(min(left, threading.TIMEOUT_MAX), fire)
        timer.daemon = True
        timer.start()
        return timer

    def error(self) -> TimedOut:
        """The time is up."""
        return TimedOut(f"stopped after {self.limit:g} s (--timeout)")


def seconds(text: str) -> float:
    """A duration: 90, 60s, 1.5m, 2h; nothing is 0. Raises UsageError."""
    if not text:
        return 0.0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)", text.strip())
    if found is None or float(found[1]) <= 0:
        raise UsageError(f"--timeout {text}: a duration such as 90, 60s, 2m or 1h")
    return float(found[1]) * {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600}[found[2]]
