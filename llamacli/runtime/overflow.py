"""Input that is too long for the context: cut where the user said, or read in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from llamacli.errors import ContextOverflow

Where = Literal["head", "tail", "middle"]
Count = Callable[[str], int]
"""Tokens of the whole prompt with this text in it."""

_GAP = "\n[...]\n"


@dataclass(frozen=True)
class Cut:
    """A text that fits, and how many characters it and the original have."""

    text: str
    kept: int
    of: int


def cut(text: str, where: Where, count: Count, room: int) -> Cut:
    """The longest part of `text` with which the prompt has at most `room` tokens.

    `head` keeps the beginning, `tail` the end, `middle` both and leaves the middle out. Raises ContextOverflow if not
    even a few characters fit.
    """
    size = _longest(len(text), lambda length: count(part(text, where, length)) <= room)
    if size < min(len(text), 16):
        raise ContextOverflow("the instruction alone fills the context; there is no room for the input")
    return Cut(part(text, where, size), size, len(text))


def part(text: str, where: Where, length: int) -> str:
    """`length` characters of `text`, cut at a space where one is near."""
    if length >= len(text):
        return text
    if where == "head":
        return _to_space(text[:length])
    if where == "tail":
        return _to_space(text[len(text) - length :][::-1])[::-1]
    half = length // 2
    return part(text, "head", length - half) + _GAP + (part(text, "tail", half) if half else "")


def parts(text: str, count: Count, room: int) -> list[str]:
    """`text` in consecutive pieces with each of which the prompt has at most `room` tokens. Raises ContextOverflow."""
    out = []
    while text:
        piece = cut(text, "head", count, room).text
        out.append(piece)
        text = text[len(piece) :]
    return out


def _to_space(text: str) -> str:
    """Without a word's beginning at the end."""
    place = max(text.rfind(" "), text.rfind("\n"))
    return text[: place + 1] if place > len(text) - 40 and place > 0 else text


def _longest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest length up to `most` that fits; a longer text may be assumed to have more tokens."""
    if fits(most):
        return most
    low, high = 0, most
    while high - low > max(1, most // 2000):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
