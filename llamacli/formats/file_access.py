"""Reading a large file in pieces, from several threads at once."""

from __future__ import annotations

import errno
import os
import sys
import threading
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from llamacli.errors import CorruptFile


class RandomAccess(Protocol):
    """A file that several threads read at once, each at its own offset."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset` on. Raises CorruptFile if the file ends before."""


Extent = tuple[RandomAccess, int, int]
"""Bytes [start, stop) of a file."""


class Stream(Protocol):
    """Files that pass by once, from front to back, every byte hashed on its way to whoever needs it.

    Whoever reads says first, in the order of reading, which bytes each piece of work needs. A piece of work keeps its
    bytes in memory until it is released.
    """

    def identity(self) -> str:
        """Differs whenever the files do."""

    def begin(self, needs: Sequence[Sequence[Extent]], done: Collection[int], saved: Any) -> None:
        """Start to read. `done` are numbers of needs that an earlier run has met, `saved` what its `state` was."""

    def release(self, number: int) -> None:
        """Need `number` has been met."""

    def state(self) -> Any:
        """Where a later run can go on, as JSON; it holds for needs released before the call."""

    def finish(self) -> None:
        """Wait for the end of every file that was used. Raises CorruptFile if its bytes are not those promised."""

    def stop(self) -> None:
        """Let go; whoever waits for bytes is woken with an error."""


_MOST_FILES = 10240
"""More than macOS gives to anybody."""


class LocalFile:
    """A file on disk, read with `preadv` where the system has it, else with a lock around seek and read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = _opened(path)
        weakref.finalize(self, os.close, self._descriptor)
        self._stamp = self._stamped()
        self.size = self._stamp[0]
        self._lock = threading.Lock()

    def _stamped(self) -> tuple[int, int]:
        now = os.fstat(self._descriptor)
        return now.st_size, now.st_mtime_ns

    def check_unchanged(self) -> None:
        """Raises CorruptFile if something has written to the file since it was opened."""
        if self._stamped() != self._stamp:
            raise CorruptFile(f"{self.path} was changed while it was read", "wait until it is whole, and start again")

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
            count: int = os.preadv(self._descriptor, [buffer], offset)
            return count
        with self._lock:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            data = os.read(self._descriptor, len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _opened(path: Path) -> int:
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(path, flags)
    except OSError as error:
        if error.errno != errno.EMFILE or not _allow_more_files():
            raise
    return os.open(path, flags)


def _allow_more_files() -> bool:
    """Ask for as many open files as this process may have: macOS begins with 256, and large models have as many shards."""
    if sys.platform == "win32":
        return False
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return True
