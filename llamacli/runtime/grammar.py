"""GBNF, read and judged before the engine sees it.

The engine's own parser prints to stderr, and some grammars end the process: repetitions that count backwards, rules
that begin with themselves behind something that may be empty, chains of rules deeper than its stack. What passes here
is understood by the engine and leads to an end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llamacli.errors import SchemaError

MAX_BYTES = 1 << 20
MAX_NESTING = 200
"""Parentheses in parentheses; the engine's parser calls itself for each."""

MAX_REPETITIONS = 2000
"""The engine refuses more, and counts an item's own rules in."""

MAX_DEPTH = 2000
"""Rules that begin with rules; the engine follows them on its stack."""

MAX_PATHS = 2_000_000
"""Ways from a rule to its first characters; the engine walks each of them."""


@dataclass(frozen=True)
class Item:
    """One element of a sequence: characters or a token (`name` empty), or a rule by its name."""

    name: str = ""
    possible: bool = True
    """Whether anything matches: `[z-a]` never does."""


Sequence_ = list[Item]
Rule = list[Sequence_]
"""Alternatives, each a sequence of items."""


@dataclass
class _Reader:
    """A recursive-descent reader; groups and repetitions become rules of their own, as in the engine."""

    text: str
    at: int = 0
    rules: dict[str, Rule] = field(default_factory=dict)
    made: int = 0

    # -- rules -------------------------------------------------------------------------------------------------

    def read(self) -> dict[str, Rule]:
        self._space(newlines=True)
        while self.at < len(self.text):
            self._rule()
        return self.rules

    def _rule(self) -> None:
        name = self._name()
        self._space(newlines=False)
        if not self.text.startswith("::=", self.at):
            raise self._wrong(f"`::=` expected after {name}")
        self.at += 3
        self._space(newlines=True)
        self.rules[name] = self._alternatives(0)
        if self.at < len(self.text) and self.text[self.at] not in "\r\n":
            raise self._wrong("a new line, or the end, expected")
        self._space(newlines=True)

    def _alternatives(self, depth: int) -> Rule:
        if depth > MAX_NESTING:
            raise SchemaError(f"the grammar nests deeper than {MAX_NESTING} parentheses")
        out = [self._sequence(depth)]
        while self._peek() == "|":
            self.at += 1
            self._space(newlines=True)
            out.append(self._sequence(depth))
        return out

    def _sequence(self, depth: int) -> Sequence_:
        out: Sequence_ = []
        unit: Sequence_ | None = None
        weight = 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in "*+?{":
                if not unit:
                    raise self._wrong(f"nothing to repeat before {char}")
                low, high = self._repetition(depth)
                times = high if high else max(low, 1)
                if weight * times > MAX_REPETITIONS:
                    raise self._wrong(f"more than {MAX_REPETITIONS} repetitions, counting those within")
                weight *= times
                del out[len(out) - len(unit) :]
                unit = self._repeated(unit, low, high)
            else:
                before = self.made
                found = self._unit(char, depth)
                if found is None:
                    break
                unit, weight = found, max(1, self.made - before)
            out += unit
        return out

    def _unit(self, char: str, depth: int) -> Sequence_ | None:
        """The next thing that can be repeated, or None at the end of a sequence."""
        if char == '"':
            unit = self._literal()
        elif char == "[":
            unit = [self._set()]
        elif char in "<!":
            unit = [self._token()]
        elif char == ".":
            self.at += 1
            unit = [Item()]
        elif char == "(":
            unit = [self._group(depth)]
        elif char.isascii() and (char.isalnum() or char == "-"):
            unit = [Item(self._name())]
        else:
            return None
        self._space(newlines=depth > 0)
        return unit

    def _group(self, depth: int) -> Item:
        self.at += 1
        self._space(newlines=True)
        name = self._fresh()
        self.rules[name] = self._alternatives(depth + 1)
        if self._peek() != ")":
            raise self._wrong("`)` expected")
        self.at += 1
        return Item(name)

    def _repetition(self, depth: int) -> tuple[int, int | None]:
        char = self.text[self.at]
        if char != "{":
            self.at += 1
            self._space(newlines=depth > 0)
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        found = re.compile(r"\{\s*(\d{1,9})\s*(,\s*(\d{1,9})?\s*)?\}").match(self.text, self.at)
        if found is None:
            raise self._wrong("a repetition is {3}, {3,} or {3,5}")
        low = int(found[1])
        high = int(found[3]) if found[3] else (None if found[2] else low)
        if high is not None and high < low:
            raise self._wrong(f"a repetition from {low} to {high}")
        if max(low, high or 0) > MAX_REPETITIONS:
            raise self._wrong(f"more than {MAX_REPETITIONS} repetitions")
        self.at = found.end()
        self._space(newlines=depth > 0)
        return low, high

    def _repeated(self, unit: Sequence_, low: int, high: int | None) -> Sequence_:
        """For what is judged here, one optional copy stands for all of them."""
        out = unit if low else []
        if high is None or high > low:
            self.made += 1 if high is None else high - low
            name = self._fresh(count=False)
            self.rules[name] = [[*unit, *([Item(name)] if high is None else [])], []]
            out = [*out, Item(name)]
        return out

    # -- characters --------------------------------------------------------------------------------------------

    def _literal(self) -> Sequence_:
        self.at += 1
        count = 0
        while self._peek() != '"':
            self._char()
            count += 1
        self.at += 1
        return [Item()] * min(count, 1)

    def _set(self) -> Item:
        self.at += 1
        negated = self._peek() == "^"
        self.at += negated
        if self._peek() == "]":
            raise self._wrong("an empty set of characters")
        possible = negated
        while self._peek() != "]":
            low = high = self._char()
            if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
                self.at += 1
                high = self._char()
            possible |= low <= high
        self.at += 1
        return Item(possible=possible)

    def _char(self) -> int:
        if self.at >= len(self.text):
            raise self._wrong("the grammar ends within a text or set")
        char = self.text[self.at]
        if char != "\\":
            self.at += 1
            return ord(char)
        found = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([trn])|([\\\"\[\]-]))").match(
            self.text, self.at
        )
        if found is None:
            raise self._wrong("an unknown escape")
        self.at = found.end()
        if found[4]:
            return ord({"t": "\t", "r": "\r", "n": "\n"}[found[4]])
        return ord(found[5]) if found[5] else int(found[1] or found[2] or found[3], 16)

    def _token(self) -> Item:
        found = re.compile(r"!?<(?:\[\d{1,9}\]|[^<>\[\s][^>]*)>").match(self.text, self.at)
        if found is None:
            raise self._wrong("a token is <name> or <[number]>")
        self.at = found.end()
        return Item()

    def _name(self) -> str:
        found = re.compile(r"[a-zA-Z0-9-]+").match(self.text, self.at)
        if found is None:
            raise self._wrong("a rule's name expected")
        self.at = found.end()
        return found[0]

    # -- helps -------------------------------------------------------------------------------------------------

    def _fresh(self, *, count: bool = True) -> str:
        self.made += count
        return f"({len(self.rules)}.{self.made}.{self.at})"

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _space(self, *, newlines: bool) -> None:
        pattern = r"(?:[ \t\r\n]|#[^\r\n]*)*" if newlines else r"(?:[ \t]|#[^\r\n]*)*"
        found = re.compile(pattern).match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def _wrong(self, why: str) -> SchemaError:
        line = self.text.count("\n", 0, self.at) + 1
        column = self.at - (self.text.rfind("\n", 0, self.at) + 1) + 1
        return SchemaError(f"the grammar is wrong in line {line}, column {column}: {why}")


def check_grammar(text: str) -> None:
    """Raise SchemaError for a grammar that the engine cannot read, would not survive, or that leads nowhere."""
    if len(text) > MAX_BYTES:
        raise SchemaError(f"the grammar has {len(text):,} characters; at most {MAX_BYTES:,} are read")
    if "\0" in text:
        raise SchemaError("the grammar holds a zero byte")
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise SchemaError("the grammar is no valid Unicode text")
    rules = _Reader(text).read()
    if "root" not in rules:
        raise SchemaError("the grammar has no rule named root", 'it begins like this: root ::= "yes" | "no"')
    for name, rule in rules.items():
        for item in (item for sequence in rule for item in sequence):
            if item.name and item.name not in rules:
                raise SchemaError(f"the grammar's rule {_shown(name)} names {item.name}, which is not defined")
    _check_starts(rules, _least(rules, empty=True))
    if "root" not in _least(rules, empty=False):
        raise SchemaError(
            "the grammar matches no text that ends", "every rule needs an alternative that comes to an end"
        )


def _shown(name: str) -> str:
    return "in parentheses" if name.startswith("(") else name


def _least(rules: Mapping[str, Rule], *, empty: bool) -> set[str]:
    """The rules that match some finite text, or with `empty` those that match the empty one."""
    users: dict[str, set[str]] = {}
    for name, rule in rules.items():
        for item in (item for sequence in rule for item in sequence if item.name):
            users.setdefault(item.name, set()).add(name)
    found: set[str] = set()
    waiting = set(rules)
    while waiting:
        name = waiting.pop()
        if name not in found and any(
            all(item.name in found if item.name else item.possible and not empty for item in sequence)
            for sequence in rules[name]
        ):
            found.add(name)
            waiting |= users.get(name, set())
    return found


def _starts(rule: Rule, empties: set[str]) -> Iterator[str]:
    """The rules that a rule may begin with."""
    for sequence in rule:
        for item in sequence:
            if not item.name:
                break
            yield item.name
            if item.name not in empties:
                break


def _check_starts(rules: Mapping[str, Rule], empties: set[str]) -> None:
    """No rule may begin with itself, and the engine's walk to the first characters must stay short."""
    paths: dict[str, int] = {}
    depth: dict[str, int] = {}
    for first in rules:
        order: list[tuple[str, Iterator[str]]] = [(first, _starts(rules[first], empties))]
        inside = {first}
        while order:
            name, rest = order[-1]
            following = next(rest, None)
            if following is None:
                order.pop()
                inside.discard(name)
                starts: Sequence[str] = list(_starts(rules[name], empties))
                paths[name] = 1 + sum(paths[start] for start in starts)
                depth[name] = 1 + max((depth[start] for start in starts), default=0)
            elif following in inside:
                raise SchemaError(
                    f"the grammar's rule {_shown(following)} begins with itself",
                    "put something before the repetition, or repeat only what is not empty",
                )
            elif following not in paths:
                order.append((following, _starts(rules[following], empties)))
                inside.add(following)
    if max(depth.values()) > MAX_DEPTH or max(paths.values()) > MAX_PATHS:
        raise SchemaError("the grammar's rules are too deep for the engine", "use fewer rules that only name others")
