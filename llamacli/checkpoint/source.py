"""Where a checkpoint's bytes come from: a folder here, or what a caller brings, such as a revision on the Hub."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from llamacli.errors import CorruptFile, NotFound, Unsupported
from llamacli.formats.file_access import LocalFile, RandomAccess, Stream

MAX_TEXT_BYTES = 256 << 20
"""No configuration or tokenizer file is larger; a larger one is a trap for our memory."""


class Source(Protocol):
    """The files of one checkpoint. Names are plain: no `..`, no folders but one in front where `read` says so."""

    @property
    def label(self) -> str:
        """Where it is, for messages."""

    @property
    def name(self) -> str:
        """The model's name."""

    def files(self) -> tuple[str, ...]:
        """Names of all files, sorted."""

    def within(self, folder: str) -> tuple[str, ...]:
        """Names of the files in a folder beside them, sorted; none where there is no such folder."""

    def read(self, name: str) -> bytes:
        """A small file, whole; also `folder/file`. Raises NotFound."""

    def open(self, name: str) -> RandomAccess:
        """A large file, to be read in pieces."""

    def paths(self) -> tuple[Path, ...]:
        """Files on this computer that are read and must never be written to."""

    def stream(self) -> Stream | None:
        """What governs reading where the large files are not on this computer, else None."""


@dataclass(frozen=True)
class Folder:
    """A checkpoint in a folder on this computer."""

    path: Path
    label: str = field(init=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise NotFound(f"no such folder: {self.path}")
        if not self.path.is_dir():
            raise Unsupported(
                f"not a folder: {self.path}", "a checkpoint is a folder with config.json and *.safetensors"
            )
        object.__setattr__(self, "label", str(self.path))
        object.__setattr__(self, "name", _model_name(self.path.resolve()))

    def files(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(sorted(entry.name for entry in os.scandir(self.path) if entry.is_file()))

    def within(self, folder: str) -> tuple[str, ...]:
        """See `Source`."""
        path = self._resolve(folder)
        return tuple(sorted(entry.name for entry in os.scandir(path) if entry.is_file())) if path.is_dir() else ()

    def read(self, name: str) -> bytes:
        """See `Source`."""
        folder, _, file = name.rpartition("/")
        path = self._resolve(file) if not folder else self._resolve(folder) / self._resolve(file).name
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

    def paths(self) -> tuple[Path, ...]:
        """See `Source`."""
        return tuple(self.path / name for name in self.files())

    def stream(self) -> None:
        """See `Source`."""

    def _resolve(self, name: str) -> Path:
        if not plain(name):
            raise CorruptFile(f"{self.path}: {name!r} is not a plain file name")
        return self.path / name


def _model_name(path: Path) -> str:
    """The folder's name; in the Hub's cache the repository's (`models--user--repo/snapshots/<commit>`)."""
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.split("--")[-1]
    return path.name or "model"


def plain(name: str) -> bool:
    """Whether `name` names a file right here on every system: no separators, drives, `..` or control characters."""
    return (
        0 < len(name.encode("utf-8", "surrogatepass")) <= 255
        and name not in (".", "..")
        and not any(c in '/\\:*?"<>|' or c < " " or c == "\x7f" for c in name)
        and name[-1] not in ". "
    )
