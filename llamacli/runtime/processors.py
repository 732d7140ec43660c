"""The processor of this machine: model, cores, what a process may use of them, and its vector instructions.

Reads what each system offers to everyone: /proc and /sys on Linux, sysctl on macOS, the registry and kernel32 on
Windows. Whatever cannot be read is left at its neutral value; nothing here raises.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from llamacli.runtime.sysctl import sysctl_number, sysctl_text

ROOT = Path("/")

LINUX_FLAGS: dict[str, str] = {
    "pni": "SSE3", "ssse3": "SSSE3", "avx": "AVX", "avx_vnni": "AVX_VNNI", "avx2": "AVX2", "f16c": "F16C",
    "fma": "FMA", "bmi2": "BMI2", "avx512f": "AVX512", "avx512vbmi": "AVX512_VBMI", "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16", "amx_int8": "AMX_INT8",
    "asimd": "NEON", "fphp": "FP16_VA", "asimddp": "DOTPROD", "i8mm": "MATMUL_INT8", "sve": "SVE", "sme": "SME",
}  # fmt: skip
"""Flags of /proc/cpuinfo -> the names under which ggml reports what it was compiled for."""

MACOS_FLAGS: dict[str, str] = {
    "hw.optional.avx1_0": "AVX", "hw.optional.avx2_0": "AVX2", "hw.optional.f16c": "F16C", "hw.optional.fma": "FMA",
    "hw.optional.bmi2": "BMI2", "hw.optional.avx512f": "AVX512", "hw.optional.neon": "NEON",
    "hw.optional.arm.FEAT_FP16": "FP16_VA", "hw.optional.arm.FEAT_DotProd": "DOTPROD",
    "hw.optional.arm.FEAT_I8MM": "MATMUL_INT8", "hw.optional.arm.FEAT_SME": "SME",
}  # fmt: skip
"""Names of sysctl -> names of ggml."""

WINDOWS_FLAGS: dict[int, str] = {
    13: "SSE3", 36: "SSSE3", 39: "AVX", 40: "AVX2", 41: "AVX512", 19: "NEON", 43: "DOTPROD", 46: "SVE",
}  # fmt: skip
"""Arguments of IsProcessorFeaturePresent (winnt.h) -> names of ggml."""

ARM_PARTS: dict[tuple[int, int], str] = {
    (0x41, 0xD03): "Cortex-A53", (0x41, 0xD05): "Cortex-A55", (0x41, 0xD08): "Cortex-A72", (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1", (0x41, 0xD40): "Neoverse-V1", (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2", (0x41, 0xD85): "Cortex-X925", (0x41, 0xD87): "Cortex-A725",
}  # fmt: skip
"""(implementer, part) of /proc/cpuinfo, for the ARM systems that give no model name."""


@dataclass(frozen=True)
class Processor:
    """One machine's processor.

    `physical` counts cores, `logical` hardware threads; `performance` and `efficiency` are cores and add up to
    `physical`; `usable` is how many logical processors this process may keep busy (affinity, container quota).
    """

    model: str
    architecture: str
    logical: int
    physical: int
    performance: int
    efficiency: int
    usable: float
    features: tuple[str, ...]
    threads: int
    """Cores worth a thread: performance cores that this process may use, at least 1."""


def processor() -> Processor:
    """What this machine has."""
    if sys.platform == "darwin":
        return _macos()
    if sys.platform == "win32":
        return _windows()
    return linux_processor(ROOT, _affinity())


# -- Linux -----------------------------------------------------------------------------------------------------------


def linux_processor(root: Path, affinity: frozenset[int] | None) -> Processor:
    """The processor as the /proc and /sys under `root` describe it; `affinity` None means: all."""
    text = read(root / "proc/cpuinfo")
    siblings = _siblings(root)
    logical = sorted(siblings) or list(range(max(1, len(re.findall(r"^processor\s*:", text, re.M)))))
    core_of = {cpu: siblings.get(cpu, (cpu,)) for cpu in logical}
    slow = _efficiency_cpus(root)
    allowed = [cpu for cpu in logical if affinity is None or cpu in affinity] or logical
    quota = cpu_quota(root)
    usable = min(float(len(allowed)), quota or float(len(allowed)))
    fast_cores = {core_of[cpu] for cpu in allowed if cpu not in slow} or {core_of[cpu] for cpu in allowed}
    physical = len(set(core_of.values()))
    efficiency = len({core_of[cpu] for cpu in logical if cpu in slow})
    return Processor(
        model=cpuinfo_model(text) or _board(root) or platform.machine(),
        architecture=platform.machine(),
        logical=len(logical),
        physical=physical,
        performance=physical - efficiency,
        efficiency=efficiency,
        usable=usable,
        features=cpuinfo_features(text),
        threads=max(1, min(len(fast_cores), round(usable))),
    )


def cpuinfo_model(text: str) -> str:
    """The processor's name in /proc/cpuinfo, or an empty string."""
    if match := re.search(r"^model name\s*:\s*(.+)$", text, re.M):
        return re.sub(r"\((?:R|TM)\)|\s+@.*$", "", match[1]).strip()
    implementer = re.search(r"^CPU implementer\s*:\s*(0x[0-9a-f]+)", text, re.M)
    parts = {int(part, 16) for part in re.findall(r"^CPU part\s*:\s*(0x[0-9a-f]+)", text, re.M)}
    if not implementer:
        return ""
    names = (ARM_PARTS.get((int(implementer[1], 16), part), f"ARM part {part:#x}") for part in sorted(parts))
    return " + ".join(names)


def cpuinfo_features(text: str) -> tuple[str, ...]:
    """Vector instructions in /proc/cpuinfo, under ggml's names."""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
    present = set(match[1].split()) if match else set()
    return tuple(name for flag, name in LINUX_FLAGS.items() if flag in present)


def cpu_list(text: str) -> frozenset[int]:
    """The kernel's list form, e.g. `0-3,8`, as numbers."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def cpu_quota(root: Path) -> float | None:
    """Processors' worth of time that control groups (v2 and v1) allow this process; None without a limit."""
    texts = [read(folder / "cpu.max") for folder in cgroup_folders(root)]
    for folder in cgroup_folders(root, "cpu"):
        texts.append(f"{read(folder / 'cpu.cfs_quota_us').strip()} {read(folder / 'cpu.cfs_period_us').strip()}")
    limits = [limit for text in texts if (limit := _quota(text))]
    return min(limits) if limits else None


def cgroup_folders(root: Path, controller: str = "") -> list[Path]:
    """The folders of this process's control group and of all its parents: v2's, or those of one `controller` of v1.

    Inside a container the group's own path often does not exist, and the first folder is the container's.
    """
    base = root / "sys/fs/cgroup" / controller
    match = re.search(rf"^\d+:(?:[\w,]*,)?{controller}(?:,[\w,]*)?:/(.*)$", read(root / "proc/self/cgroup"), re.M)
    own = Path(match[1]) if match and ".." not in match[1] else Path()
    return list(dict.fromkeys(base / part for part in (own, *own.parents)))


def read(path: Path) -> str:
    """The text of a small system file; empty when there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _quota(text: str) -> float | None:
    parts = text.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts) or int(parts[1]) == 0:
        return None
    return int(parts[0]) / int(parts[1])


def _siblings(root: Path) -> dict[int, tuple[int, ...]]:
    """Logical processor -> all the logical processors of its core."""
    found: dict[int, tuple[int, ...]] = {}
    for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*"):
        if text := read(folder / "topology/thread_siblings_list"):
            found[int(folder.name[3:])] = tuple(sorted(cpu_list(text)))
    return found


def _efficiency_cpus(root: Path) -> frozenset[int]:
    """Small cores: Intel's hybrid lists, or the lower of two capacities on ARM."""
    intel = cpu_list(read(root / "sys/devices/cpu_atom/cpus")) | cpu_list(read(root / "sys/devices/cpu_lowpower/cpus"))
    if intel:
        return intel
    capacity: dict[int, int] = {}
    for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*"):
        if (text := read(folder / "cpu_capacity").strip()).isdigit():
            capacity[int(folder.name[3:])] = int(text)
    most = max(capacity.values(), default=0)
    # Cores of one kind differ a little in clock; a small core has well under two thirds of a big one's capacity.
    return frozenset(cpu for cpu, value in capacity.items() if value * 3 < most * 2)


def _board(root: Path) -> str:
    return read(root / "sys/firmware/devicetree/base/model").strip("\0\n ")


def _affinity() -> frozenset[int] | None:
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


# -- macOS and Windows -----------------------------------------------------------------------------------------------


def _macos() -> Processor:
    physical = sysctl_number("hw.physicalcpu") or os.cpu_count() or 1
    performance = sysctl_number("hw.perflevel0.physicalcpu") or physical
    logical = sysctl_number("hw.logicalcpu") or physical
    return Processor(
        model=sysctl_text("machdep.cpu.brand_string") or platform.machine(),
        architecture=platform.machine(),
        logical=logical,
        physical=physical,
        performance=performance,
        efficiency=physical - performance,
        usable=float(logical),
        features=tuple(name for key, name in MACOS_FLAGS.items() if sysctl_number(key)),
        threads=performance,
    )


def _windows() -> Processor:
    logical = os.cpu_count() or 1
    physical, performance = _windows_cores() or (max(1, logical // 2), max(1, logical // 2))
    return Processor(
        model=_windows_model() or platform.processor(),
        architecture=platform.machine(),
        logical=logical,
        physical=physical,
        performance=performance,
        efficiency=physical - performance,
        usable=float(logical),
        features=_windows_features(),
        threads=performance,
    )


def windows_core_classes(buffer: bytes) -> list[int]:
    """The efficiency class of each core in GetLogicalProcessorInformationEx's answer; the highest is the fastest.

    Each record starts with its relationship (0: a core) and size, two 32-bit numbers, then flags and the class, a byte
    each (PROCESSOR_RELATIONSHIP in winnt.h).
    """
    classes, at = [], 0
    while at + 10 <= len(buffer):
        relationship = int.from_bytes(buffer[at : at + 4], "little")
        size = int.from_bytes(buffer[at + 4 : at + 8], "little")
        if size < 10:
            break
        if relationship == 0:
            classes.append(buffer[at + 9])
        at += size
    return classes


def _windows_cores() -> tuple[int, int] | None:
    """(cores, performance cores), or None where the system does not tell."""
    if sys.platform != "win32":
        return None
    import ctypes

    size = ctypes.c_uint32(0)
    ask = ctypes.windll.kernel32.GetLogicalProcessorInformationEx
    ask(0, None, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value or 1)
    if not ask(0, buffer, ctypes.byref(size)):
        return None
    classes = windows_core_classes(buffer.raw[: size.value])
    return (len(classes), classes.count(max(classes))) if classes else None


def _windows_model() -> str:
    if sys.platform != "win32":
        return ""
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    except OSError:
        return ""


def _windows_features() -> tuple[str, ...]:
    if sys.platform != "win32":
        return ()
    import ctypes

    present = ctypes.windll.kernel32.IsProcessorFeaturePresent
    return tuple(name for number, name in WINDOWS_FLAGS.items() if present(number))
