"""What this machine has, without third-party packages and without starting the engine."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from llamacli.runtime.gpus import Gpu, gpus
from llamacli.runtime.memory import Memory, memory
from llamacli.runtime.power import Power, power
from llamacli.runtime.processors import Processor, processor
from llamacli.runtime.sysctl import sysctl_number


@dataclass(frozen=True)
class Machine:
    """One computer, as far as it matters for running a model."""

    system: str
    processor: Processor
    memory: Memory
    gpus: tuple[Gpu, ...]
    power: Power
    translated: bool
    """Whether an Intel Python runs on an Apple processor: everything then takes several times as long."""


def machine(quick: bool = False) -> Machine:
    """The computer that we run on; `quick` starts no other program (no free memory of NVIDIA devices)."""
    return Machine(
        system=system_name(),
        processor=processor(),
        memory=memory(),
        gpus=gpus(quick),
        power=power(),
        translated=bool(sysctl_number("sysctl.proc_translated")),
    )


def default_threads() -> int:
    """Threads that generation should use: one per fast core that this process may use.

    More than that makes the fast cores wait for the slow ones and for their own second threads.
    """
    return processor().threads


def available_memory() -> int:
    """Bytes that can be taken without swapping, within a container's limit; 0 where the system does not tell."""
    return memory().available


def system_name() -> str:
    """The operating system in a few words."""
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    if sys.platform == "win32":
        return f"Windows {platform.release()} {platform.version()}"
    return f"{_distribution()} (Linux {platform.release()})"


def disk_free(path: Path) -> int:
    """Free bytes on the disk that holds `path`, or would hold it once it exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
