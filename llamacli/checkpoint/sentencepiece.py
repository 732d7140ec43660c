"""tokenizer.model, SentencePiece's own file: a Protocol Buffers message, read here without its libraries.

Field numbers are those of the project's `sentencepiece_model.proto`; the wire format is that of Protocol Buffers 2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from llamacli.checkpoint.draft import SPACE, Draft, Wrapping, check_room
from llamacli.checkpoint.tokenizer_parts import NO_BYTES, byte_warnings, check_charsmap
from llamacli.checkpoint.vocabulary import Mends, TokenType
from llamacli.errors import CorruptFile, Unsupported

FILE = "tokenizer.model"
_AGAIN = "the tokenizer is damaged; fetch it again"

_UNIGRAM, _BPE = 1, 2
_PIECE_TYPES = frozenset(int(kind) for kind in TokenType)


@dataclass(frozen=True)
class Pieces:
    """A SentencePiece model: pieces in order of their ids, and how text is prepared."""

    texts: list[str]
    scores: list[float]
    types: list[int]
    algorithm: int = _UNIGRAM
    byte_fallback: bool = False
    suffixes_space: bool = False
    charsmap: bytes = b""
    normalizer: str = ""
    adds_prefix: bool = True
    removes_extra_spaces: bool = True
    escapes_spaces: bool = True
    special: tuple[tuple[str, int], ...] = ()
    """Role and id of the special pieces that exist."""


def read_sentencepiece(data: bytes, rows: int) -> Draft:
    """tokenizer.model as a Draft for an embedding of `rows` rows. Raises CorruptFile and Unsupported."""
    if data[:1] != b"\n":
        raise Unsupported(
            f"{FILE} is not a SentencePiece model",
            "it may be a tiktoken vocabulary; a checkpoint needs tokenizer.json then",
        )
    pieces = parse(data)
    check_room(len(pieces.texts), rows, FILE)
    if pieces.suffixes_space or not pieces.escapes_spaces:
        raise Unsupported(
            f"{FILE}: the engine knows only spaces that are visible ({SPACE}) and stand in front of words",
            "this one has treat_whitespace_as_suffix, or not escape_whitespaces",
        )
    if pieces.algorithm == _BPE:
        return _bpe(pieces)
    if pieces.algorithm == _UNIGRAM:
        return _unigram(pieces)
    raise Unsupported(f"{FILE}: the engine knows SentencePiece's BPE and unigram models, not number {pieces.algorithm}")


def _bpe(pieces: Pieces) -> Draft:
    warnings = byte_warnings(pieces.texts)
    own = bool(warnings) or not {TokenType.USER_DEFINED, TokenType.UNUSED}.isdisjoint(pieces.types)
    if pieces.removes_extra_spaces:
        warnings.append("the tokenizer takes runs of spaces for one; other programs do not")
    charsmap = check_charsmap(pieces.charsmap, FILE)
    if charsmap:
        warnings.append("the tokenizer normalizes text; other programs do not")
    return Draft(
        file=FILE,
        model="llama",
        pre="default",
        tokens=pieces.texts,
        types=pieces.types,
        scores=pieces.scores,
        unknown=_role(pieces, "unk"),
        roles={role: pieces.texts[place] for role, place in pieces.special},
        wrapping=Wrapping(),
        add_space_prefix=None if pieces.adds_prefix else False,
        precompiled_charsmap=charsmap,
        mends=Mends(
            normalizer="charsmap" if charsmap else "",
            spaces="single" if pieces.removes_extra_spaces else "",
            cut="pairs" if own else "",
        ),
        warnings=tuple(warnings),
    )


def _unigram(pieces: Pieces) -> Draft:
    warnings = []
    if pieces.byte_fallback:
        warnings.append(NO_BYTES)
    if pieces.removes_extra_spaces and not pieces.adds_prefix:
        warnings.append("other programs put a space in front of every text, the tokenizer does not")
    return Draft(
        file=FILE,
        model="t5",
        pre="default",
        tokens=pieces.texts,
        types=pieces.types,
        scores=pieces.scores,
        unknown=_role(pieces, "unk"),
        roles={role: pieces.texts[place] for role, place in pieces.special},
        add_space_prefix=pieces.adds_prefix,
        remove_extra_whitespaces=pieces.removes_extra_spaces,
        precompiled_charsmap=check_charsmap(pieces.charsmap, FILE),
        mends=Mends(cut="sentencepiece"),  # sums in single precision, byte fallback, the space in front
        warnings=tuple(warnings),
    )


def _role(pieces: Pieces, role: str) -> int | None:
    return dict(pieces.special).get(role)


def parse(data: bytes) -> Pieces:
    """The message's fields that matter. Raises CorruptFile for what is no such message."""
    texts: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in fields(data):
        if number == 1 and isinstance(value, bytes):
            text, score, kind = _piece(value, len(texts))
            texts.append(text)
            scores.append(score)
            types.append(kind)
        elif number == 2 and isinstance(value, bytes):
            trainer = dict(fields(value))
        elif number == 3 and isinstance(value, bytes):
            normalizer = dict(fields(value))
    if not texts:
        raise CorruptFile(f"{FILE} has no pieces", _AGAIN)
    if len(set(texts)) != len(texts):
        raise CorruptFile(f"{FILE}: two pieces have the same text", _AGAIN)
    charsmap, name = normalizer.get(2, b""), normalizer.get(1, b"")
    return Pieces(
        texts,
        scores,
        types,
        algorithm=_number(trainer, 3, _UNIGRAM),
        byte_fallback=bool(_number(trainer, 35, 0)),
        suffixes_space=bool(_number(trainer, 24, 0)),
        charsmap=charsmap if isinstance(charsmap, bytes) else b"",
        normalizer=name.decode("utf-8", "replace") if isinstance(name, bytes) else "",
        adds_prefix=bool(_number(normalizer, 3, 1)),
        removes_extra_spaces=bool(_number(normalizer, 4, 1)),
        escapes_spaces=bool(_number(normalizer, 5, 1)),
        special=tuple(_special(trainer, len(texts))),
    )


def _special(trainer: dict[int, int | bytes], count: int) -> Iterator[tuple[str, int]]:
    for role, number, default in (("unk", 40, 0), ("bos", 41, 1), ("eos", 42, 2), ("pad", 43, -1)):
        place = _number(trainer, number, default)
        if 0 <= place < count:
            yield role, place


def _number(message: dict[int, int | bytes], number: int, default: int) -> int:
    value = message.get(number, default)
    if not isinstance(value, int):
        raise CorruptFile(f"{FILE}: a number is stored as text", _AGAIN)
    return value - (1 << 64) if value >= 1 << 63 else value


def _piece(data: bytes, place: int) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, int(TokenType.NORMAL)
    for number, value in fields(data):
        if number == 1 and isinstance(value, bytes):
            try:
                text = value.decode("utf-8")
            except UnicodeDecodeError as error:
                raise CorruptFile(f"{FILE}: piece {place} is not valid UTF-8", _AGAIN) from error
        elif number == 2 and isinstance(value, bytes) and len(value) == 4:
            (score,) = struct.unpack("<f", value)
        elif number == 3 and isinstance(value, int):
            kind = value
    if not abs(score) < 1e30:
        raise CorruptFile(f"{FILE}: the score of piece {place} is not a number", _AGAIN)
    if kind not in _PIECE_TYPES:
        raise CorruptFile(f"{FILE}: piece {place} has the unknown type {kind}", _AGAIN)
    return text, score, kind


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message: numbers as int, all else as bytes. Raises CorruptFile."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == 2:
            length, place = _varint(data, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise CorruptFile(f"{FILE}: field {number} has the unknown wire type {wire}", _AGAIN)
        if place + length > len(data):
            raise CorruptFile(f"{FILE} ends in the middle of a field", _AGAIN)
        yield number, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise CorruptFile(f"{FILE} ends in the middle of a number", _AGAIN)
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
