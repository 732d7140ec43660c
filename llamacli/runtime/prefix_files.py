"""The files of kept prefixes: what lies on the disk, which go when there are too many, what is left behind is swept up."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llamacli.runtime.prefix_seal import Seal

SUFFIX, PART = ".kv", ".part"
CHAT, NAMED = "chat-", "name-"
_ABOUT = "about.json"
_STATE_HEAD = struct.Struct("<III")
"""The engine's state file: magic, version, number of tokens, then the tokens as int32."""
_STALE = 3600.0
"""Seconds after which a file that somebody was writing counts as left behind."""


@dataclass(frozen=True)
class Entry:
    """One kept prefix. `tokens` are int32 in the machine's order."""

    path: Path
    tokens: bytes
    seal: Seal
    size: int
    used: float
    """When it was last of use, in seconds since 1970."""
    model: str = ""

    @property
    def count(self) -> int:
        """How many tokens it holds."""
        return len(self.tokens) // 4

    @property
    def label(self) -> str:
        """`chat` or the user's name for it; nothing for what was kept by itself."""
        name = self.path.name.removesuffix(SUFFIX)
        if name.startswith(CHAT):
            return "chat"
        return name.removeprefix(NAMED).rpartition("-")[0] if name.startswith(NAMED) else ""


def chat_file(chat: str) -> str:
    """The name of the file with the state of a whole conversation."""
    return f"{CHAT}{chat}{SUFFIX}"


def make_folder(folder: Path, model: Path) -> None:
    """A folder for the prefixes of one model and its settings. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = folder / _ABOUT
    if not about.exists():
        about.write_text(json.dumps({"model": str(model.absolute())}), encoding="utf-8")


def entry_at(path: Path, model: str = "") -> Entry | None:
    """The entry in a file, None where there is none; its contents are not checked here."""
    with contextlib.suppress(OSError, struct.error, ValueError), path.open("rb") as file:
        stat = os.fstat(file.fileno())
        seal = Seal.read(file)
        file.seek(0)
        count = _STATE_HEAD.unpack(file.read(_STATE_HEAD.size))[2]
        if _STATE_HEAD.size + 4 * count <= seal.length and max(seal.aligned, seal.but_last) <= count:
            return Entry(path, file.read(4 * count), seal, stat.st_size, stat.st_mtime, model)
    return None


def entries_in(folder: Path, model: str = "") -> Iterator[Entry]:
    """What lies in one folder, as far as it can be read."""
    try:
        paths = [Path(entry.path) for entry in os.scandir(folder) if entry.name.endswith(SUFFIX)]
    except OSError:
        return
    for path in paths:
        if (entry := entry_at(path, model)) is not None:
            yield entry


def all_entries(root: Path) -> list[Entry]:
    """Every kept prefix under `root`, the last used first."""
    found: list[Entry] = []
    for folder in _folders(root):
        found += entries_in(folder, _model(folder))
    return sorted(found, key=lambda entry: -entry.used)


def _folders(root: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _model(folder: Path) -> str:
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        return str(about["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def remove(entry: Entry) -> bool:
    """Remove one entry; False if it cannot be removed now."""
    try:
        entry.path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def forget_chat(root: Path, chat: str) -> None:
    """Remove what is kept of a conversation."""
    for entry in all_entries(root):
        if entry.path.name == chat_file(chat):
            remove(entry)
    sweep(root)


def sweep(root: Path) -> None:
    """Remove what killed processes have left, what is no entry (any more), and folders without entries."""
    for folder in _folders(root):
        with contextlib.suppress(OSError):
            paths = [path for path in folder.iterdir() if path.suffix in (SUFFIX, PART)]
            waste = [path for path in paths if _is_waste(path)]
            for path in waste:
                path.unlink(missing_ok=True)
            if len(waste) == len(paths):
                (folder / _ABOUT).unlink(missing_ok=True)
                folder.rmdir()


def _is_waste(path: Path) -> bool:
    if path.suffix == PART:
        return time.time() - path.stat().st_mtime > _STALE
    try:
        with path.open("rb") as file:
            Seal.read(file)
    except ValueError:
        return True
    return False


def make_room(root: Path, limit: int) -> None:
    """Remove the entries used longest ago until the rest takes at most `limit` bytes; named ones stay."""
    found = all_entries(root)
    total = sum(entry.size for entry in found)
    if total <= limit:
        return
    for entry in reversed(found):
        if total <= limit:
            break
        if not entry.path.name.startswith(NAMED) and remove(entry):
            total -= entry.size
    sweep(root)
