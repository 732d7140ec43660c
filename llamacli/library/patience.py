"""How often and after how long a failed request is tried again."""

from __future__ import annotations

import email.utils
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from llamacli.errors import NetworkError
from llamacli.library.http import BadStatus, Unreachable

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be better next time; every other 4xx is final."""

NOTICED = 1.5
"""Seconds of waiting that are not passed over in silence."""

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """Exponential waits with full jitter, so that many clients do not come back in step."""

    attempts: int = 8
    """Failures in a row, without a byte of progress between them, after which we give up."""
    first: float = 0.5
    longest: float = 30.0
    obey: float = 300.0
    """The longest wait that a server may ask for; beyond that we stop and say so."""
    questions: int = 6
    """Failures of a short question after which we give up: nothing is lost then, and somebody waits for the answer."""
    told: Callable[[str], None] = lambda text: None
    """Hears why a question is asked again, before a wait that somebody would notice."""

    def wait(self, failures: int, headers: Mapping[str, str] | None = None) -> float:
        """Seconds to wait after the `failures`-th failure in a row. Raises NetworkError if the server asks too much."""
        asked = retry_after(headers or {})
        if asked is not None:
            if asked > self.obey:
                again = f"in {asked / 60:.0f} minutes" if asked < 7200 else f"in {asked / 3600:.0f} hours"
                raise NetworkError(f"the server asks us to come back {again}", "run the same command again then")
            return asked + random.uniform(0, min(1.0, self.first))
        return random.uniform(0.5, 1) * min(self.longest, self.first * 2.0 ** (failures - 1))

    def call(self, work: Callable[[], T]) -> T:
        """The result of `work`, tried until it succeeds, a final answer comes or patience ends.

        Raises BadStatus for a final answer and NetworkError when nothing helped.
        """
        for failures in range(1, self.questions + 1):
            headers: Mapping[str, str] = {}
            try:
                return work()
            except BadStatus as error:
                if error.status not in AGAIN:
                    raise
                reason, headers = str(error), error.headers
            except Unreachable as error:
                reason = str(error)
            if failures < self.questions:
                wait = self.wait(failures, headers)
                if wait >= NOTICED:
                    self.told(f"{reason}; trying again in {wait:.0f} s")
                time.sleep(wait)
        raise NetworkError(reason, f"tried {self.questions} times; check the network and run the same command again")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks us to wait: `Retry-After` in seconds or as a date, or the Hub's `RateLimit: ...;t=N`."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    if text and (date := _date(text)) is not None:
        return max(0.0, date - time.time())
    limit = re.search(r"r=0\b.*?;\s*t=(\d{1,9})", headers.get("ratelimit", ""))
    return float(limit[1]) if limit else None


def _date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        return None
