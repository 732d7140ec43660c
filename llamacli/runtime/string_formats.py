"""Formats of strings in a schema, as expressions that both write and check them. Unknown formats say nothing."""

from __future__ import annotations

import re

_DATE = r"[12]\d{3}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))"
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
_BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"

FORMATS: dict[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": r"P(\d{1,4}D|T\d{1,4}[HMS]|\d{1,4}[YMWD])",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "ipv4": rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}",
    "ipv6": r"([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}",
    "hostname": rf"{_LABEL}(\.{_LABEL}){{0,4}}",
    "email": rf"[a-z0-9]+([._+-][a-z0-9]+){{0,4}}@{_LABEL}(\.{_LABEL}){{1,4}}",
    "uri": rf"https?://{_LABEL}(\.{_LABEL}){{1,4}}(/[A-Za-z0-9._~%+-]*){{0,8}}",
}
"""What is written is narrower than what the format allows; dates leave out 29 February."""


def matches_format(name: str, text: str) -> bool:
    """Whether `text` is of a known format; the text comes from a model that was held to the same expression."""
    expression = FORMATS.get(name)
    return expression is None or re.fullmatch(expression, text, re.ASCII) is not None
