"""Main memory: what this machine has, what a process may still take, and the most that this process has taken."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from llamacli.runtime.processors import ROOT, cgroup_folders, read
from llamacli.runtime.sysctl import sysctl_number


@dataclass(frozen=True)
class Memory:
    """Bytes. `total` is what the machine, or the container that we run in, has; `available` can be taken now."""

    total: int
    available: int
    limited: bool = False
    """Whether a container's limit, not the machine, decides."""


def memory() -> Memory:
    """What this machine has; zeros where it cannot be told."""
    if sys.platform == "darwin":
        total = sysctl_number("hw.memsize")
        return Memory(total, vm_stat_available(_output("vm_stat")) or total)
    if sys.platform == "win32":
        return _windows()
    return linux_memory(ROOT)


def linux_memory(root: Path) -> Memory:
    """Memory as the /proc and /sys under `root` describe it, with the limits of control groups v2 and v1."""
    total, available = meminfo(read(root / "proc/meminfo"))
    limited = False
    for folder, most, used, cache in _limits(root):
        limit, taken = _number(folder / most), _number(folder / used)
        if limit is None or taken is None or limit >= total:
            continue
        # Pages of files count as used but are given back when somebody needs them.
        stat = re.search(rf"^{cache} (\d+)$", read(folder / "memory.stat"), re.M)
        free = limit - taken + (int(stat[1]) if stat else 0)
        total, available, limited = limit, max(0, min(available, free, limit)), True
    return Memory(total, available, limited)


def meminfo(text: str) -> tuple[int, int]:
    """(total, available) bytes of /proc/meminfo; kernels before 3.14 have no MemAvailable."""
    kilobytes = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M)}
    total = kilobytes.get("MemTotal", 0)
    free = kilobytes.get("MemFree", 0) + kilobytes.get("Buffers", 0) + kilobytes.get("Cached", 0)
    return total * 1024, kilobytes.get("MemAvailable", free) * 1024


def vm_stat_available(text: str) -> int:
    """Bytes that macOS can hand out at once, from what `vm_stat` prints."""
    page = re.search(r"page size of (\d+) bytes", text)
    pages = re.findall(r"^Pages (?:free|inactive|speculative|purgeable):\s+(\d+)\.", text, re.M)
    return int(page[1]) * sum(map(int, pages)) if page else 0


def peak_memory() -> int:
    """The most bytes that this process has had resident; 0 where it cannot be told."""
    if sys.platform == "win32":
        return _windows_peak()
    if match := re.search(r"^VmHWM:\s+(\d+) kB$", read(ROOT / "proc/self/status"), re.M):
        return int(match[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _limits(root: Path) -> list[tuple[Path, str, str, str]]:
    """(folder, file of the limit, file of the use, its name for pages of files), for groups of both versions."""
    v2 = [(folder, "memory.max", "memory.current", "file") for folder in cgroup_folders(root)]
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")
    return v2 + [(folder, *names) for folder in cgroup_folders(root, "memory")]


def _number(path: Path) -> int | None:
    text = read(path).strip()
    return int(text) if text.isdigit() else None


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")


def _windows() -> Memory:
    if sys.platform != "win32":
        return Memory(0, 0)
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            *((name, ctypes.c_uint64) for name in ("total", "available", "a", "b", "c", "d", "e")),
        )

    status = Status()
    status.length = ctypes.sizeof(Status)
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return Memory(status.total, status.available)


def _windows_peak() -> int:
    if sys.platform != "win32":
        return 0
    import ctypes

    class Counters(ctypes.Structure):
        _fields_ = (
            ("size", ctypes.c_uint32),
            ("faults", ctypes.c_uint32),
            *((name, ctypes.c_size_t) for name in ("peak", "now", "a", "b", "c", "d", "e", "f")),
        )

    counters = Counters()
    counters.size = ctypes.sizeof(Counters)
    kernel32 = ctypes.windll.kernel32
    kernel32.GetCurrentProcess.restype = ctypes.c_void_p
    ask = kernel32.K32GetProcessMemoryInfo
    ask.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32]
    return counters.peak if ask(kernel32.GetCurrentProcess(), ctypes.byref(counters), counters.size) else 0
