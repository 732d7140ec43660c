"""A file on its way: its bytes so far, and beside them a map of which ranges are here.

    <name>.llamacli-part          the bytes, each at its final offset
    <name>.llamacli-part.json     {"version", "size", "digest", "host", "validator", "done": [[start, stop], ...]}

Bytes are forced to disk before the map that mentions them is, so the map never promises what a power cut took away. Any
later process goes on from the map.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamacli.errors import CannotWrite
from llamacli.formats.durable import data_to_disk, replace
from llamacli.library.digest import is_digest
from llamacli.library.ranges import Ranges

VERSION = 1


@dataclass
class Piece:
    """A stretch that one connection is fetching: bytes [at, stop), `at` moves on as they arrive."""

    at: int
    stop: int
    generation: int


class Part:
    """The unfinished file at `path`, for several threads. `size` and `digest` say what it is to become."""

    def __init__(self, path: Path, size: int, digest: str) -> None:
        self.path, self.size, self.digest = path, size, digest
        self.host = self.validator = ""
        """Which server gave bytes, and its ETag: asked for with If-Range when the same server goes on."""
        self.changed = threading.Condition()
        self.generation = 0
        self._done = Ranges()
        self._flying: list[Piece] = []
        self._saved = -1
        self._seek, self._saving = threading.Lock(), threading.Lock()
        try:
            self._load()
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            self._file = os.open(path, flags, 0o644)
        except OSError as error:
            raise cannot_write(path, error) from None
        self._done = _up_to(self._done, min(size, os.fstat(self._file).st_size))

    # -- what is here ------------------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """Bytes that are here."""
        with self.changed:
            return self._done.total

    @property
    def complete(self) -> bool:
        """Whether every byte is here."""
        return self.total == self.size

    def follow(self, at: int, generation: int, timeout: float) -> tuple[int, int]:
        """Wait until more than `at` bytes are here without a gap; the length of that prefix, and the generation."""
        with self.changed:
            self.changed.wait_for(lambda: self._done.prefix > at or self.generation != generation, timeout)
            return self._done.prefix, self.generation

    def wake(self) -> None:
        """Wake up whoever waits in `follow`."""
        with self.changed:
            self.changed.notify_all()

    # -- who fetches what --------------------------------------------------------------------------------------

    def claim(self, longest: int) -> Piece | None:
        """The first stretch that is neither here nor being fetched; None if there is none."""
        with self.changed:
            taken = Ranges(self._done)
            for piece in self._flying:
                taken.add(piece.at, piece.stop)
            gap = next(taken.gaps(self.size), None)
            if gap is None:
                return None
            piece = Piece(gap[0], min(gap[1], gap[0] + longest), self.generation)
            self._flying.append(piece)
            return piece

    def release(self, piece: Piece) -> None:
        """`piece` is no longer being fetched, finished or not."""
        with self.changed:
            if piece in self._flying:
                self._flying.remove(piece)
            self.changed.notify_all()

    def restart(self, piece: Piece) -> bool:
        """Forget every byte; `piece` becomes the whole file. False if another thread has just done so."""
        with self.changed:
            if piece.generation != self.generation:
                return False
            self._forget()
            piece.at, piece.stop, piece.generation = 0, self.size, self.generation
            self._flying.append(piece)
            return True

    def forget(self) -> None:
        """Forget every byte."""
        with self.changed:
            self._forget()

    def _forget(self) -> None:
        self.generation += 1
        self._done, self._flying = Ranges(), []
        self.host = self.validator = ""
        self.changed.notify_all()

    # -- bytes -------------------------------------------------------------------------------------------------

    def write(self, piece: Piece, data: memoryview) -> bool:
        """Put `data` where `piece` stands. False, and nothing written, if the piece is of a forgotten generation."""
        if piece.generation != self.generation:
            return False
        try:
            self._write(piece.at, data)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        with self.changed:
            if piece.generation != self.generation:
                return False
            self._done.add(piece.at, piece.at + len(data))
            piece.at += len(data)
            self.changed.notify_all()
        return True

    def _write(self, offset: int, data: memoryview) -> None:
        while data:
            if hasattr(os, "pwrite"):
                count = os.pwrite(self._file, data, offset)
            else:
                with self._seek:
                    os.lseek(self._file, offset, os.SEEK_SET)
                    count = os.write(self._file, data)
            data, offset = data[count:], offset + count

    def read(self, offset: int, count: int) -> bytes:
        """Bytes that are here; fewer only if the file on disk is shorter than its map says."""
        if hasattr(os, "pread"):
            data: bytes = os.pread(self._file, count, offset)
            return data
        with self._seek:
            os.lseek(self._file, offset, os.SEEK_SET)
            return os.read(self._file, count)

    # -- the map -----------------------------------------------------------------------------------------------

    @property
    def map_path(self) -> Path:
        """Where the map is."""
        return map_of(self.path)

    def save(self) -> None:
        """Force the bytes to disk, then the map that mentions them. Does nothing if nothing has come since."""
        with self.changed:
            done, generation = list(self._done), self.generation
            state = {
                "version": VERSION, "size": self.size, "digest": self.digest,
                "host": self.host, "validator": self.validator, "done": done,
            }  # fmt: skip
            mark = hash((generation, tuple(done)))
        with self._saving:
            if mark != self._saved:
                self._save(state)
                self._saved = mark

    def _save(self, state: dict[str, Any]) -> None:
        try:
            self.sync()
            temporary = self.map_path.with_name(self.map_path.name + ".new")
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
            with open(os.open(temporary, flags, 0o644), "w", encoding="utf-8") as file:
                json.dump(state, file)
            replace(temporary, self.map_path)
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def sync(self) -> None:
        """Force the bytes to disk."""
        data_to_disk(self._file)

    def close(self) -> None:
        """Close the file; what is here stays for the next process."""
        with self.changed:
            self.generation += 1  # a thread that comes late writes nothing
            file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _load(self) -> None:
        state = _read_map(self.map_path)
        if state.get("size") == self.size and state.get("digest") == self.digest:
            self._done = Ranges(state["done"])
            self.host, self.validator = state["host"], state["validator"]


def map_of(path: Path) -> Path:
    """The map's place beside an unfinished file."""
    return path.with_name(path.name + ".json")


def discard(path: Path) -> None:
    """Remove an unfinished file and its map."""
    for leftover in (path, map_of(path), map_of(path).with_name(map_of(path).name + ".new")):
        with contextlib.suppress(FileNotFoundError):
            leftover.unlink()


def bytes_here(path: Path) -> int:
    """How many bytes the map beside `path` promises; 0 without a map. Never raises: another process may be at work."""
    return Ranges(_read_map(map_of(path)).get("done", [])).total


def _read_map(path: Path) -> dict[str, Any]:
    """The map at `path`, or nothing if it is missing or not one of ours."""
    try:
        state = json.loads(path.read_bytes())
        done = [(a, b) for a, b in state["done"] if type(a) is int and type(b) is int and 0 <= a < b <= state["size"]]
        if state["version"] == VERSION and is_digest(state["digest"]) and len(done) == len(state["done"]):
            return {**state, "done": done, "host": str(state["host"]), "validator": str(state["validator"])}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def _up_to(ranges: Ranges, end: int) -> Ranges:
    return Ranges((a, min(b, end)) for a, b in ranges if a < end)


def cannot_write(path: Path, error: OSError) -> CannotWrite:
    """An operating system's refusal as one line."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return CannotWrite(
            f"the disk is full: {path.parent}",
            "free some space and run the same command again; what has come so far stays",
        )
    if error.errno == errno.ELOOP:
        return CannotWrite(f"{path} is a symbolic link where a file should be", "somebody put it there; remove it")
    reason = (error.strerror or type(error).__name__).lower()
    return CannotWrite(f"cannot write in {path.parent}: {reason}", "another cache: HF_HUB_CACHE; another folder: --to")
