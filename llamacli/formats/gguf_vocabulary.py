"""Whether the engine can read a GGUF file's vocabulary: the rules of `gguf_check` that concern the tokenizer.

The engine trusts its vocabulary at every prompt: a token that is missing then is not an error but the end of the
process. Works on bytes, since a token's text can be any bytes; a vocabulary of 150,000 takes some 30 ms.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

from llamacli.errors import CorruptFile, Unsupported
from llamacli.formats.gguf_reader import GGUF, Strings
from llamacli.formats.gguf_values import ValueType

KINDS: dict[str, tuple[int | None, int | None]] = {
    "llama": (1, 2),
    "bert": (101, None),
    "gpt2": (11, 11),
    "hybriddna": (11, 11),
    "whitespace": (11, 11),
    "t5": (None, 1),
    "rwkv": (None, None),
    "plamo2": (1, 2),
    "gemma4": (None, None),
}
"""`tokenizer.ggml.model` as the engine knows it, each with its default tokens for beginning and end of text."""

BYTE_TYPE = 6
_BERT_SEPARATOR = 102
_LONGEST_TOKEN = 1 << 12
_UTF8_BYTES = (*range(0xC0), *range(0xC2, 0xF5))
"""Bytes that occur in valid UTF-8."""
_HINT = "the engine would crash on it; get the file from its maker again, or convert the model again"


def check_vocabulary(gguf: GGUF) -> None:
    """Raise `CorruptFile` or `Unsupported` where the engine would crash on this vocabulary."""
    kind = gguf.get("tokenizer.ggml.model")
    tokens = _byte_strings(gguf, "tokenizer.ggml.tokens")
    if not isinstance(kind, str) or tokens is None:
        raise _fault(gguf, "it has no vocabulary")
    kind = kind.split("\0", 1)[0]
    if kind not in KINDS:
        raise Unsupported(f"{gguf.path}: the tokenizer {kind!r} is not known", "a newer release may know it")
    texts = _check_unique(gguf, tokens)
    _check_special(gguf, kind, len(tokens))
    if kind in ("llama", "gemma4"):
        _check_bytes(gguf, kind, texts)
    elif kind == "bert" and BYTE_TYPE in (gguf.get("tokenizer.ggml.token_type") or ()):
        raise _fault(gguf, "a WordPiece vocabulary (bert) has byte tokens")
    elif kind == "rwkv":
        _check_rwkv(gguf, tokens)
    elif kind == "t5":
        _check_normalizer(gguf)
    elif kind == "plamo2" and max(map(len, texts)) > _LONGEST_TOKEN:
        raise _fault(gguf, f"a token is longer than {_LONGEST_TOKEN:,} bytes, and the engine looks at all its ends")


def _check_unique(gguf: GGUF, tokens: Sequence[bytes]) -> set[bytes]:
    """Two tokens of one text, as the engine sees it, trip an assertion."""
    if not tokens:
        raise _fault(gguf, "its vocabulary is empty")
    if b"\0" in b"".join(tokens):
        tokens = [token.split(b"\0", 1)[0] for token in tokens]
    texts = set(tokens)
    if b"" in texts:
        tokens = [token or b"[EMPTY_%d]" % number for number, token in enumerate(tokens)]
        texts = set(tokens)
    if len(texts) != len(tokens):
        raise _fault(gguf, "the tokens {} and {} are both {!r}".format(*_first_twins(tokens)))
    return texts


def _first_twins(tokens: Sequence[bytes]) -> tuple[int, int, str]:
    seen: dict[bytes, int] = {}
    for number, token in enumerate(tokens):
        if token in seen:
            return seen[token], number, token[:60].decode("utf-8", "replace")
        seen[token] = number
    raise ValueError("no token stands there twice")


def _check_special(gguf: GGUF, kind: str, count: int) -> None:
    """The tokens that are put around a text must exist, where the file asks for them."""
    begin_default, end_default = KINDS[kind]
    begin = _special(gguf, "bos", begin_default, count)
    end = _special(gguf, "eos", end_default, count)
    separator = _special(gguf, "seperator", _BERT_SEPARATOR, count)  # the engine's own spelling
    always = kind in ("bert", "gemma4") or gguf.get("tokenizer.ggml.pre") == "gemma4"
    wants_begin = always or gguf.get("tokenizer.ggml.add_bos_token", kind not in ("t5", "rwkv", "plamo2"))
    if begin is None and wants_begin:
        raise _fault(gguf, "tokenizer.ggml.bos_token_id names no token, and texts begin with it")
    if end is None and gguf.get("tokenizer.ggml.add_eos_token", kind == "t5"):
        raise _fault(gguf, "tokenizer.ggml.eos_token_id names no token, and texts end with it")
    if separator is None and kind == "bert":
        raise _fault(gguf, "tokenizer.ggml.seperator_token_id names no token, and texts end with it")


def _special(gguf: GGUF, name: str, default: int | None, count: int) -> int | None:
    """The token that the engine would take: the file's where it exists, else the default where that exists."""
    own = gguf.metadata.get(f"tokenizer.ggml.{name}_token_id")
    if own is not None and own.type is ValueType.UINT32 and own.value < count:
        chosen: int = own.value
        return chosen
    return default if default is not None and default < count else None


def _check_bytes(gguf: GGUF, kind: str, texts: set[bytes]) -> None:
    """SentencePiece falls back on bytes for what it does not know; the engine throws where one is missing.

    A vocabulary without any byte token is a small one that has no such fallback: the runtime keeps what it does not
    know from the engine.
    """
    if kind == "gemma4":
        return  # skips what it does not know
    if not any(b"<0x%02X>" % byte in texts for byte in _UTF8_BYTES):
        return
    for byte in _UTF8_BYTES:
        if b"<0x%02X>" % byte not in texts and bytes([byte]) not in texts:
            raise _fault(gguf, f"its vocabulary has no token <0x{byte:02X}>")


def _check_rwkv(gguf: GGUF, tokens: Sequence[bytes]) -> None:
    """RWKV's matcher never ends on a text that begins as a token does and is none."""
    plain = [_unescaped(token) for token in tokens]
    starts = {token[:1] for token in plain if token}
    missing = starts - {token for token in plain if len(token) == 1}
    if missing:
        raise _fault(gguf, f"no token is the single byte {min(missing)!r}, with which others begin")


def _unescaped(token: bytes) -> bytes:
    if b"\\" not in token:
        return token
    return re.sub(rb"\\(x([0-9a-fA-F]{2})|.)", _escape, token, flags=re.DOTALL)


def _escape(match: re.Match[bytes]) -> bytes:
    if match[2]:
        return bytes([int(match[2], 16)])
    return {b"t": b"\t", b"n": b"\n", b"r": b"\r"}.get(match[1], match[1])


def _check_normalizer(gguf: GGUF) -> None:
    """The compiled normalizer of Unigram vocabularies: no step and no replacement may lead out of its arrays.

    Layout: size of the double array in bytes (32 bits), the double array (32-bit units; bits 10-30 the base, bit 9
    scales it by 256, bit 8 marks a leaf), then replacement texts that end with a zero byte. Follows Kanda, Space- and
    Time-Efficient String Dictionaries (2018), as SentencePiece stores it.
    """
    entry = gguf.metadata.get("tokenizer.ggml.precompiled_charsmap")
    if entry is None or entry.element not in (ValueType.INT8, ValueType.UINT8) or len(entry.value) < 4:
        return  # the engine answers for itself
    value = entry.value
    blob = struct.pack(f"{len(value)}{'b' if min(value) < 0 else 'B'}", *value)
    size = int.from_bytes(blob[:4], "little")
    if size + 4 >= len(blob):
        return  # the engine answers for itself
    units = struct.unpack_from(f"<{size // 4}I", blob, 4)
    replacements = len(blob) - size - 4
    if not units or blob[-1]:
        raise _fault(gguf, "tokenizer.ggml.precompiled_charsmap is cut short")
    for index, unit in enumerate(units):
        if unit >> 31:
            continue  # a value, not a step
        base = index ^ ((unit >> 10) << ((unit & 0x200) >> 6))
        if base | 0xFF >= len(units):
            raise _fault(gguf, "tokenizer.ggml.precompiled_charsmap leads out of itself")
        if unit & 0x100 and units[base] & 0x7FFFFFFF >= replacements:
            raise _fault(gguf, "tokenizer.ggml.precompiled_charsmap names a replacement that is not there")


def _byte_strings(gguf: GGUF, key: str) -> Sequence[bytes] | None:
    value = gguf.metadata.get(key)
    if value is None or value.element is not ValueType.STRING:
        return None
    if isinstance(value.value, Strings):
        return value.value.byte_strings
    return [item if isinstance(item, bytes) else item.encode() for item in value.value]


def _fault(gguf: GGUF, what: str) -> CorruptFile:
    return CorruptFile(f"{gguf.path}: {what}", _HINT)
