"""WordPiece as BERT's own tokenizer does it: for vocabularies whose words the engine takes apart differently.

The engine strips every combining mark where accents are to be stripped, BERT's tokenizer only those that take no room: vowel
signs of Hindi, Bengali or Tamil stay. The vocabulary is the file's, in which the beginnings of words carry a visible space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from llamacli.formats.gguf_reader import GGUF
from llamacli.runtime.older_unicode import FORMS, category, is_mark, is_punctuation, normalize

START = "\N{LOWER ONE EIGHTH BLOCK}"
LONGEST = 100
"""Characters of a word; a longer one is unknown."""

_NORMAL = 1
_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
"""Blocks whose characters are words of their own, as that tokenizer has them."""


@dataclass(frozen=True)
class WordPieces:
    """A vocabulary of word beginnings and continuations."""

    beginnings: Mapping[str, int]
    continuations: Mapping[str, int]
    unknown: int
    steps: tuple[str, ...] = ("clean", "chinese", "accents", "lower")
    """What becomes of a text first: BERT's steps, `marks` (accents of every kind are left out), or a Unicode form."""
    longest: int = LONGEST

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> WordPieces | None:
        """Those of a file whose tokenizer is of this kind; None for others."""
        tokens, types = gguf.get("tokenizer.ggml.tokens", ()), gguf.get("tokenizer.ggml.token_type", ())
        unknown = gguf.get("tokenizer.ggml.unknown_token_id")
        if gguf.get("tokenizer.ggml.model") != "bert" or type(unknown) is not int or len(tokens) != len(types):
            return None
        beginnings: dict[str, int] = {}
        continuations: dict[str, int] = {}
        for place, (text, kind) in enumerate(zip(tokens, types, strict=True)):
            if kind == _NORMAL and isinstance(text, str):
                (beginnings if text.startswith(START) else continuations)[text.removeprefix(START)] = place
        lowercase = gguf.get("tokenizer.ggml.normalizer.lowercase", True) is True
        strip = gguf.get("tokenizer.ggml.normalizer.strip_accents", lowercase) is True
        usual = ("clean", "chinese", *(["accents"] if strip else []), *(["lower"] if lowercase else []))
        steps = gguf.get("tokenizer.llamacli.steps", usual)
        longest = gguf.get("tokenizer.llamacli.longest_word", LONGEST)
        return cls(beginnings, continuations, unknown, tuple(steps), longest)

    def ids(self, text: str, encode: Callable[[str], list[int]] | None = None) -> list[int]:
        """Ids of ordinary text, without the engine."""
        return [piece for word in self._words(text) for piece in self._pieces_of(word)]

    def _words(self, text: str) -> Iterator[str]:
        """Runs of letters, digits and marks; every sign of punctuation and every Chinese character by itself."""
        word = ""
        for character in self._normalized(text):
            alone = is_punctuation(character) or ("chinese" in self.steps and _is_chinese(character))
            if (alone or character.isspace()) and word:
                yield word
                word = ""
            if alone:
                yield character
            elif not character.isspace():
                word += character
        if word:
            yield word

    def _normalized(self, text: str) -> str:
        for step in self.steps:
            if step == "clean":
                text = "".join(" " if c in "\t\n\r" else c for c in text if not _is_dropped(c))
            elif step == "accents":
                text = "".join(c for c in normalize("NFD", text) if category(c) != "Mn")
            elif step == "marks":
                text = "".join(c for c in text if not is_mark(c))
            elif step == "lower":  # one by one: the last sigma of a word is like any other
                text = "".join(map(str.lower, text))
            elif step in FORMS:
                text = normalize(step, text)
        return text

    def _pieces_of(self, word: str) -> list[int]:
        """The longest piece that the word begins with, then the longest of the rest, ...; unknown if one is missing."""
        found: list[int] = []
        start, room = 0, len(word)
        while start < room and room <= self.longest:
            pieces = self.continuations if start else self.beginnings
            end = next((end for end in range(room, start, -1) if word[start:end] in pieces), start)
            if end == start:
                return [self.unknown]
            found.append(pieces[word[start:end]])
            start = end
        return found or [self.unknown]


def _is_dropped(character: str) -> bool:
    """Characters that steer and are not seen."""
    return character in "\0\N{REPLACEMENT CHARACTER}" or (
        category(character) in ("Cc", "Cf", "Co") and character not in "\t\n\r"
    )


def _is_chinese(character: str) -> bool:
    return character >= "\u3400" and any(low <= ord(character) <= high for low, high in _CHINESE)
