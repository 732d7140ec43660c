"""Weights that the engine has copied into a layout of its own: the pages of the file that they came from are let go.

For some types the engine lays weights out anew for the processor's vectors. The file stays mapped all the while, so the
process would hold such weights twice. Nobody reads the originals again: their pages leave this process here, and stay in
the system's cache of files, where they cost nothing that somebody else needs. Only on Linux, where it can be seen
what is mapped where; elsewhere the system takes such pages back by itself when memory runs short.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from llamacli.formats.gguf_reader import GGUF

READ_BY_ROWS = "token_embd.weight"
"""Where it is the output's matrix too, that is a copy, and the rows of tokens are still read from the file."""

_MAPS = Path("/proc/self/maps")
_COPIED = re.compile(r"repack: repack tensor (\S+) with ")
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r--s ([0-9a-f]+) \S+ (\d+)")
_DONT_NEED = 4
"""Linux' MADV_DONTNEED: of a shared mapping of a file, nothing is lost."""


class CopiedWeights:
    """Learns from the engine's log, while it loads, which tensors it copies."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def hear(self, line: str) -> None:
        """One line of the log."""
        if found := _COPIED.match(line):
            self.names.add(found[1])

    def let_go(self, gguf: GGUF) -> int:
        """Take the pages of the copied tensors out of this process; how many bytes those were."""
        if not self.names or sys.platform != "linux":
            return 0
        total = 0
        advise = ctypes.CDLL(None, use_errno=True).madvise
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for start, stop in self._pages(gguf):
            if advise(start, stop - start, _DONT_NEED) == 0:
                total += stop - start
        return total

    def _pages(self, gguf: GGUF) -> Iterator[tuple[int, int]]:
        """Addresses of whole pages that hold nothing but copied tensors."""
        inodes = {path.stat().st_ino: number for number, path in enumerate(gguf.paths)}
        for low, high, offset, inode in _mappings(_MAPS.read_text(encoding="utf-8", errors="replace")):
            if inode in inodes:
                for start, stop in self._ranges(gguf, inodes[inode]):
                    first = low + max(0, start - offset)
                    last = min(high, low + stop - offset)
                    page = mmap.PAGESIZE
                    if -(-first // page) < last // page:
                        yield -(-first // page) * page, last // page * page

    def _ranges(self, gguf: GGUF, part: int) -> list[tuple[int, int]]:
        """Bytes [start, stop) of the copied tensors in one part of the file, neighbours as one."""
        at = gguf.data_offsets[part]
        gone = [t for t in gguf.tensors if t.part == part and t.name in self.names and t.name != READ_BY_ROWS]
        return joined(sorted((t.offset + at, t.offset + at + t.size_bytes) for t in gone), gguf.alignment)


def joined(places: Iterable[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Ranges that are at most `gap` apart, made one."""
    found: list[tuple[int, int]] = []
    for start, stop in places:
        if found and start - found[-1][1] <= gap:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


def _mappings(text: str) -> Iterator[tuple[int, int, int, int]]:
    """(first address, last, offset in the file, the file's number) of shared, read-only mappings."""
    for line in text.splitlines():
        if found := _MAPPING.match(line):
            yield int(found[1], 16), int(found[2], 16), int(found[3], 16), int(found[4])
