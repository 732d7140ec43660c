"""Steps of a tokenizer.json that prepare a text, as the converter writes them where no engine makes them.

A step is a name, or a name and what it is given, as JSON: `["replace", "``", "\\""]`. Each takes the parts of a text, at first
the whole, and gives the parts that it leaves. Those of `pre_tokenizer` cut, those of `normalizer` change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

from llamacli.runtime.added_tokens import WHITE_SPACE
from llamacli.runtime.older_unicode import FORMS, is_mark, normalize

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_NMT_DROPPED = re.compile("[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]")
_NMT_SPACES = re.compile("[\t\n\x0c\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]")

Step = Callable[[str], Iterator[str]]


class First(str):
    """A text that stands at the beginning of a prompt."""

    __slots__ = ()


def step_named(step: object, *, first: bool) -> Step | None:
    """What a step does, to the `first` text of a prompt or to a later one; None for one that a newer version knows."""
    given = _given(step)
    if len(given) != _SIZES.get(str(given[0]), 1):
        return None
    if given[0] == "visible":
        return _visible(given[1] == "always" or (given[1] == "first" and first), given[2] == "split")
    if given[0] in FORMS:
        return lambda text: iter([normalize(given[0], text)])
    known = _STEPS.get(given[0])
    return known(*given[1:]) if known else None


_SIZES = {"replace": 3, "visible": 3, "runs": 2, "prepend": 2}


def _given(step: object) -> list[str]:
    """A step's name and what it is given; anything but texts is no step."""
    text = step if isinstance(step, str) else ""
    try:
        found = json.loads(text) if text.startswith("[") else [text]
    except ValueError:
        return [""]
    return found if found and all(isinstance(item, str) for item in found) and found[0] is not None else [""]


def _changes(change: Callable[[str], str]) -> Step:
    return lambda text: iter([change(text)])


def _visible(prefix: bool, splits: bool) -> Step:
    """Metaspace: spaces become visible, one goes in front, and every word begins with one."""

    def step(text: str) -> Iterator[str]:
        text = text.replace(" ", SPACE)
        if prefix and text and not text.startswith(SPACE):
            text = SPACE + text
        yield from re.findall(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+", text) if splits else [text]

    return step


def _words(text: str) -> Iterator[str]:
    return (word for word in re.split(f"[{WHITE_SPACE}]+", text) if word)


_STEPS: dict[str, Callable[..., Step]] = {
    "lower": lambda: _changes(lambda text: "".join(map(str.lower, text))),
    "marks": lambda: _changes(lambda text: "".join(c for c in text if not is_mark(c))),
    "nmt": lambda: _changes(lambda text: _NMT_SPACES.sub(" ", _NMT_DROPPED.sub("", text))),
    "left": lambda: _changes(lambda text: text.lstrip(WHITE_SPACE)),
    "right": lambda: _changes(lambda text: text.rstrip(WHITE_SPACE)),
    "replace": lambda old, new: _changes(lambda text: text.replace(old, new)),
    "runs": lambda new: _changes(lambda text: re.sub(" {2,}", lambda match: new, text)),
    "prepend": lambda front: _changes(lambda text: front + text if text else text),
    "words": lambda: _words,
}


def prepared(text: str, steps: Sequence[Step]) -> list[str]:
    """The parts that are left of a text."""
    parts = [text]
    for step in steps:
        parts = [found for part in parts for found in step(part)]
    return parts
