"""A `tokenizer.model` written by hand: a Protocol Buffers message of pieces, trainer and normalizer."""

from __future__ import annotations

import base64
import struct
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from sentencepiece import SentencePieceTrainer

from llamacli.checkpoint.sentencepiece import parse

Piece = tuple[str, float, int]
"""Text, score and type (`TokenType`)."""


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def field(number: int, content: bytes | int) -> bytes:
    """A protobuf field of bytes or of a number."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def model_file(
    pieces: Sequence[Piece],
    *,
    unigram: bool,
    byte_fallback: bool = False,
    unknown: int = 0,
    charsmap: bytes = b"",
    prefix: bool = True,
    single_spaces: bool = False,
    suffix: bool = False,
) -> bytes:
    """The file. `single_spaces`: runs of spaces count as one; `suffix`: they stand behind words."""
    written = b"".join(
        field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + field(3, kind))
        for text, score, kind in pieces
    )
    trainer = field(3, 1 if unigram else 2) + field(24, suffix) + field(35, byte_fallback) + field(40, unknown)
    normalizer = field(1, b"identity") + field(2, charsmap) + field(3, prefix) + field(4, single_spaces) + field(5, 1)
    return written + field(2, trainer) + field(3, normalizer)


@lru_cache(maxsize=1)
def charsmap_of_sentencepiece() -> str:
    """SentencePiece's usual compiled normalizer, in base 64."""
    with tempfile.TemporaryDirectory() as folder:
        SentencePieceTrainer.Train(
            sentence_iterator=iter(["a b c d e f g h"] * 20), model_prefix=f"{folder}/m", vocab_size=20,
            hard_vocab_limit=False, minloglevel=2, num_threads=1,
        )  # fmt: skip
        return base64.b64encode(parse(Path(f"{folder}/m.model").read_bytes()).charsmap).decode()
