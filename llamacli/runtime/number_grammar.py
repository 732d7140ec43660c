"""Numbers between bounds as GBNF: ranges of digits, written out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from llamacli.runtime.gbnf import literal

_FRACTION = '("." [0-9]{1,15})?'
_PLACES = 9
"""Decimal places that are tried where no whole number lies between the bounds."""


@dataclass(frozen=True)
class Bounds:
    """From `low` to `high`, either of them None for none; `open_low` and `open_high`: without the bound itself."""

    low: Fraction | None
    high: Fraction | None
    open_low: bool = False
    open_high: bool = False

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> Bounds:
        """The bounds that a schema names."""
        low, open_low = _tightest(schema, "minimum", "exclusiveMinimum", max)
        high, open_high = _tightest(schema, "maximum", "exclusiveMaximum", min)
        return cls(low, high, open_low, open_high)

    @property
    def free(self) -> bool:
        """Whether there is none."""
        return self.low is None and self.high is None

    def whole(self, scale: int = 1) -> tuple[int | None, int | None]:
        """The lowest and the highest whole number n with n / scale within the bounds."""
        low = high = None
        if self.low is not None:
            low = math.ceil(self.low * scale)
            low += self.open_low and low == self.low * scale
        if self.high is not None:
            high = math.floor(self.high * scale)
            high -= self.open_high and high == self.high * scale
        return low, high

    def multiples(self, step: Fraction, most: int, *, whole: bool) -> list[str] | None:
        """The multiples of `step` within the bounds as decimal numbers, or None if there are more than `most`."""
        if self.low is None or self.high is None:
            return None
        scaled = Bounds(self.low / step, self.high / step, self.open_low, self.open_high).whole()
        assert scaled[0] is not None and scaled[1] is not None
        if scaled[1] - scaled[0] >= most:
            return None
        values = [n * step for n in range(scaled[0], scaled[1] + 1)]
        return [_decimal(value) for value in values if not whole or value.denominator == 1]


def _tightest(schema: Mapping[str, Any], closed: str, opened: str, choose: Any) -> tuple[Fraction | None, bool]:
    given = [(Fraction(str(schema[key])), key == opened) for key in (closed, opened) if key in schema]
    if not given:
        return None, False
    value = choose(number for number, _ in given)
    return value, any(is_open for number, is_open in given if number == value)


def _decimal(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else repr(float(value))


def integers(bounds: Bounds) -> str:
    """Whole numbers within the bounds."""
    low, high = bounds.whole()
    options = []
    if low is None or low < 0:
        options += [f'"-" {option}' for option in _naturals(max(1, -high) if high is not None else 1, _minus(low))]
    if high is None or high >= 0:
        options += _naturals(max(low or 0, 0), high)
    return " | ".join(options) or "[b-a]"


def numbers(bounds: Bounds) -> str:
    """Numbers within the bounds: whole parts that leave room for any fraction, and the whole numbers at the ends."""
    low, high = bounds.whole()
    if low is not None and high is not None and high - low < 1:
        return _decimals(bounds)
    options = []
    if low is None or low < 0:
        top = max(0, -high) if high is not None else 0
        bottom = _minus(low)
        inner = _naturals(top, bottom - 1 if bottom is not None else None)
        # A minus and zero is a number, but only with a fraction does it lie below zero.
        options += [f'"-" {option} {_FRACTION}' for option in inner]
        if bottom is not None:
            options += [f'"-" {literal(str(bottom))}']
    if high is None or high >= 0:
        inner = _naturals(max(low or 0, 0), high - 1 if high is not None else None)
        options += [f"{option} {_FRACTION}" for option in inner]
        if high is not None:
            options.append(literal(str(high)))
    return " | ".join(options) or "[b-a]"


def _minus(value: int | None) -> int | None:
    return None if value is None else -value


def _decimals(bounds: Bounds) -> str:
    """Bounds with hardly a whole number between them: as few decimal places as give some choice."""
    low = high = places = 0
    for places in range(_PLACES + 1):
        scaled = bounds.whole(10**places)
        assert scaled[0] is not None and scaled[1] is not None
        low, high = scaled[0], scaled[1]
        if high - low >= 9:
            break
    if high < low:
        return "[b-a]"
    options = []
    if low < 0:
        options += [f'"-" {option}' for option in _fixed(max(1, -high), -low, places)]
    if high >= 0:
        options += _fixed(max(low, 0), high, places)
    return " | ".join(options)


def _fixed(low: int, high: int, places: int) -> list[str]:
    """Numbers low / 10**places to high / 10**places, written with all their places."""
    out = []
    for whole in range(low // 10**places, high // 10**places + 1):
        first = max(low - whole * 10**places, 0)
        last = min(high - whole * 10**places, 10**places - 1)
        start = literal(str(whole) + ("." if places else ""))
        out += [f"{start} {digits}".strip() for digits in (_digits(first, last, places) if places else [""])]
    return out


def _naturals(low: int, high: int | None) -> list[str]:
    """Natural numbers without leading zeros from `low` to `high` (None: no end but 16 digits)."""
    if high is not None and high < low:
        return []
    out = []
    size = len(str(low))
    while high is None or size <= len(str(high)):
        first = low if size == len(str(low)) else 10 ** (size - 1)
        if high is None:
            out += _digits(first, 10**size - 1, size)
            if size < 16:
                out.append(f"[1-9] [0-9]{{{size},15}}")
            break
        out += _digits(first, min(high, 10**size - 1), size)
        size += 1
    return out


def _digits(low: int, high: int, size: int) -> list[str]:
    """Numbers from `low` to `high`, each written with `size` digits."""
    if low > high:
        return []
    first, last = str(low).zfill(size), str(high).zfill(size)
    if size == 1:
        return [_digit(first, last)]
    if first[1:] == "0" * (size - 1) and last[1:] == "9" * (size - 1):
        return [f"{_digit(first[0], last[0])} {'[0-9]' if size == 2 else f'[0-9]{{{size - 1}}}'}"]
    unit = 10 ** (size - 1)
    head, tail = low // unit, high // unit
    if head == tail:
        return [f"{literal(str(head))} {rest}" for rest in _digits(low % unit, high % unit, size - 1)]
    if low % unit:
        return [*_digits(low, (head + 1) * unit - 1, size), *_digits((head + 1) * unit, high, size)]
    return [*_digits(low, tail * unit - 1, size), *_digits(tail * unit, high, size)]


def _digit(first: str, last: str) -> str:
    return literal(first) if first == last else f"[{first}-{last}]"
