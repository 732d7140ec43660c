"""SentencePiece's compiled normalizer: a table of what is replaced by what, as a double array."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator


class Charsmap:
    """The table of one vocabulary."""

    def __init__(self, data: bytes) -> None:
        size = int.from_bytes(data[:4], "little")
        self._units = array("I", data[4 : 4 + size])
        if sys.byteorder == "big":
            self._units.byteswap()
        self._texts = data[4 + size :]

    def shortest(self, text: bytes) -> str | None:
        """What stands in for the shortest beginning of `text` that is in the table; None where none is."""
        return next((stands_in for _, stands_in in self._beginnings(text, 0)), None)

    def normalized(self, text: str) -> str:
        """`text` as SentencePiece has it: the longest match at every place is replaced."""
        data, out, start = text.encode("utf-8", "replace"), bytearray(), 0
        while start < len(data):
            *_, (end, stands_in) = [(start, ""), *self._beginnings(data, start)]
            if end == start:
                out.append(data[start])
                start += 1
            else:
                out += stands_in.encode()
                start = end
        return out.decode("utf-8", "replace")

    def _beginnings(self, text: bytes, start: int) -> Iterator[tuple[int, str]]:
        """Where each match that begins at `start` ends, and what stands in for it, the shortest first."""
        units = self._units
        place = _offset(units[0]) if units else 0
        for end in range(start, len(text)):
            place ^= text[end]
            if place >= len(units) or units[place] & 0x800000FF != text[end]:
                return
            unit = units[place]
            place ^= _offset(unit)
            if unit >> 8 & 1 and place < len(units):
                yield end + 1, self._text(units[place] & 0x7FFFFFFF)

    def _text(self, start: int) -> str:
        end = self._texts.find(b"\0", start)
        return self._texts[start : end if end >= 0 else None].decode("utf-8", "replace")


def _offset(unit: int) -> int:
    return unit >> 10 << ((unit & 0x200) >> 6)
