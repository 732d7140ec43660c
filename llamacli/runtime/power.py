"""What the machine runs on and how it clocks its processor: the reasons why a benchmark differs from yesterday's."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from llamacli.runtime.processors import ROOT, read


@dataclass(frozen=True)
class Power:
    """`source` is "ac", "battery" or "" where it cannot be told; `charge` per cent; `governor` as Linux names it."""

    source: str = ""
    charge: int | None = None
    governor: str = ""


def power() -> Power:
    """How this machine is powered now."""
    if sys.platform == "darwin":
        return _macos()
    if sys.platform == "win32":
        return _windows()
    return linux_power(ROOT)


def linux_power(root: Path) -> Power:
    """What the /sys under `root` says. A machine without a battery runs on the mains."""
    governor = read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    supplies = sorted((root / "sys/class/power_supply").glob("*"))
    kinds = {path: read(path / "type").strip() for path in supplies}
    # A mouse's battery is a supply too: its scope is "Device".
    batteries = [p for p in supplies if kinds[p] == "Battery" and read(p / "scope").strip() != "Device"]
    if not batteries:
        return Power("ac" if any(kinds.values()) else "", None, governor)
    charge = read(batteries[0] / "capacity").strip()
    draining = read(batteries[0] / "status").strip() == "Discharging"
    return Power("battery" if draining else "ac", int(charge) if charge.isdigit() else None, governor)


def pmset_power(text: str) -> Power:
    """What macOS's `pmset -g batt` prints."""
    charge = re.search(r"(\d+)%", text)
    source = "battery" if "'Battery Power'" in text else "ac" if "'AC Power'" in text else ""
    return Power(source, int(charge[1]) if charge else None)


def _macos() -> Power:
    try:
        done = subprocess.run(("pmset", "-g", "batt"), capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return Power()
    return pmset_power(done.stdout.decode("utf-8", "replace"))


def _windows() -> Power:
    if sys.platform != "win32":
        return Power()
    import ctypes

    status = (ctypes.c_ubyte * 12)()  # SYSTEM_POWER_STATUS: line status, battery flag, per cent, ...
    if not ctypes.windll.kernel32.GetSystemPowerStatus(status):
        return Power()
    return Power({0: "battery", 1: "ac"}.get(status[0], ""), status[2] if status[2] <= 100 else None)
