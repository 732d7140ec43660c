"""Sets of byte ranges: which parts of a file are here."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator


class Ranges:
    """Disjoint half-open ranges [start, stop) in ascending order; touching ones are joined."""

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in pairs:
            self.add(start, stop)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._stops, strict=True)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def total(self) -> int:
        """Bytes in all ranges."""
        return sum(self._stops) - sum(self._starts)

    @property
    def prefix(self) -> int:
        """How far the file is here without a gap from its first byte on."""
        return self._stops[0] if self._starts and self._starts[0] == 0 else 0

    @property
    def end(self) -> int:
        """One past the last byte of the last range."""
        return self._stops[-1] if self._stops else 0

    def add(self, start: int, stop: int) -> None:
        """Join [start, stop) in."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)
        last = first
        while last < len(self._starts) and self._starts[last] <= stop:
            start, stop = min(start, self._starts[last]), max(stop, self._stops[last])
            last += 1
        self._starts[first:last], self._stops[first:last] = [start], [stop]

    def gaps(self, size: int) -> Iterator[tuple[int, int]]:
        """What is missing from a file of `size` bytes, in order."""
        at = 0
        for start, stop in self:
            if at < start:
                yield at, min(start, size)
            at = max(at, stop)
        if at < size:
            yield at, size
