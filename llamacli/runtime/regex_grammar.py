"""Regular expressions as GBNF: the part that says which texts there are.

Literals, sets, groups, alternatives and repetitions, `^` and `$` at the ends, the classes of one letter in ASCII. What
looks around, refers back or sets flags is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from llamacli.errors import UsageError
from llamacli.runtime.gbnf import LAST, Ranges, characters, either, inverse, literal, repeated, union, without

_DIGITS: Ranges = [(0x30, 0x39)]
_WORD: Ranges = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACE: Ranges = [(0x09, 0x0D), (0x20, 0x20)]
_CLASSES = {
    "d": _DIGITS, "w": _WORD, "s": _SPACE, "D": inverse(_DIGITS), "W": inverse(_WORD), "S": inverse(_SPACE),
}  # fmt: skip
_CONTROLS = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11, "a": 7}
_REFUSED = {
    "(?=": "lookahead", "(?!": "lookahead", "(?<=": "lookbehind", "(?<!": "lookbehind", "(?P=": "a reference back",
    "(?(": "a condition", "(?>": "an atomic group",
}  # fmt: skip
MAX_DEPTH = 100


def regex_grammar(expression: str) -> str:
    """A grammar whose texts match all of `expression`. Raises UsageError."""
    return "root ::= " + regex_rule(expression, plain_characters, "--regex")


def regex_rule(
    expression: str, write: Callable[[Ranges], str], where: str, lengths: tuple[int, int | None] = (0, None)
) -> str:
    """The right side of a rule; `write` says how one character of a set is written in the text at hand.

    `lengths` are the least and the most characters of a text. They count where they can be put into the repetition of
    the one part that has a choice, as in `[a-z][a-z0-9]*`; elsewhere they are left to the check of the finished answer.
    """
    try:
        re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"{where} {expression!r} is no regular expression: {error}") from None
    return _Reader(expression, write, where, lengths).read()


def plain_characters(ranges: Ranges) -> str:
    """Characters of a text that stands for itself."""
    return characters(ranges)


def json_characters(ranges: Ranges) -> str:
    """Characters within a JSON string, where some are written with a backslash."""
    escapes = {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x09: "\\t", 0x0D: "\\r", 0x0C: "\\f", 0x08: "\\b"}
    plain = without(ranges, [(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C)])
    inside = [literal(text) for code, text in escapes.items() if any(low <= code <= high for low, high in ranges)]
    return either(([characters(plain)] if plain or not inside else []) + inside)


_BEGINS = ("^", "\\A")
_ENDS = ("$", "\\Z")


@dataclass
class _Part:
    """An item and how often it comes; `single`: it is always one character."""

    item: str
    low: int
    high: int | None
    single: bool

    def __str__(self) -> str:
        return repeated(self.item, self.low, self.high) if (self.low, self.high) != (1, 1) else self.item


@dataclass
class _Reader:
    text: str
    write: Callable[[Ranges], str]
    where: str
    lengths: tuple[int, int | None] = (0, None)
    at: int = 0
    depth: int = 0

    def read(self) -> str:
        out = self._alternatives()
        if self.at < len(self.text):
            raise self._refused("`)` without `(`")
        return out

    def _alternatives(self) -> str:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._refused(f"more than {MAX_DEPTH} groups in each other")
        options = [self._sequence()]
        while self.text.startswith("|", self.at):
            self.at += 1
            options.append(self._sequence())
        self.depth -= 1
        return " | ".join(options)

    def _sequence(self) -> str:
        outermost = self.depth == 1
        if outermost:  # the marks of the ends, which every answer has anyway
            self._skip(_BEGINS)
        parts = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            if outermost and self._skip(_ENDS, last=True):
                break
            single = self.text[self.at] != "("
            item = self._item()
            parts.append(_Part(item, *self._times(), single))
        if outermost and not self._fit(parts):
            return "[b-a]"
        return " ".join(map(str, parts)) or '""'

    def _skip(self, marks: tuple[str, ...], *, last: bool = False) -> bool:
        """Go past one of `marks`; `last`: only where nothing but another alternative follows."""
        found = next((mark for mark in marks if self.text.startswith(mark, self.at)), "")
        rest = self.text[self.at + len(found) :]
        if not found or (last and rest and rest[0] != "|"):
            return False
        self.at += len(found)
        return True

    def _fit(self, parts: list[_Part]) -> bool:
        """Put the lengths into the one part that has a choice, if there is one; False if no text is left."""
        least, most = self.lengths
        free = [part for part in parts if part.low != part.high]
        if len(free) != 1 or not all(part.single for part in parts):
            return True
        part, fixed = free[0], sum(part.low for part in parts if part is not free[0])
        part.low = max(part.low, least - fixed)
        if most is not None:
            part.high = most - fixed if part.high is None else min(part.high, most - fixed)
        return part.high is None or 0 <= part.low <= part.high

    def _item(self) -> str:
        char = self.text[self.at]
        if char == "(":
            return self._group()
        if char == "[":
            return self.write(self._set())
        self.at += 1
        if char == ".":
            return self.write(inverse([(10, 10)]))
        if char == "\\":
            return self.write(self._escape(inside=False))
        if char in "^$":
            raise self._refused(f"{char} in the middle")
        return self.write([(ord(char), ord(char))])

    def _group(self) -> str:
        for start, name in _REFUSED.items():
            if self.text.startswith(start, self.at):
                raise self._refused(name)
        found = re.compile(r"\((\?:|\?P<\w+>)?").match(self.text, self.at)
        assert found is not None
        if found[0] == "(" and self.text.startswith("(?", self.at):
            raise self._refused("flags")
        self.at = found.end()
        inner = self._alternatives()
        self.at += 1
        return f"({inner})"

    def _times(self) -> tuple[int, int | None]:
        found = re.compile(r"(?:([*+?])|\{(\d*)(,?)(\d*)\})([?+]?)").match(self.text, self.at)
        if found is None or (found[1] is None and not (found[2] or found[4])):
            return 1, 1
        if found[5] == "+":
            raise self._refused("a possessive repetition")
        self.at = found.end()
        if found[1]:
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[found[1]]
        low = int(found[2] or 0)
        return low, (int(found[4]) if found[4] else None) if found[3] else low

    def _set(self) -> Ranges:
        self.at += 1
        negated = self.text.startswith("^", self.at)
        self.at += negated
        out: Ranges = []
        first = True
        while first or self.text[self.at] != "]":
            first = False
            part = self._member()
            if (
                self.text[self.at] == "-"
                and self.text[self.at + 1] != "]"
                and len(part) == 1
                and part[0][0] == part[0][1]
            ):
                self.at += 1
                part = [(part[0][0], self._member()[-1][1])]
            out += part
        self.at += 1
        return inverse(union(out)) if negated else union(out)

    def _member(self) -> Ranges:
        char = self.text[self.at]
        self.at += 1
        return self._escape(inside=True) if char == "\\" else [(ord(char), ord(char))]

    def _escape(self, *, inside: bool) -> Ranges:
        """What stands after a backslash."""
        char = self.text[self.at]
        self.at += 1
        if char in _CLASSES:
            return _CLASSES[char]
        if char in "xuU":
            size = {"x": 2, "u": 4, "U": 8}[char]
            code = int(self.text[self.at : self.at + size], 16)
            self.at += size
            return [(code, min(code, LAST))]
        if char in _CONTROLS or (char == "b" and inside):
            code = _CONTROLS.get(char, 8)
            return [(code, code)]
        if char.isalnum():
            raise self._refused(f"\\{char}")
        return [(ord(char), ord(char))]

    def _refused(self, what: str) -> UsageError:
        return UsageError(
            f"{self.where} {self.text!r}: {what} is not supported",
            "texts, sets, groups, | and repetitions are; or write a grammar: --grammar FILE",
        )
