"""Pieces of /proc and /sys as real machines show them, written below a folder that stands for `/`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

RYZEN = """processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 116
model name	: AMD Ryzen 7 7840U w/ Radeon  780M Graphics
flags		: fpu vme sse sse2 pni ssse3 fma cx16 sse4_1 sse4_2 avx f16c bmi1 avx2 bmi2 avx512f avx512_vnni avx512_bf16

processor	: 1
model name	: AMD Ryzen 7 7840U w/ Radeon  780M Graphics
flags		: fpu vme sse sse2 pni ssse3 fma
"""

CORE_I7 = """processor	: 0
vendor_id	: GenuineIntel
model name	: 12th Gen Intel(R) Core(TM) i7-1260P CPU @ 2.10GHz
flags		: fpu pni ssse3 fma avx f16c avx2 bmi2 avx_vnni
"""

RASPBERRY_PI = """processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x4
CPU part	: 0xd0b
CPU revision	: 1

Revision	: c04170
Model		: Raspberry Pi 5 Model B Rev 1.0
"""

MEMINFO = """MemTotal:       16250084 kB
MemFree:         1756468 kB
MemAvailable:    9277424 kB
Buffers:          194436 kB
Cached:          4374700 kB
SwapTotal:             0 kB
HugePages_Total:       0
"""


def tree(root: Path, files: Mapping[str, str]) -> Path:
    """Write `files` (path below the root: text) and return the root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def cores(siblings: list[str]) -> dict[str, str]:
    """Topology files: one entry for each logical processor, the list of its core."""
    base = "sys/devices/system/cpu"
    return {f"{base}/cpu{i}/topology/thread_siblings_list": f"{text}\n" for i, text in enumerate(siblings)}
