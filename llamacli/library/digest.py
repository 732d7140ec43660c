"""What the Hub says a file's bytes are: SHA-256 for large files (LFS), git's blob SHA-1 for small ones."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Protocol

from llamacli.progress import Progress, Silent

BLOCK = 1 << 20


class Hash(Protocol):
    """The part of hashlib's objects that is used here."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """The digest so far."""


def hasher(digest: str, size: int) -> Hash:
    """A fresh hash of the kind that `digest` is: 64 hexadecimal digits SHA-256, 40 git's SHA-1 of "blob SIZE\\0..."."""
    if re.fullmatch(r"[0-9a-f]{64}", digest):
        return hashlib.sha256()
    if re.fullmatch(r"[0-9a-f]{40}", digest):
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    raise ValueError(f"not a digest: {digest!r}")


def is_digest(text: object) -> bool:
    """Whether `text` can be compared with what arrives."""
    return isinstance(text, str) and bool(re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", text))


def file_matches(path: Path, digest: str, progress: Progress | None = None) -> bool:
    """Whether the bytes of the file at `path` have `digest`; reads all of it."""
    progress = progress or Silent()
    with path.open("rb", buffering=0) as file:
        hashing = hasher(digest, path.stat().st_size)
        buffer = memoryview(bytearray(BLOCK))
        while count := file.readinto(buffer):
            hashing.update(buffer[:count])
            progress.advance(count)
    return hashing.hexdigest() == digest
