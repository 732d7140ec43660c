"""What stands behind a kept state in its file: how long it is, how it was evaluated, and a checksum over all of it.

The checksum is the SHA-256 of the SHA-256 of each mebibyte, so that all cores compute it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_FOOTER = struct.Struct("<8sQQQ32s")
"""Magic, then what a seal says, in its order."""
_NUMBERS = struct.Struct("<QQQ")
_MAGIC = b"LLCPREF2"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Seal:
    """Of the `length` bytes before it; `aligned` and `but_last` are the evaluator's."""

    length: int
    aligned: int
    but_last: int
    digest: bytes = b""

    @staticmethod
    def read(file: BinaryIO) -> Seal:
        """The seal at the end of a file. Raises ValueError or OSError where there is none."""
        end = file.seek(0, os.SEEK_END)
        if end < _FOOTER.size:
            raise ValueError("too short")
        file.seek(end - _FOOTER.size)
        magic, length, aligned, but_last, digest = _FOOTER.unpack(file.read(_FOOTER.size))
        if magic != _MAGIC or length != end - _FOOTER.size:
            raise ValueError("not an entry")
        return Seal(length, aligned, but_last, digest)

    def fits(self, path: Path, owner: bytes) -> bool:
        """Whether the file holds what it held when it was sealed for `owner`."""
        return self.digest == self._digest(path, owner)

    def put_on(self, path: Path, owner: bytes) -> bool:
        """Seal a file; False if it is not as long as it should be (a full disk). Raises OSError."""
        if path.stat().st_size != self.length:
            return False
        digest = self._digest(path, owner)
        with path.open("ab") as file:
            file.write(_FOOTER.pack(_MAGIC, self.length, self.aligned, self.but_last, digest))
        return True

    def _digest(self, path: Path, owner: bytes) -> bytes:
        numbers = _NUMBERS.pack(self.length, self.aligned, self.but_last)
        return hashlib.sha256(owner + numbers + b"".join(_block_digests(path, self.length))).digest()


def _block_digests(path: Path, length: int) -> list[bytes]:
    """The digest of every block, nothing for those that cannot be read."""
    found = [b""] * -(-length // _BLOCK)
    count = max(1, min(os.cpu_count() or 1, len(found) // 4))

    def digest_some(first: int) -> None:
        """Of every `count`th block: several threads share the work."""
        buffer = memoryview(bytearray(_BLOCK))
        with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
            for number in range(first, len(found), count):
                file.seek(number * _BLOCK)
                size = min(_BLOCK, length - number * _BLOCK)
                if file.readinto(buffer[:size]) == size:
                    found[number] = hashlib.sha256(buffer[:size]).digest()

    threads = [threading.Thread(target=digest_some, args=(first,)) for first in range(1, count)]
    for thread in threads:
        thread.start()
    digest_some(0)
    for thread in threads:
        thread.join()
    return found
