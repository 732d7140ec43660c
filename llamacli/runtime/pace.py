"""Computing only a part of the time, so that a laptop stays cool: a rest after each stretch of work, as long as it asks."""

from __future__ import annotations

import time
from collections.abc import Callable

_NAP = 0.05
"""Seconds after which it is asked again whether anybody still waits."""


class Pace:
    """Works `power` per cent of the time. `over` tells whether there is no reason to rest any more."""

    def __init__(self, power: int, over: Callable[[], bool]) -> None:
        self.resting = power < 100
        self._ratio = (100 - power) / power
        self._over = over

    def worked(self, seconds: float) -> None:
        """Rest after so much work."""
        left = seconds * self._ratio
        while left > 0 and not self._over():
            nap = min(left, _NAP)
            time.sleep(nap)
            left -= nap

    def of(self, advance: Callable[[int], int]) -> Callable[[int], int]:
        """`advance` with a rest after each call."""

        def paced(token: int) -> int:
            started = time.perf_counter()
            row = advance(token)
            self.worked(time.perf_counter() - started)
            return row

        return paced
