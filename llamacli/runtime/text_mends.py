"""What a tokenizer does and the engine does not, done to the text before the engine sees it.

Our converter writes under `tokenizer.llamacli.*` what the engine's own keys cannot say: a Unicode form, a space in
front, where words end. Files of other programs have no such keys; for them only the longest words are cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llamacli.formats.gguf_reader import GGUF
from llamacli.runtime.added_tokens import AddedTokens, Bare
from llamacli.runtime.byte_pairs import BytePairs
from llamacli.runtime.charsmap import Charsmap
from llamacli.runtime.older_unicode import FORMS, normalize
from llamacli.runtime.piece_pairs import PiecePairs
from llamacli.runtime.sentencepiece import SentencePiece
from llamacli.runtime.text_steps import First
from llamacli.runtime.unigram import Unigram
from llamacli.runtime.word_pieces import WordPieces

_SPACES = (" ", "\N{LOWER ONE EIGHTH BLOCK}")


@dataclass(frozen=True)
class TextMends:
    """The mends of one vocabulary; see the converter's `Mends` for what each means."""

    normalizer: str = ""
    charsmap: Charsmap | None = None
    single_spaces: bool = False
    space_prefix: str = ""
    engine_prefixes: bool = False
    """Whether the engine puts a space in front of every stretch by itself."""
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    strip_left: frozenset[int] | None = None
    """Tokens that swallow the white space in front of them; None where only the engine may know."""
    strip_right: frozenset[int] | None = None
    ends: frozenset[int] = frozenset()
    """Tokens that end an answer and that the engine does not know as such."""
    ordinary: frozenset[int] = frozenset()
    """Tokens of ordinary text that the engine takes for the end of an answer."""
    pieces: WordPieces | BytePairs | PiecePairs | Unigram | SentencePiece | None = None
    """What stands in for the engine's own tokenizer."""
    literal: re.Pattern[str] | None = None
    """Pieces that stand for themselves wherever they are written: text is cut around them."""
    added: AddedTokens | None = None
    """Tokens that are looked for before the engine sees the text."""

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> TextMends:
        """The mends that a file's metadata ask for."""

        def text(name: str) -> str:
            value = gguf.get(f"tokenizer.llamacli.{name}", "")
            return value if isinstance(value, str) else ""

        def ids(name: str) -> tuple[int, ...]:
            value = gguf.get(f"tokenizer.llamacli.{name}", ())
            return value if isinstance(value, tuple) and all(type(item) is int for item in value) else ()

        left, right = frozenset(ids("strip_left")), frozenset(ids("strip_right"))
        ours = any(key.startswith("tokenizer.llamacli.") for key in gguf.metadata)
        return cls(
            normalizer=text("normalizer") if text("normalizer") in FORMS else "",
            charsmap=_charsmap(gguf) if text("normalizer") == "charsmap" else None,
            single_spaces=text("spaces") == "single",
            space_prefix=text("space_prefix"),
            engine_prefixes=gguf.get("tokenizer.ggml.model") == "llama"
            and gguf.get("tokenizer.ggml.add_space_prefix", True) is True,
            prefix=ids("prefix"),
            suffix=ids("suffix"),
            strip_left=left if ours else None,
            strip_right=right if ours else None,
            ends=frozenset(ids("end_of_turn")),
            ordinary=frozenset(ids("ordinary")),
            pieces=_pieces(gguf),
            literal=_any_of(gguf.get("tokenizer.llamacli.literal", ())),
            added=AddedTokens.from_gguf(gguf, left, right),
        )

    def stretches(self, text: str, *, first: bool) -> Iterator[str | int]:
        """A stretch of text between control tokens, mended: the pieces to be tokenized one by one, and tokens found in it.

        `first`: nothing stands in front of it but BOS.
        """
        for found in self.added.cut(text, self._normalized) if self.added else (self._normalized(text),):
            if isinstance(found, int | Bare):
                yield found
            else:
                spaced = self._with_space(found, first)
                parts = filter(None, self.literal.split(spaced) if self.literal else (spaced,))
                yield from map(First, parts) if first else parts
            first = False

    def _normalized(self, text: str) -> str:
        if self.normalizer:
            text = normalize(self.normalizer, text)
        if self.charsmap:
            text = self.charsmap.normalized(text)
        return " ".join(filter(None, text.split(" "))).rstrip("".join(_SPACES)) if self.single_spaces else text

    def _with_space(self, text: str, first: bool) -> str:
        if not text or not (self.space_prefix == "missing" or (self.space_prefix == "first" and first)):
            return text
        if self.engine_prefixes:  # it adds one in any case
            return text[1:] if text.startswith(_SPACES) and len(text) > 1 else text
        return text if text.startswith(_SPACES) else f" {text}"


def _pieces(gguf: GGUF) -> WordPieces | BytePairs | PiecePairs | Unigram | SentencePiece | None:
    kinds = (WordPieces, BytePairs, PiecePairs, Unigram, SentencePiece)
    return next((found for kind in kinds if (found := kind.from_gguf(gguf))), None)


def _charsmap(gguf: GGUF) -> Charsmap:
    return Charsmap(bytes(gguf.get("tokenizer.ggml.precompiled_charsmap", ())))


def _any_of(texts: object) -> re.Pattern[str] | None:
    """An expression that finds each of `texts`, in their order; what stands between and they themselves are the parts."""
    found = [re.escape(text) for text in texts if isinstance(text, str)] if isinstance(texts, Sequence) else []
    return re.compile(f"({'|'.join(found)})") if found else None


NO_MENDS = TextMends()
