"""A quantization that may be killed at any point: unfinished files that stay, and a journal of which blocks they hold.

    .NAME.gguf.<fingerprint>.unfinished        the output so far, in its final size
    .NAME.gguf.<fingerprint>.journal           {"version", "done": [[first, last], ...], "stream": ...}

The fingerprint covers everything that decides a byte of the output: the files' headers, the source, the kernel and the
importance matrix. Bytes are forced to disk before the journal that mentions them is.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamacli import __version__
from llamacli.formats.atomic import AtomicFile, translated
from llamacli.formats.durable import data_to_disk, replace
from llamacli.formats.file_access import Stream
from llamacli.quantize.plan import Plan

VERSION = 1
SAVE_EVERY = 0.25
"""Seconds."""


def fingerprint(stream: Stream, plans: Sequence[Plan], kernel: str) -> str:
    """Equal for two runs that write the same bytes."""
    check = hashlib.sha256(f"{VERSION} {__version__} {kernel} {stream.identity()}".encode())
    for plan in plans:
        for layout in plan.layouts:
            check.update(layout.header)
        if plan.importance is not None:
            for name in sorted(plan.importance.columns):
                check.update(name.encode() + plan.importance.matrix.entries[name].sums.tobytes())
        if plan.covariance is not None:
            check.update(plan.covariance.digest())
    return check.hexdigest()[:16]


def unfinished(path: Path, mark: str) -> Path:
    """The name of the output `path` until it is whole."""
    return path.with_name(f".{path.name}.{mark}.unfinished")


def allocated(path: Path) -> int:
    """Bytes on disk of what earlier runs have left unfinished for the output `path`: they need no room any more."""
    found = 0
    with contextlib.suppress(OSError):
        for part in path.parent.glob(f".{glob.escape(path.name)}.*.unfinished"):
            status = part.stat()
            found += getattr(status, "st_blocks", 0) * 512
    return found


def sweep(path: Path, mark: str) -> None:
    """Remove what other plans have left unfinished for the same output."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"([0-9a-f]{16})\.(unfinished|journal|journal\.new)")
    with contextlib.suppress(OSError):
        for entry in path.parent.iterdir():
            match = pattern.fullmatch(entry.name)
            if match and match[1] != mark:
                entry.unlink()


@dataclass
class Journal:
    """Which blocks are written. `files` are the unfinished outputs."""

    path: Path
    files: list[AtomicFile] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    stream: Any = None
    """The state of the stream when it was last written."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _saved: int = -1
    _at: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, path: Path, mark: str, *, fresh: bool) -> Journal:
        """The journal beside the output `path`; an empty one if there is none, it is damaged, or `fresh` is set."""
        journal = cls(path.with_name(f".{path.name}.{mark}.journal"))
        if not fresh:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                content = json.loads(journal.path.read_bytes())
                if content["version"] == VERSION:
                    journal.done = {n for first, last in content["done"] for n in range(first, last + 1)}
                    journal.stream = content["stream"]
        return journal

    def add(self, number: int) -> None:
        """Block `number` has been written."""
        with self._lock:
            self.done.add(number)

    def save(self, stream: Stream, *, now: bool = False) -> None:
        """Force the outputs to disk, then the journal; at most once in `SAVE_EVERY` seconds unless `now`."""
        if not now and time.monotonic() - self._at < SAVE_EVERY:
            return
        state = stream.state()  # first: it holds for blocks that are done by now
        with self._lock:
            done = sorted(self.done)
        if len(done) != self._saved:
            with translated(self.path):
                for file in self.files:
                    file.file.flush()  # where there is no pwrite, the last bytes are still with Python
                    data_to_disk(file.file.fileno())
                new = self.path.with_name(self.path.name + ".new")
                text = json.dumps({"version": VERSION, "done": _runs(done), "stream": state})
                new.write_text(text, encoding="utf-8")
                replace(new, self.path)
            self._saved = len(done)
        self._at = time.monotonic()

    def remove(self) -> None:
        """It has served."""
        self.path.unlink(missing_ok=True)


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """[first, last] of every stretch of consecutive numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return runs
