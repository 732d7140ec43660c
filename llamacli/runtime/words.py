"""Text cut into words by a tokenizer's own expressions, for cuts that the engine makes differently.

Python's expressions know no categories of Unicode. So every character beyond ASCII is first replaced by one that stands
for its category, and the expressions run over that: the places are the same, and the expressions short and fast.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

from llamacli.formats.expressions import BLOOM, CUTS, DIGIT, DIGITS, GPT2, GPT2_BYTES, KNOWN_STEPS
from llamacli.runtime.older_unicode import is_punctuation

_KINDS = ("Lu", "Lt", "Ll", "Lm", "Lo", "M", "Nd", "Nl", "No", "Pc", "P", "S", "Z", "C")
_STANDS_FOR = {kind: chr(0x80 + place) for place, kind in enumerate(_KINDS)}
_SIGN, _LETTER_IN_CIRCLE, _LONG_S = "\x8e", "\x8f", "\x90"
"""Stand for punctuation of Unicode 8, where a cut asks for it, for symbols that count as letters of a word, and for the long s,
which is an s where case does not matter."""
_ASCII = {
    "Lu": "A-Z", "Ll": f"a-z{_LONG_S}", "Nd": "0-9", "P": r"!-#%-*,-/:;?@\[\\\]{}", "Pc": "_", "S": "$+<=>^`|~",
    "Z": r"\t-\r ",
}  # fmt: skip
_ODD = {"\u0295": "Ll", **dict.fromkeys("²³¹¼½¾", "Nl")}
"""Characters that the library of expressions behind most tokenizers takes for something else than Unicode does."""
_WHITE_SPACE = "\\t-\\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


def _members(*kinds: str) -> str:
    return "".join(_ASCII.get(kind, "") + _STANDS_FOR[kind] for kind in kinds)


_CLASSES = {
    r"\p{L}": _members("Lu", "Lt", "Ll", "Lm", "Lo"),
    r"\p{Lu}": _members("Lu"),
    r"\p{Lt}": _members("Lt"),
    r"\p{Ll}": _members("Ll"),
    r"\p{Lm}": _members("Lm"),
    r"\p{Lo}": _members("Lo"),
    r"\p{M}": _members("M"),
    r"\p{N}": _members("Nd", "Nl", "No"),
    r"\p{P}": _members("Pc", "P"),
    r"\p{S}": _members("S") + _LETTER_IN_CIRCLE,
    r"\d": _members("Nd"),
    r"\w": _members("Lu", "Lt", "Ll", "Lm", "Lo", "M", "Nd", "Nl", "Pc") + _LETTER_IN_CIRCLE,
    r"\s": _members("Z"),
}
_CLASS = re.compile(r"\\(?:p\{\w+\}|[dws])")


class _StandIns(dict[int, str]):
    """What stands for each character, found when one is first met."""

    def __init__(self, signs: bool) -> None:
        super().__init__()
        self._signs = signs

    def __missing__(self, point: int) -> str:
        self[point] = found = chr(point) if point < 0x80 else self._stand_in(chr(point), point)
        return found

    def _stand_in(self, character: str, point: int) -> str:
        if self._signs and is_punctuation(character):
            return _SIGN
        if character.isspace():
            return _STANDS_FOR["Z"]
        if 0x24B6 <= point <= 0x24E9 or (0x1F130 <= point <= 0x1F189 and unicodedata.category(character) == "So"):
            return _LETTER_IN_CIRCLE
        if character == "ſ":
            return _LONG_S
        kind = _ODD.get(character) or unicodedata.category(character)
        return _STANDS_FOR.get(kind) or _STANDS_FOR.get(kind[0]) or _STANDS_FOR["C"]


def translated(expression: str) -> str:
    """An expression over categories as one over what stands for them."""
    # A boundary is only ever asked for after a digit, and "no white space" only in front of something.
    expression = expression.replace(r"\b", r"(?!\w)").replace(r"\S", r"[^\s]").replace("(?i:'s|", f"(?i:'s|'{_LONG_S}|")
    out, inside = "", False
    for part in re.split(r"(\\(?:p\{\w+\}|.)|[\[\]])", expression):
        if part in "[]" and part:
            inside = part == "["
        if part in _CLASSES:
            part = _CLASSES[part] if inside else f"[{_CLASSES[part]}]"
        out += part
    return out


class Words:
    """A cut by steps as those of CUTS."""

    def __init__(self, steps: Sequence[str]) -> None:
        self._stand_ins = _StandIns(signs=any(step.startswith("punctuation:") for step in steps))
        self._steps = [_step(step) for step in steps]

    def __call__(self, text: str) -> Iterator[str]:
        """The words of `text`, one after the other, nothing left out."""
        kinds = text if text.isascii() else text.translate(self._stand_ins)
        ends = [len(text)]
        for finds, expression, joins in self._steps:
            ends = list(_ends(expression, kinds if finds else text, ends, joins))
        start = 0
        for end in ends:
            yield text[start:end]
            start = end


def _step(step: str) -> tuple[bool, re.Pattern[str], bool]:
    """Whether a step looks at categories instead of characters, its expression, and whether matches join what follows."""
    named = {
        DIGIT: r"\p{N}",
        DIGITS: "[0-9]+",  # in every known cut it comes after the byte alphabet, in which only these are digits
        GPT2_BYTES: GPT2,
        BLOOM: BLOOM.replace("|[", "|").replace("])", ")").replace(r"\s", _WHITE_SPACE),  # a class in a class
        "punctuation:Contiguous": rf"[!-/:-@\[-`{{-~{_SIGN}]+",
    }
    joins = step.startswith("next:")
    expression = named.get(step, step).removeprefix("next:")
    # Without effect in any known cut, and Python 3.10 does not know them.
    expression = re.sub(r"(?<=[?*+])\+", "", expression)
    if all(character < "\x80" or character == _SIGN for character in expression):
        return True, re.compile(translated(expression)), joins
    return False, re.compile(expression.replace(r"\s", f"[{_WHITE_SPACE}]")), joins


def _ends(expression: re.Pattern[str], text: str, ends: list[int], joins: bool) -> Iterator[int]:
    """Where the parts end that begin after one another and end at `ends`, once they are cut at the matches."""
    start = 0
    for end in ends:
        place = start
        for match in expression.finditer(text, start, end):
            if match.start() > place:
                yield match.start()
            place = match.start()
            if not joins and match.end() > place:
                yield match.end()
                place = match.end()
        if place < end:
            yield end
        start = end


def words_of(name: object) -> Callable[[str], Iterator[str]] | None:
    """The cut of that name; None for none, or one that a newer version knows."""
    return Words(CUTS[name]) if isinstance(name, str) and name in CUTS else None


def words_by(steps: object) -> Callable[[str], Iterator[str]] | None:
    """The cut that a file describes by its steps; None for none, or one that a newer version knows."""
    known = isinstance(steps, Sequence) and bool(steps) and all(step in KNOWN_STEPS for step in steps)
    return Words(list(steps)) if isinstance(steps, Sequence) and known else None
