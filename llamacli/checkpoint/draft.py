"""What one tokenizer file says, before padding, special roles and templates: the common shape of all formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamacli.checkpoint.vocabulary import NO_MENDS, Mends, TokenType
from llamacli.errors import CorruptFile

SPACE = "\u2581"
"""SentencePiece's visible space."""


@dataclass(frozen=True)
class AddedToken:
    """A token that is looked for in the text before anything else happens."""

    id: int
    text: str
    special: bool = True
    strip_left: bool = False
    strip_right: bool = False
    normalized: bool = False
    """Whether it is looked for in the text as normalized, not as written."""
    single_word: bool = False
    """Whether it counts only where no letter, digit or the like stands beside it."""


@dataclass(frozen=True)
class Wrapping:
    """What a post-processor puts around a single text. None where it says nothing."""

    prefix: tuple[str, ...] | None = None
    suffix: tuple[str, ...] | None = None
    separates_pairs: bool | None = None
    """Whether something that separates stands between the two texts of a pair."""


NO_WRAPPING = Wrapping()


@dataclass(frozen=True)
class Draft:
    """A tokenizer's own tokens by id (None: a gap), and how the engine is to use them."""

    file: str
    model: str
    pre: str
    tokens: Sequence[str | None]
    types: Sequence[int]
    scores: Sequence[float] | None = None
    merges: tuple[str, ...] | None = None
    added: tuple[AddedToken, ...] = ()
    unknown: int | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    """Role to token text, where the file itself names them."""
    wrapping: Wrapping = NO_WRAPPING
    add_space_prefix: bool | None = None
    remove_extra_whitespaces: bool | None = None
    lowercase: bool | None = None
    strip_accents: bool | None = None
    precompiled_charsmap: bytes | None = None
    mends: Mends = NO_MENDS
    warnings: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    """Steps by which a byte-level tokenizer cuts text into words; see `formats/expressions.py`."""
    phantom_spaces: bool = False
    """WordPiece: the engine wants words marked with a leading space, not word endings with `##`."""


def tokens_by_id(vocab: Any, file: str, rows: int) -> list[str | None]:
    """`{text: id}` as a list by id, gaps as None. Raises CorruptFile for ids that are none, or beyond `rows`."""
    if not isinstance(vocab, dict) or not vocab:
        raise CorruptFile(f"{file} has no vocabulary", _AGAIN)
    if set(map(type, vocab.values())) != {int}:
        raise CorruptFile(f"{file}: a token's id is not a whole number", _AGAIN)
    lowest, highest = min(vocab.values()), max(vocab.values())
    if lowest < 0:
        raise CorruptFile(f"{file}: a token has the negative id {lowest}", _AGAIN)
    check_room(highest + 1, rows, file)
    tokens: list[str | None] = [None] * (highest + 1)
    for text, place in vocab.items():
        tokens[place] = text
    if len(tokens) - tokens.count(None) != len(vocab):
        raise CorruptFile(f"{file}: two tokens have the same id", _AGAIN)
    return tokens


def check_room(tokens: int, rows: int, file: str) -> None:
    """Raises CorruptFile if there are more tokens than the embedding has rows."""
    if tokens > rows:
        raise CorruptFile(
            f"{file} has {tokens:,} tokens but the embedding has only {rows:,} rows",
            "tokenizer and weights are of different models; fetch the checkpoint again",
        )


def byte_types(tokens: Sequence[str | None]) -> list[int]:
    """NORMAL for every token, BYTE for `<0x00>` to `<0xFF>`."""
    normal, of_byte = int(TokenType.NORMAL), int(TokenType.BYTE)
    return [of_byte if text in BYTE_TOKENS else normal for text in tokens]


def missing_bytes(tokens: Sequence[str | None]) -> int:
    """How many of the 256 byte tokens are not there."""
    return len(BYTE_TOKENS.difference(text for text in tokens if text is not None))


BYTE_TOKENS = frozenset(f"<0x{byte:02X}>" for byte in range(256))
_AGAIN = "the tokenizer is damaged; fetch it again"
