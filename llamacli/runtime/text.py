"""From the bytes of tokens to text that can be shown: whole characters, stop strings, reasoning kept apart."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Utf8Stream:
    """Bytes in any cuts to text in whole characters.

    Valid UTF-8 comes out as it went in, wherever it was cut; what can never become a character is U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting = False

    def feed(self, piece: str | bytes) -> str:
        """The characters that are complete with `piece`, which is text or any bytes."""
        if isinstance(piece, str):
            if not self._waiting:
                return piece
            piece = piece.encode()
        text = self._decoder.decode(piece)
        self._waiting = bool(self._decoder.getstate()[0])
        return text

    def finish(self) -> str:
        """What is left when no more bytes come: nothing, or one U+FFFD for a cut character."""
        self._waiting = False
        return self._decoder.decode(b"", final=True)


class StopStrings:
    """Watches a stream of text for strings that end it; these are not shown, nor is anything after them."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def __bool__(self) -> bool:
        return bool(self._stops)

    def feed(self, text: str) -> tuple[str, bool]:
        """Text that is certainly before a stop string, and whether one was met."""
        self._held += text
        places = [place for place in (self._held.find(stop) for stop in self._stops) if place >= 0]
        if places:
            out, self._held = self._held[: min(places)], ""
            return out, True
        keep = max((overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out, False

    def finish(self) -> str:
        """What was held back for a stop string that did not come."""
        out, self._held = self._held, ""
        return out


def overlap(text: str, word: str) -> int:
    """Length of the longest end of `text` that is a beginning of `word`, but not all of it."""
    for size in range(min(len(text), len(word) - 1), 0, -1):
        if text.endswith(word[:size]):
            return size
    return 0
