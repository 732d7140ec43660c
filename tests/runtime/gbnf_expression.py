"""A rule of GBNF without names as a regular expression of Python: an oracle that knows nothing of the engine."""

from __future__ import annotations

import re

_PART = re.compile(r'"((?:\\.|[^"\\])*)"|(\[(?:\\.|[^\]\\])*\])|([()|*+?]|\{[\d,]+\})|(\s+)')


def as_expression(rule: str) -> re.Pattern[str]:
    """All of the rule's texts, and nothing else, match it."""
    out, at = [], 0
    while at < len(rule):
        part = _PART.match(rule, at)
        assert part is not None, rule[at:]
        at = part.end()
        if part[1] is not None:
            out.append(f"(?:{re.escape(_plain(part[1]))})")
        elif part[2]:
            out.append(part[2])
        elif part[3]:
            out.append("(?:" if part[3] == "(" else part[3])
    return re.compile("".join(out), re.DOTALL)


def _plain(text: str) -> str:
    return re.sub(r"\\(?:x(..)|u(....)|U(........))", lambda m: chr(int(m[1] or m[2] or m[3], 16)), text)
