"""Words without end: cut where it does least harm, for neither the engine nor an expression bears them whole."""

from __future__ import annotations

import re
from collections.abc import Iterator

LONGEST_WORD = 1000
"""Characters without a break that the engine gets at once. It matches expressions recursively: a word of 25,000
characters overflows a stack of 8 MiB and ends the process, and threads have less."""

_UNBROKEN = re.compile(rf"\S{{{LONGEST_WORD + 1},}}|\s{{{LONGEST_WORD + 1},}}")


def bounded(text: str) -> Iterator[str]:
    """`text` in parts of which none has a word, or a run of white space, longer than LONGEST_WORD."""
    start = 0
    for run in _UNBROKEN.finditer(text):
        place = run.start()
        while run.end() - place > LONGEST_WORD:
            end = _break(text, place, place + LONGEST_WORD)
            yield text[start:end]
            start = place = end
    if start < len(text):
        yield text[start:]


def _break(text: str, start: int, end: int) -> int:
    """A place near `end` to cut: after a sign that is no letter, if there is one in the last quarter."""
    for place in range(end, end - (end - start) // 4, -1):
        if not text[place - 1].isalnum():
            return place
    return end
