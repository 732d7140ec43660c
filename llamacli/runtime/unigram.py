"""Unigram pieces as Hugging Face's `tokenizers` finds them, for texts with marks, which it normalizes in its own way.

SentencePiece replaces the longest match of its table at every place. That library looks up a letter together with its marks,
if they are few, and of what begins there takes the shortest match; the rest of the letter is gone. Models are tuned with it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cached_property

from llamacli.formats.gguf_reader import GGUF
from llamacli.runtime.added_tokens import single_words
from llamacli.runtime.charsmap import Charsmap
from llamacli.runtime.scored_pieces import ScoredPieces
from llamacli.runtime.text_steps import First, Step, prepared, step_named

START = "\N{LOWER ONE EIGHTH BLOCK}"
MOST_KEPT = 50_000
"""Words whose ids are remembered."""
LONGEST_CLUSTER = 5
"""Bytes of a letter with its marks that are looked up as one."""

_APART = re.compile(
    "[\u102b\u102c\u1038\u1062-\u1064\u1067-\u106d\u1083\u1087-\u108c\u108f\u109a-\u109c\u1a61\u1a63\u1a64\uaa7b\uaa7d"
    "\U00011720\U00011721]"
)
_JOINED = re.compile("[\u200c\u200d\uff9e\uff9f\u0e33\u0eb3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")
"""Marks that stand for themselves, and characters that attach to the one before although they are no marks."""
_LEADING = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e")
"""Characters to which the next one attaches."""


class Unigram:
    """A vocabulary of scored pieces."""

    def __init__(self, gguf: GGUF) -> None:
        self._gguf = gguf
        self._pieces = ScoredPieces(gguf, single=False)
        self._single_words = single_words(gguf)
        self._named = gguf.get("tokenizer.llamacli.steps", ())
        self._steps = {first: self._steps_of(first) for first in (False, True)}
        self._known: dict[str, list[int]] = {}

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> Unigram | None:
        """That of a file that asks for it; None for others."""
        asked = gguf.get("tokenizer.llamacli.cut") == "clusters" and gguf.get("tokenizer.ggml.model") == "t5"
        return cls(gguf) if asked and type(gguf.get("tokenizer.ggml.unknown_token_id")) is int else None

    def _steps_of(self, first: bool) -> list[Step]:
        """What becomes of a text, or of the first of a prompt."""
        normalized: Step = lambda text: iter(["".join(self._normalized(text))])  # noqa: E731
        steps = [normalized if name == "charsmap" else step_named(name, first=first) for name in self._named]
        return [step for step in steps if step]

    def ids(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        """Ids of ordinary text; `encode` is the engine's way, which is right where no marks are."""
        if self._named:
            words = prepared(text, self._steps[isinstance(text, First)])
            return [token for word in words for token in self._ids_of(word)]
        marked = not text.isascii() and (any(map(_attaches, text)) or _LEADING.intersection(text))
        if not marked and not (self._single_words and self._single_words.search(text)):
            return encode(text)
        return [token for word in "".join(self._normalized(text)).split() for token in self._ids_of(START + word)]

    def _normalized(self, text: str) -> Iterator[str]:
        for cluster in clusters(text):
            data = cluster.encode("utf-8", "replace")
            whole = self._charsmap.shortest(data) if len(data) <= LONGEST_CLUSTER else None
            if whole is not None:
                yield whole
            else:
                for character in cluster:
                    found = self._charsmap.shortest(character.encode("utf-8", "replace"))
                    yield character if found is None else found

    def _ids_of(self, word: str) -> list[int]:
        found = self._known.get(word)
        if found is None:
            if len(self._known) >= MOST_KEPT:
                self._known.clear()
            found = self._known[word] = self._pieces.best(word)
        return found

    @cached_property
    def _charsmap(self) -> Charsmap:
        return Charsmap(bytes(self._gguf.get("tokenizer.ggml.precompiled_charsmap", ())))


def clusters(text: str) -> Iterator[str]:
    """Letters with what attaches to them; longer ones, such as flags and Korean syllables, may come in parts."""
    start = 0
    for place in range(1, len(text)):
        attached = _attaches(text[place]) and not _controls(text[place - 1])
        if not attached and text[place - 1] not in _LEADING and text[place - 1 : place + 1] != "\r\n":
            yield text[start:place]
            start = place
    if text:
        yield text[start:]


def _attaches(character: str) -> bool:
    if character < "\u0300":
        return False
    if unicodedata.category(character)[0] == "M":
        return not _APART.match(character)
    return bool(_JOINED.match(character))


def _controls(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and not _JOINED.match(character)
