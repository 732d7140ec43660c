"""Fenced code blocks in an answer."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^( {0,3})(`{3,}|~{3,})[ \t]*([^`\n]*)$", re.MULTILINE)


def first_block(text: str, language: str = "") -> str | None:
    """The inside of the first fenced block (in `language`, if given), or None.

    A block without an end goes to the end of the text. Its lines lose the indentation that its fence has.
    """
    at = 0
    while opening := _FENCE.search(text, at):
        indent, fence, info = opening[1], opening[2], opening[3].strip().lower()
        closing = re.compile(rf"^ {{0,3}}{fence[0]}{{{len(fence)},}}[ \t]*$", re.MULTILINE).search(text, opening.end())
        body = text[opening.end() + 1 : closing.start() if closing else len(text)]
        if not language or info.split(" ")[0] == language.lower():
            lines = body.split("\n")
            return "\n".join(line.removeprefix(indent) for line in lines).removesuffix("\n")
        if closing is None:
            return None
        at = closing.end()
    return None
