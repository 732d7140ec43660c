"""The same bytes in several places on this computer, and one copy in their stead when the user asks for it.

Files of equal size are compared by SHA-256. The Hub cache and Ollama name their files by it; of all others it is
computed once and remembered for as long as size, time and inode stay.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamacli.errors import CannotWrite, CorruptFile
from llamacli.formats.durable import replace, write_whole
from llamacli.library.digest import BLOCK, hasher
from llamacli.library.inventory import LocalModel
from llamacli.progress import Progress, Silent

FICLONE = 0x40049409
"""Linux' ioctl that makes a file share another's blocks until one of them is written (ioctl_ficlone(2))."""

SMALLEST = 1 << 20
"""Bytes below which nobody looks."""


@dataclass(frozen=True)
class Copy:
    """One file and the store it is in."""

    path: Path
    store: str


@dataclass(frozen=True)
class Duplicate:
    """Files with the same bytes; the first is the one to keep."""

    size: int
    copies: tuple[Copy, ...]

    @property
    def wasted(self) -> int:
        """Bytes that one copy alone would save."""
        return self.size * (len(self.copies) - 1)


def copies_of(models: Iterable[LocalModel]) -> list[Copy]:
    """The real files of all models, each once."""
    found: dict[str, Copy] = {}
    for model in models:
        for path in model.files or (model.path,):
            real = os.path.realpath(path)
            if os.path.isfile(real):  # noqa: PTH113
                found.setdefault(real, Copy(Path(real), model.where))
    return list(found.values())


def by_store(copies: Iterable[Copy]) -> dict[str, int]:
    """Bytes on disk in each store; a file with several names counts once."""
    sizes: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()
    for copy in copies:
        status = copy.path.stat()
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            sizes[copy.store] = sizes.get(copy.store, 0) + status.st_size
    return sizes


def duplicates(copies: Iterable[Copy], memory: Path, progress: Progress | None = None) -> list[Duplicate]:
    """Files with equal bytes that are stored more than once; what was hashed is remembered in the file `memory`."""
    same_size: dict[int, dict[tuple[int, int], Copy]] = defaultdict(dict)
    for copy in copies:
        status = copy.path.stat()
        if status.st_size >= SMALLEST:
            same_size[status.st_size].setdefault((status.st_dev, status.st_ino), copy)
    known = _Digests(memory, progress or Silent())
    found = []
    for size, group in same_size.items():
        equal: dict[str, list[Copy]] = defaultdict(list)
        for copy in group.values() if len(group) > 1 else ():
            equal[known.of(copy.path)].append(copy)
        for same in equal.values():
            if len(same) > 1:
                found.append(Duplicate(size, tuple(sorted(same, key=lambda c: (c.store != "hf", str(c.path))))))
    known.save()
    return sorted(found, key=lambda d: -d.wasted)


def link_copies(duplicate: Duplicate) -> int:
    """Make all copies share the first one's bytes; how many bytes that frees.

    A clone where the file system has them (each stays a file of its own), else a hard link. Compared byte by byte
    before, whatever a name or a memory says. Raises CannotWrite, CorruptFile if they differ.
    """
    keep, *others = duplicate.copies
    for copy in others:
        _check_equal(keep.path, copy.path)
        temporary = copy.path.with_name(f".{secrets.token_hex(6)}.new")
        try:
            if not _cloned(keep.path, temporary):
                temporary.unlink(missing_ok=True)
                temporary.hardlink_to(keep.path)
            replace(temporary, copy.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            reason = (error.strerror or type(error).__name__).lower()
            raise CannotWrite(
                f"cannot link {copy.path}: {reason}", "are both on one disk, and yours to write?"
            ) from None
    return duplicate.wasted


def _cloned(source: Path, target: Path) -> bool:
    """Whether `target` now is a clone of `source`, with its time and rights."""
    if not sys.platform.startswith("linux"):
        return False
    import fcntl
    import shutil

    try:
        with source.open("rb") as old, target.open("xb") as new:
            fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
        shutil.copystat(source, target)
    except OSError:
        return False
    return True


def _check_equal(one: Path, other: Path) -> None:
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            block = first.read(BLOCK)
            if block != second.read(BLOCK):
                raise CorruptFile(f"{one} and {other} are not equal", "one of them is damaged: llamacli verify")
            if not block:
                return


class _Digests:
    """SHA-256 of files, by their names where those tell, else computed and remembered."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path, self.progress = path, progress
        self.known: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(path.read_bytes())
            self.known = content if isinstance(content, dict) else {}

    def of(self, path: Path) -> str:
        if named := re.fullmatch(r"(?:sha256-)?([0-9a-f]{64})", path.name):
            return named[1]
        status = path.stat()
        mark = [status.st_size, status.st_mtime_ns, status.st_ino]
        entry = self.known.get(str(path))
        if not (isinstance(entry, list) and entry[:3] == mark and len(entry) == 4):
            entry = [*mark, _sha256(path, self.progress)]
            self.known[str(path)] = entry
        return str(entry[3])

    def save(self) -> None:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(self.known))


def _sha256(path: Path, progress: Progress) -> str:
    hashing = hasher("0" * 64, 0)
    progress.describe(path.name)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            hashing.update(block)
            progress.advance(len(block))
    return hashing.hexdigest()
