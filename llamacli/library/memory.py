"""How many bytes of memory a model may take on this machine, asked of the operating system."""

from __future__ import annotations

import os
import sys
from pathlib import Path

SHARE = 0.7
"""Part of the machine's memory that weights may fill; the rest is context, compute buffers and everybody else."""


def memory_budget() -> int | None:
    """Bytes for a model's weights, or None if the system does not tell."""
    total = total_memory()
    return int(total * SHARE) if total else None


def total_memory() -> int | None:
    """Physical memory, or the container's limit where that is less, in bytes."""
    total = _windows() if sys.platform == "win32" else _posix()
    limit = _container_limit()
    return min(total, limit) if total and limit else total


def _posix() -> int | None:
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _container_limit() -> int | None:
    """The limit of cgroup v2's, then v1's limit; "max" and numbers beyond any machine mean none."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            value = int(Path(name).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        if 0 < value < 1 << 50:
            return value
    return None


def _windows() -> int | None:
    import ctypes

    if sys.platform != "win32":
        return None

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            *[(name, ctypes.c_uint64) for name in ("total", "free", "page", "page_free", "virtual", "virtual_free")],
            ("extended", ctypes.c_uint64),
        )

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.total)
