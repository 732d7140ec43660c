"""Bytes as text, the same on every system: what editors and shells write, whatever the locale says."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TextIO

_MARKS: Mapping[bytes, str] = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte order marks; Windows PowerShell writes them with `>`."""


def encoding_of(start: bytes) -> str:
    """The encoding of a text that begins so: UTF-16 if its mark says so, else UTF-8 with or without a mark."""
    return _MARKS.get(start[:2], "utf-8-sig")


def is_binary(data: bytes) -> bool:
    """Whether this is no text: it holds a NUL byte, and no mark explains it."""
    return b"\0" in data and encoding_of(data) == "utf-8-sig"


def decoded(data: bytes) -> str:
    """The text, its lines ended as everywhere but on Windows. Raises UnicodeDecodeError."""
    return data.decode(encoding_of(data)).replace("\r\n", "\n")


def lines_of(stream: TextIO) -> TextIO:
    """`stream` ready to be read line by line, ends of lines untouched; bytes that are no text come as surrogates."""
    if isinstance(stream, io.TextIOWrapper):
        start = stream.buffer.peek(2) if isinstance(stream.buffer, io.BufferedReader) else b""
        stream.reconfigure(
            encoding=encoding_of(start),
            errors="surrogateescape" if encoding_of(start).startswith("utf-8") else "replace",
            newline="",
        )
    return stream
