"""Names and bytes that last: what each system needs so that a finished file is on the disk under its name."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

if sys.platform == "darwin":
    import fcntl

_F_BARRIERFSYNC = 85
"""macOS' fcntl.h: as fsync, and the drive keeps the order. Python has no name for it."""

_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Seconds between the tries to give a file its name on Windows."""


def to_disk(descriptor: int) -> None:
    """Bytes written so far are on the disk when this returns, not in its cache."""
    if sys.platform == "darwin" and _told(descriptor, fcntl.F_FULLFSYNC):
        return  # fsync alone leaves them in the drive's own memory
    os.fsync(descriptor)


def data_to_disk(descriptor: int) -> None:
    """Bytes written so far are on the disk before those that are written after this.

    What the file system says of the file (its times) may come later.
    """
    if sys.platform == "linux":
        os.fdatasync(descriptor)
    elif sys.platform != "darwin" or not _told(descriptor, _F_BARRIERFSYNC):
        os.fsync(descriptor)


def _told(descriptor: int, command: int) -> bool:
    """Whether macOS did what was asked; network file systems know nothing of it."""
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, command)
            return True
    return False


def replace(part: Path, target: Path) -> None:
    """Give `part` the name `target`, in place of what bears it. Raises OSError.

    Windows refuses while anybody has either of them open, if only a virus scanner or a process that looks how far we
    are. Such readers are gone in a moment, so it is tried again for about a second.
    """
    for pause in _PAUSES if sys.platform == "win32" else ():
        try:
            part.replace(target)
            return
        except PermissionError:
            time.sleep(pause)
    part.replace(target)


def write_whole(target: Path, text: str) -> None:
    """A small text file, replaced as a whole; what could not be given its name is removed. Raises OSError."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        replace(part, target)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def folder_to_disk(folder: Path) -> None:
    """The names in `folder` are on the disk; Windows has no such call."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
