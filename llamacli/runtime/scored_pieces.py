"""A unigram vocabulary: pieces with scores, and of all ways to cut a text into pieces the one with the highest sum."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from llamacli.formats.gguf_reader import GGUF

UNKNOWN_PENALTY = 10.0
"""How much worse than the worst piece an unknown character is."""
USER_DEFINED_BONUS = 0.1
"""What SentencePiece gives a piece that a user defined, for each byte after the first."""

NORMAL, USER_DEFINED, BYTE = 1, 4, 6
"""Of the numbers that `tokenizer.ggml.token_type` gives."""
_BYTE = re.compile("<0x([0-9A-F]{2})>")


def pieces_of(gguf: GGUF) -> list[tuple[int, str, float, int]]:
    """Id, text, score and type of all tokens but those that are none of the model's: they were added, and are found before."""
    added = {*gguf.get("tokenizer.llamacli.found", ()), *gguf.get("tokenizer.llamacli.found_behind_space", ())}
    columns = [gguf.get(f"tokenizer.ggml.{name}", ()) for name in ("tokens", "scores", "token_type")]
    given = gguf.get("tokenizer.llamacli.scores", ())
    exact = [score for score in given if type(score) is float]
    columns[1] = [*exact, *columns[1][len(exact) :]]
    lowest = min(columns[1], default=0.0)  # which those have that came later
    rows = zip(*columns, strict=False)
    return [
        (place, text, score, NORMAL if place in added else kind)
        for place, (text, score, kind) in enumerate(rows)
        if place not in added or score > lowest or len(text) == 1
    ]


class ScoredPieces:
    """The pieces of one file.

    `single`: sums are kept in single precision, as SentencePiece keeps them (0.2.3; earlier versions compare before they
    round), which decides between ways that are equally good, such as `.` and `...` or `...` and `.`.
    """

    def __init__(self, gguf: GGUF, *, single: bool) -> None:
        self._gguf = gguf
        self._single = single

    def best(self, text: str) -> list[int]:
        """Ids of the pieces with the highest sum of scores; of equal ones those that were found first."""
        sums: array[float] = array("f" if self._single else "d", [float("-inf")]) * (len(text) + 1)
        sums[0] = 0.0
        challenger = array(sums.typecode, [0.0])  # rounds as the sums are rounded
        ways: list[tuple[int, int]] = [(0, 0)] * (len(text) + 1)
        pieces, reach, worst = self._pieces, self._reach, self._worst
        for start in range(len(text)):
            alone, so_far = False, sums[start]
            for end in range(start + 1, min(start + reach.get(text[start : start + 2], 1), len(text)) + 1):
                piece = pieces.get(text[start:end])
                if piece is None:
                    continue
                alone = alone or end == start + 1
                challenger[0] = so_far + piece[1]
                if challenger[0] > sums[end]:
                    sums[end], ways[end] = challenger[0], (start, piece[0])
            if not alone:
                challenger[0] = so_far + worst
                if challenger[0] > sums[start + 1]:
                    sums[start + 1], ways[start + 1] = challenger[0], (start, self.unknown)
        return list(self._path(text, ways))

    def _path(self, text: str, ways: Sequence[tuple[int, int]]) -> Iterator[int]:
        taken: list[tuple[int, int]] = []
        end = len(text)
        while end:
            start, token = ways[end]
            taken.append((start, token))
            end = start
        former = -1
        for start, token in reversed(taken):
            if token == self.unknown and self._bytes:
                yield from map(self._bytes.__getitem__, text[start].encode("utf-8", "replace"))
            elif token != self.unknown or former != token:  # what is unknown in a row is one token
                yield token
            former = token

    @cached_property
    def _columns(self) -> list[tuple[int, str, float, int]]:
        """Id, text, score and type of all tokens but those that were added to the tokenizer, which are found before."""
        return pieces_of(self._gguf)

    @cached_property
    def user_defined(self) -> Mapping[str, int]:
        """Pieces that a user defined."""
        return {text: place for place, text, _, kind in self._columns if kind == USER_DEFINED}

    @cached_property
    def _pieces(self) -> Mapping[str, tuple[int, float]]:
        """Id and score by text."""
        rounded = _in_single_precision if self._single else float
        pieces = {text: (place, score) for place, text, score, kind in self._columns if kind in self._kinds}
        if self._single:
            for text, place in self.user_defined.items():
                pieces[text] = (place, rounded(USER_DEFINED_BONUS * (len(text.encode()) - 1)))
        return pieces

    @property
    def _kinds(self) -> tuple[int, ...]:
        return (NORMAL,) if self._single else (NORMAL, USER_DEFINED, BYTE)

    @cached_property
    def _reach(self) -> Mapping[str, int]:
        """Length of the longest piece that begins with one or two characters."""
        reach: dict[str, int] = {}
        for text in self._pieces:
            for beginning in {text[:1], text[:2]}:
                reach[beginning] = max(reach.get(beginning, 0), len(text))
        return reach

    @cached_property
    def _worst(self) -> float:
        scores = (score for _, _, score, kind in self._columns if kind in self._kinds)
        worst = min(scores, default=0.0) - UNKNOWN_PENALTY
        return _in_single_precision(worst) if self._single else worst

    @cached_property
    def _bytes(self) -> Mapping[int, int]:
        """Ids of the bytes, where all of them have one: no character is unknown then."""
        found = {}
        for place, text, _, kind in self._columns:
            if kind == BYTE and (match := _BYTE.fullmatch(text)):
                found[int(match[1], 16)] = place
        return found if len(found) == 256 else {}

    @property
    def unknown(self) -> int:
        """The token that stands for what no piece spells."""
        return int(self._gguf.get("tokenizer.ggml.unknown_token_id"))


def _in_single_precision(value: float) -> float:
    return array("f", [value])[0]
