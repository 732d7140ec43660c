"""SentencePiece's byte-pair pieces, for texts that the engine takes apart differently.

The engine looks for pieces that a user defined before it does anything else, puts a space in front of what follows them, and
does so after an unknown character too where there is no byte fallback; and it finds added tokens inside words.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from llamacli.formats.gguf_reader import GGUF
from llamacli.runtime.added_tokens import Bare, any_of, single_words
from llamacli.runtime.scored_pieces import pieces_of

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"

_NORMAL, _USER_DEFINED, _UNUSED, _BYTE = 1, 4, 5, 6

MOST_SOUGHT = 1000
"""Pieces that a text is searched for; where there are more, no text is left to the engine."""
_NEVER = -1e30
"""The converter gives a lower score to pieces that no merge makes."""
_PADDING = re.compile(r"\[PAD\d+\]_*")


class PiecePairs:
    """A vocabulary of scored pieces, of which two neighbours that make the best-scored one are joined, again and again."""

    def __init__(self, gguf: GGUF) -> None:
        self._gguf = gguf
        self._single_words = single_words(gguf)

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> PiecePairs | None:
        """That of a file that asks for it; None for others."""
        asked = gguf.get("tokenizer.llamacli.cut") == "pairs" and gguf.get("tokenizer.ggml.model") == "llama"
        return cls(gguf) if asked and type(gguf.get("tokenizer.ggml.unknown_token_id")) is int else None

    def ids(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        """Ids of ordinary text; `encode` is the engine's way."""
        odd = (self._single_words, self._frozen, self._strange, self._stray)
        if (
            isinstance(text, Bare)
            or self._unused
            or any(pattern is not None and pattern.search(text) for pattern in odd)
        ):
            return list(self._own_ids(text))
        return encode(text)

    def _own_ids(self, text: str) -> Iterator[int]:
        if not isinstance(text, Bare) and self._gguf.get("tokenizer.ggml.add_space_prefix", True) is True:
            text = f" {text}"
        unknown_before = False
        for piece in self._joined(text.replace(" ", SPACE)):
            place = self._places.get(piece)
            spelled = [self._bytes.get(byte, -1) for byte in piece.encode("utf-8", "replace")] if place is None else []
            if place is not None:
                yield place
            elif -1 not in spelled:
                yield from spelled
            elif not (unknown_before and self._fuses):
                yield self._unknown
            unknown_before = -1 in spelled

    def _joined(self, text: str) -> Iterator[str]:
        """The pieces of `text`: those that a user defined stay as they are."""
        parts = self._frozen.split(text) if self._frozen else [text]
        symbols = [symbol for turn, part in enumerate(parts) for symbol in ([part] if turn % 2 else part) if symbol]
        frozen = [
            bool(turn % 2) for turn, part in enumerate(parts) for symbol in ([part] if turn % 2 else part) if symbol
        ]
        after = [*range(1, len(symbols)), -1]
        before = [*range(-1, len(symbols) - 1)]
        parts_of: dict[str, tuple[str, str]] = {}
        queue: list[tuple[float, int, int, int]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right >= 0 and not frozen[left] and not frozen[right]:
                joined = symbols[left] + symbols[right]
                if joined in self._scores:
                    heapq.heappush(queue, (-self._scores[joined], left, right, len(joined)))
                    if joined in self._unused:
                        parts_of[joined] = (symbols[left], symbols[right])

        for right in range(1, len(symbols)):
            offer(right - 1, right)
        while queue:
            _, left, right, size = heapq.heappop(queue)
            if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != size:
                continue
            symbols[left] += symbols[right]
            symbols[right] = ""
            after[left] = after[right]
            if after[right] >= 0:
                before[after[right]] = left
            offer(before[left], left)
            offer(left, after[left])
        place = 0
        while symbols and place >= 0:
            yield from _taken_apart(symbols[place], parts_of)
            place = after[place]

    @cached_property
    def _columns(self) -> list[tuple[int, str, float, int]]:
        return pieces_of(self._gguf)

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {text: place for place, text, _, kind in self._columns if kind in (_NORMAL, _USER_DEFINED)}

    @cached_property
    def _unused(self) -> frozenset[str]:
        """Pieces that take part in joining and are taken apart in the end; the rows of padding are none."""
        return frozenset(text for _, text, _, kind in self._columns if kind == _UNUSED and not _PADDING.fullmatch(text))

    @cached_property
    def _scores(self) -> Mapping[str, float]:
        kinds = (_NORMAL, _USER_DEFINED)
        known = [row for row in self._columns if row[2] > _NEVER]
        return {text: score for _, text, score, kind in known if kind in kinds or text in self._unused}

    @cached_property
    def _stray(self) -> re.Pattern[str] | None:
        """Pieces that no merge makes; one that begins with a space may stand at the beginning of a text."""
        texts = [text.lstrip(SPACE).replace(SPACE, " ") for _, text, score, _ in self._columns if score <= _NEVER]
        if len(texts) > MOST_SOUGHT:
            return re.compile("")
        return any_of(texts) if texts else None

    @cached_property
    def _frozen(self) -> re.Pattern[str] | None:
        texts = [text for _, text, _, kind in self._columns if kind == _USER_DEFINED]
        return re.compile(f"({any_of(texts).pattern})") if texts else None

    @cached_property
    def _strange(self) -> re.Pattern[str] | None:
        """Characters without a piece, where there is no byte fallback either."""
        if len(self._bytes) == 256:
            return None
        letters = {text for text in self._places if len(text) == 1}
        return re.compile("[^ " + "".join(map(re.escape, sorted(letters))) + "]")

    @cached_property
    def _bytes(self) -> Mapping[int, int]:
        return {int(text[3:5], 16): place for place, text, _, kind in self._columns if kind == _BYTE}

    @property
    def _unknown(self) -> int:
        return int(self._gguf.get("tokenizer.ggml.unknown_token_id"))

    @property
    def _fuses(self) -> bool:
        return bool(self._gguf.get("tokenizer.llamacli.unknown") != "each")


def _taken_apart(piece: str, parts_of: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """A piece that is not in use as the pieces that it was joined of."""
    if piece in parts_of:
        for part in parts_of[piece]:
            yield from _taken_apart(part, parts_of)
    else:
        yield piece
