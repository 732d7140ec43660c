"""The graphics processors of this machine, found without any vendor's library, and what the engine calls them.

Sources: `nvidia-smi` and /proc/driver/nvidia, the display devices under /sys/class/drm, Metal's presence on a Mac, and
the display adapters in Windows' registry. A machine without any is a normal machine.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llamacli.runtime.processors import ROOT, read
from llamacli.runtime.sysctl import sysctl_number, sysctl_text

Vendor = Literal["nvidia", "amd", "intel", "apple"]

PCI_VENDORS: dict[int, Vendor] = {0x10DE: "nvidia", 0x1002: "amd", 0x8086: "intel"}
"""PCI vendor ids whose display devices can run a model; the rest are virtual or management consoles."""

BACKENDS: dict[Vendor, tuple[str, ...]] = {
    "nvidia": ("CUDA", "Vulkan"),
    "amd": ("ROCm", "HIP", "Vulkan"),
    "intel": ("SYCL", "Vulkan", "OpenVINO"),
    "apple": ("MTL", "Metal"),
}
"""Names under which the engine's backends for a vendor register, best first."""

BUILD_FLAG: dict[Vendor, str] = {
    "nvidia": "-DGGML_CUDA=on",
    "amd": "-DGGML_HIP=on",
    "intel": "-DGGML_VULKAN=on",
    "apple": "-DGGML_METAL=on",
}
"""What to give CMake so that the engine can use a vendor's devices."""

WINDOWS_ADAPTERS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
"""The registry's class of display adapters."""


@dataclass(frozen=True)
class Gpu:
    """One device. Memory is in bytes, None where it cannot be told or is the main memory (`unified`)."""

    name: str
    vendor: Vendor
    memory_total: int | None = None
    memory_free: int | None = None
    driver: str = ""
    unified: bool = False


def gpus(quick: bool = False) -> tuple[Gpu, ...]:
    """The devices present; `quick` starts no other program, at the price of free memory."""
    if sys.platform == "darwin":
        return _macos()
    if sys.platform == "win32":
        return _windows_nvidia(quick) or _windows_adapters()
    return linux_gpus(ROOT, "" if quick else nvidia_smi())


def linux_gpus(root: Path, smi: str) -> tuple[Gpu, ...]:
    """The devices under `root`; `smi` is what nvidia-smi printed, or empty."""
    nvidia = parse_nvidia_smi(smi) or _nvidia_proc(root)
    found = tuple(gpu for gpu in _drm(root) if gpu.vendor != "nvidia" or not nvidia)
    return nvidia + found


def nvidia_smi() -> str:
    """What `nvidia-smi` says about each device, one CSV line per device; empty without it."""
    program = shutil.which("nvidia-smi") or "/usr/lib/wsl/lib/nvidia-smi"
    command = (program, "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits")
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def parse_nvidia_smi(text: str) -> tuple[Gpu, ...]:
    """Lines of `name, MiB, MiB, driver`; devices that share the main memory say [N/A]."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.rsplit(",", 3)]
        if len(fields) == 4 and fields[0]:
            total, free = _mebibytes(fields[1]), _mebibytes(fields[2])
            found.append(Gpu(fields[0], "nvidia", total, free, fields[3], unified=total is None))
    return tuple(found)


def pci_name(table: str, vendor: int, device: int) -> str:
    """A device's name in the text of `pci.ids`, or an empty string."""
    block = re.search(rf"^{vendor:04x}  .*\n((?:[#\t].*\n)*)", table, re.M)
    line = re.search(rf"^\t{device:04x}  (.+)$", block[1], re.M) if block else None
    if not line:
        return ""
    short = re.search(r"\[(.+)\]", line[1])  # "Navi 31 [Radeon RX 7900 XTX]"
    return short[1] if short else line[1].strip()


def backends_for(gpu: Gpu, backends: Sequence[str]) -> tuple[str, ...]:
    """Which of the engine's `backends` can run on `gpu`."""
    return tuple(name for name in backends if name in BACKENDS[gpu.vendor])


def _mebibytes(text: str) -> int | None:
    return int(text) * 1024 * 1024 if text.isdigit() else None


def _nvidia_proc(root: Path) -> tuple[Gpu, ...]:
    found = []
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        if match := re.search(r"^Model:\s*(.+)$", read(path), re.M):
            found.append(Gpu(match[1].strip(), "nvidia"))
    return tuple(found)


def _drm(root: Path) -> tuple[Gpu, ...]:
    found = []
    for card in sorted((root / "sys/class/drm").glob("card[0-9]*")):
        if card.name[4:].isdigit() and (gpu := _drm_card(root, card / "device")):
            found.append(gpu)
    return tuple(found)


def _drm_card(root: Path, device: Path) -> Gpu | None:
    ids = [read(device / name).strip() for name in ("vendor", "device")]
    if not all(re.fullmatch(r"0x[0-9a-f]{4}", text) for text in ids):
        return None
    vendor, number = (int(text, 16) for text in ids)
    if vendor not in PCI_VENDORS:
        return None
    table = read(root / "usr/share/misc/pci.ids") or read(root / "usr/share/hwdata/pci.ids")
    name = read(device / "product_name").strip() or pci_name(table, vendor, number)
    maker = PCI_VENDORS[vendor]
    total, used = (read(device / f"mem_info_vram_{what}").strip() for what in ("total", "used"))
    return Gpu(
        name=name or f"{maker.upper() if maker == 'amd' else maker.capitalize()} GPU {vendor:04x}:{number:04x}",
        vendor=maker,
        memory_total=int(total) if total.isdigit() else None,
        memory_free=int(total) - int(used) if total.isdigit() and used.isdigit() else None,
        unified=not total.isdigit(),
    )


def _macos() -> tuple[Gpu, ...]:
    if platform.machine() != "arm64" and not sysctl_number("sysctl.proc_translated"):
        return ()  # Intel Macs: their devices do not pay for language models
    return (Gpu(f"{sysctl_text('machdep.cpu.brand_string')} GPU", "apple", unified=True),)


def _windows_nvidia(quick: bool) -> tuple[Gpu, ...]:
    return () if quick else parse_nvidia_smi(nvidia_smi())


def _windows_adapters() -> tuple[Gpu, ...]:
    if sys.platform != "win32":
        return ()
    import winreg

    found = []
    for number in range(8):
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{WINDOWS_ADAPTERS}\{number:04d}") as key:
                name = str(winreg.QueryValueEx(key, "DriverDesc")[0])
                device = str(winreg.QueryValueEx(key, "MatchingDeviceId")[0])
                memory = winreg.QueryValueEx(key, "HardwareInformation.qwMemorySize")[0]
        except OSError:
            continue
        match = re.search(r"ven_([0-9a-f]{4})", device, re.I)
        vendor = PCI_VENDORS.get(int(match[1], 16)) if match else None
        if vendor:
            inside = vendor == "intel" and "arc" not in name.lower()  # Intel's own lend themselves main memory
            found.append(Gpu(name, vendor, memory if isinstance(memory, int) else None, unified=inside))
    return tuple(found)
