"""Reading a large file in pieces, from several threads at once."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Protocol

from llamacli.errors import CorruptFile


class RandomAccess(Protocol):
    """A file that several threads read at once, each at its own offset."""

    size: int

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset` on. Raises CorruptFile if the file ends before."""


class LocalFile:
    """A file on disk, read with `pread` where the system has it, else with a lock around seek and read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        self.size = os.fstat(self._file.fileno()).st_size
        self._lock = threading.Lock()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See `RandomAccess`."""
        done, total = 0, len(buffer)
        while done < total:
            got = self._read(offset + done, buffer[done:])
            if not got:
                raise CorruptFile(
                    f"{self.path} ends at byte {offset + done:,}", "the file is truncated; fetch it again"
                )
            done += got

    def _read(self, offset: int, buffer: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [buffer], offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.readinto(buffer) or 0
