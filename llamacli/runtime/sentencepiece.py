"""Unigram pieces as SentencePiece itself finds them, for files that were made from a `tokenizer.model`.

The engine adds scores in double precision, SentencePiece in single, so that of two equally good ways to cut a text they may
take different ones; it has no byte fallback for these models and puts a space in front wherever runs of spaces count as one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property

from llamacli.formats.gguf_reader import GGUF
from llamacli.runtime.charsmap import Charsmap
from llamacli.runtime.scored_pieces import ScoredPieces

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


class SentencePiece:
    """A unigram `tokenizer.model`: its normalizer and its pieces."""

    def __init__(self, gguf: GGUF) -> None:
        self._gguf = gguf
        self._pieces = ScoredPieces(gguf, single=True)

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> SentencePiece | None:
        """That of a file that asks for it; None for others."""
        asked = gguf.get("tokenizer.llamacli.cut") == "sentencepiece" and gguf.get("tokenizer.ggml.model") == "t5"
        return cls(gguf) if asked and type(gguf.get("tokenizer.ggml.unknown_token_id")) is int else None

    def ids(self, text: str, encode: Callable[[str], list[int]] | None = None) -> list[int]:
        """Ids of ordinary text, without the engine."""
        return self._pieces.best(self._normalized(text))

    def _normalized(self, text: str) -> str:
        """The text with spaces made visible, one in front, and what the compiled normalizer replaces."""
        text = "".join(self._replaced(text))
        single = self._gguf.get("tokenizer.ggml.remove_extra_whitespaces") is True
        if single:
            text = " ".join(filter(None, text.split(" ")))
        if text and self._gguf.get("tokenizer.ggml.add_space_prefix") is True:
            text = f" {text}"
        text = text.replace(" ", SPACE)
        return text.rstrip(SPACE) if single else text

    def _replaced(self, text: str) -> Iterator[str]:
        """The text, normalized but for the pieces that a user defined."""
        for part in self._user_defined.split(text) if self._user_defined else (text,):
            yield part if part in self._pieces.user_defined else self._charsmap.normalized(part)

    @cached_property
    def _charsmap(self) -> Charsmap:
        return Charsmap(bytes(self._gguf.get("tokenizer.ggml.precompiled_charsmap", ())))

    @cached_property
    def _user_defined(self) -> re.Pattern[str] | None:
        texts = sorted(self._pieces.user_defined, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, texts))})") if texts else None
