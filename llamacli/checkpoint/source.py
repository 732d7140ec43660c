"""Where a checkpoint's bytes come from: a folder here, or later a revision on the Hub read by byte ranges."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from llamacli.errors import CorruptFile, NotFound, Unsupported

MAX_TEXT_BYTES = 256 << 20
"""No configuration or tokenizer file is larger; a larger one is a trap for our memory."""


class RandomAccess(Protocol):
    """A file that several threads read at once, each at its own offset."""

    size: int

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset` on. Raises CorruptFile if the file ends before."""


class Source(Protocol):
    """The files of one checkpoint. Names are plain: no folders, no `..`."""

    label: str

    def files(self) -> tuple[str, ...]:
        """Names of all files, sorted."""

    def read(self, name: str) -> bytes:
        """A small file, whole. Raises NotFound."""

    def open(self, name: str) -> RandomAccess:
        """A large file, to be read in pieces."""


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


@dataclass(frozen=True)
class Folder:
    """A checkpoint in a folder on this computer."""

    path: Path
    label: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise NotFound(f"no such folder: {self.path}")
        if not self.path.is_dir():
            raise Unsupported(
                f"not a folder: {self.path}", "a checkpoint is a folder with config.json and *.safetensors"
            )
        object.__setattr__(self, "label", str(self.path))

    def files(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(sorted(entry.name for entry in os.scandir(self.path) if entry.is_file()))

    def read(self, name: str) -> bytes:
        """See `Source`."""
        path = self._resolve(name)
        if not path.is_file():
            raise NotFound(f"{self.path} has no {name}")
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise CorruptFile(f"{path} is larger than any file of its kind ({path.stat().st_size:,} bytes)")
        return path.read_bytes()

    def open(self, name: str) -> LocalFile:
        """See `Source`."""
        path = self._resolve(name)
        if not path.is_file():
            raise CorruptFile(f"{self.path} has no file {name}", "a shard is missing; fetch the checkpoint again")
        return LocalFile(path)

    def _resolve(self, name: str) -> Path:
        if not plain(name):
            raise CorruptFile(f"{self.path}: {name!r} is not a plain file name")
        return self.path / name


def plain(name: str) -> bool:
    """Whether `name` names a file right here on every system: no separators, drives, `..`, NUL or control characters."""
    return (
        0 < len(name.encode("utf-8", "surrogatepass")) <= 255
        and name not in (".", "..")
        and not any(c in '/\\:*?"<>|' or c < " " or c == "\x7f" for c in name)
        and name[-1] not in ". "
    )
