"""Byte-pair merging under a cut of our own, for texts that the engine would cut differently."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import pairwise

from llamacli.formats.gguf_reader import GGUF
from llamacli.runtime.added_tokens import single_words
from llamacli.runtime.long_words import bounded
from llamacli.runtime.older_unicode import NEWER_THAN_8
from llamacli.runtime.words import words_by, words_of

MOST_KEPT = 50_000
"""Words whose ids are remembered."""

_USER_DEFINED = 4
_CAPITALS = re.compile(r"[^\x00-\x7f][A-Z]|'\u017f")
_CUT_DIFFERENTLY = {
    "gpt-4o": _CAPITALS,
    "tekken": re.compile(rf"{_CAPITALS.pattern}|[^\w\x00-\x7f]'"),
    "tiny_aya": re.compile(r"\d"),
    "deepseek-llm": re.compile(r"[^\S\x00-\x7f]"),
    "deepseek-coder": re.compile(r"[^\S\x00-\x7f]"),
    "falcon": NEWER_THAN_8,
    "laguna": re.compile("\r"),
    "superbpe": re.compile(r"[0-9][^\x00-\x7f]|[^\x00-\x7f][0-9]"),
}
"""What is in every text that the engine cuts in other places than the cut of that name."""
_BETWEEN = {"tekken": re.compile(r"(?<=[^\W\d_])(?=')")}
"""Where a text is taken apart before the engine gets it: it would not cut at every apostrophe."""


class BytePairs:
    """A byte-level vocabulary under a cut of its own."""

    def __init__(self, gguf: GGUF, name: str, cut: Callable[[str], Iterator[str]]) -> None:
        self._gguf = gguf
        self._cut = cut
        self._different, self._between = _CUT_DIFFERENTLY.get(name), _BETWEEN.get(name)
        self._single_words = single_words(gguf)
        self._whole_words = gguf.get("tokenizer.ggml.pre") == "granite-embed-multi-97m"
        self._known: dict[str, list[int]] = {}

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> BytePairs | None:
        """Those of a file that names a cut; None for others."""
        name = gguf.get("tokenizer.llamacli.cut")
        steps = gguf.get("tokenizer.llamacli.words", ())
        cut = words_of(name) or words_by(steps)
        bytewise = gguf.get("tokenizer.ggml.model") == "gpt2"
        return cls(gguf, str(name), cut) if cut is not None and bytewise else None

    def ids(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        """Ids of ordinary text; `encode` is the engine's way."""
        if any(pattern and pattern.search(text) for pattern in (self._different, self._single_words)):
            return list(self._own_ids(text))
        parts = self._between.split(text) if self._between else (text,)
        return [token for part in parts for token in encode(part)]

    def _own_ids(self, text: str) -> Iterator[int]:
        for part in self._fixed.split(text) if self._fixed else (text,):
            if part in self._fixed_places:
                yield self._fixed_places[part]
            else:
                for stretch in bounded(part):
                    for word in self._cut(stretch):
                        yield from self._ids_of(word)

    def _ids_of(self, word: str) -> list[int]:
        found = self._known.get(word)
        if found is None:
            if len(self._known) >= MOST_KEPT:
                self._known.clear()
            found = self._known[word] = self._merged(word)
        return found

    @cached_property
    def _fixed_places(self) -> Mapping[str, int]:
        """Tokens that stand for themselves wherever they are written."""
        types = self._gguf.get("tokenizer.ggml.token_type", ())
        tokens = self._gguf.get("tokenizer.ggml.tokens", ())
        looked_for = {*self._gguf.get("tokenizer.llamacli.found", ())}
        places = (place for place, kind in enumerate(types) if kind == _USER_DEFINED and place not in looked_for)
        return {tokens[place]: place for place in places}

    @cached_property
    def _fixed(self) -> re.Pattern[str] | None:
        texts = sorted(self._fixed_places, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, texts))})") if texts else None

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {text: place for place, text in enumerate(self._gguf.get("tokenizer.ggml.tokens", ()))}

    @cached_property
    def _ranks(self) -> Mapping[str, int]:
        return {merge: rank for rank, merge in enumerate(self._gguf.get("tokenizer.ggml.merges", ()))}

    def _merged(self, word: str) -> list[int]:
        """Ids of a word: its bytes, of which two neighbours with the first of all merges become one, again and again."""
        visible = "".join(map(_ALPHABET.__getitem__, word.encode("utf-8", "replace")))
        if self._whole_words and visible in self._places:
            return [self._places[visible]]
        pieces, ranks, never = list(visible), self._ranks, len(self._ranks)
        ranked = [ranks.get(f"{left} {right}", never) for left, right in pairwise(pieces)]
        while ranked and (best := min(ranked)) < never:
            place = ranked.index(best)
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
            del ranked[place]
            for left in (place - 1, place):  # the pairs that the new piece is part of
                if 0 <= left < len(ranked):
                    ranked[left] = ranks.get(f"{pieces[left]} {pieces[left + 1]}", never)
        return [self._places[piece] for piece in pieces if piece in self._places]


def _byte_alphabet() -> list[str]:
    """GPT-2's alphabet: printable characters of Latin-1 stand for themselves, the other bytes are numbered after them."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


_ALPHABET = _byte_alphabet()
