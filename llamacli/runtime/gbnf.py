"""Writing GBNF: literals, sets of characters, repetitions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llamacli.runtime.grammar import MAX_REPETITIONS

Ranges = list[tuple[int, int]]
"""Code points from the first to the last, in order and apart."""

LAST = 0x10FFFF
_NEVER = [(0, 0), (0xD800, 0xDFFF)]
"""What no text holds: the zero byte ends a C string, halves of surrogate pairs are no characters."""


def literal(text: str) -> str:
    """A text as it is."""
    return '"' + "".join(_escaped(char, '"\\') for char in text) + '"'


def characters(ranges: Ranges) -> str:
    """One character of a set. An empty set matches nothing."""
    inside = without(ranges, _NEVER)
    if not inside:
        return "[b-a]"
    return "[" + "".join(_range(low, high) for low, high in inside) + "]"


def repeated(item: str, low: int, high: int | None) -> str:
    """`item` (a rule, a set or a group) between `low` and `high` times; above the engine's limit there is no most."""
    if high is not None and high > MAX_REPETITIONS:
        high = None
    if (low, high) == (1, 1):
        return item
    short = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    if (low, high) in short:
        return item + short[low, high]
    return f"{item}{{{low},{'' if high is None else high}}}"


def either(options: Sequence[str]) -> str:
    """One of several, in parentheses."""
    return options[0] if len(options) == 1 else "(" + " | ".join(options) + ")"


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted and joined."""
    out: Ranges = []
    for low, high in sorted(ranges):
        if out and low <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], high))
        else:
            out.append((low, high))
    return out


def without(ranges: Ranges, removed: Iterable[tuple[int, int]]) -> Ranges:
    """What of `ranges` is not in `removed`."""
    out = union(ranges)
    for low, high in removed:
        out = [
            part
            for first, last in out
            for part in ((first, min(last, low - 1)), (max(first, high + 1), last))
            if part[0] <= part[1] and first <= part[0] and part[1] <= last
        ]
        out = union(out)
    return out


def inverse(ranges: Ranges) -> Ranges:
    """All other characters."""
    return without([(0, LAST)], ranges)


def _range(low: int, high: int) -> str:
    first, last = (_escaped(chr(code), '"\\[]^-') for code in (low, high))
    return first if low == high else f"{first}-{last}"


def _escaped(char: str, special: str) -> str:
    code = ord(char)
    if 0x20 <= code < 0x7F:
        return f"\\x{code:02x}" if char in special else char
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
