"""What machines have, read from their own files."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from machines import CORE_I7, MEMINFO, RASPBERRY_PI, RYZEN, cores, tree

from llamacli.runtime.gpus import Gpu, backends_for, gpus, linux_gpus, parse_nvidia_smi, pci_name
from llamacli.runtime.hardware import available_memory, default_threads, disk_free, machine
from llamacli.runtime.memory import linux_memory, peak_memory, vm_stat_available
from llamacli.runtime.power import Power, linux_power, pmset_power
from llamacli.runtime.processors import (
    cpu_list,
    cpu_quota,
    cpuinfo_features,
    cpuinfo_model,
    linux_processor,
    windows_core_classes,
)


def test_two_threads_to_a_core_count_once(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/cpuinfo": RYZEN, **cores(["0,2", "1,3", "0,2", "1,3"])})
    found = linux_processor(root, None)
    assert (found.logical, found.physical, found.threads, found.usable) == (4, 2, 2, 4)
    assert found.model == "AMD Ryzen 7 7840U w/ Radeon  780M Graphics"
    assert {"AVX2", "AVX512", "AVX512_VNNI", "FMA"} <= set(found.features)


def test_small_cores_of_a_hybrid_get_no_thread(tmp_path: Path) -> None:
    files = {"proc/cpuinfo": CORE_I7, "sys/devices/cpu_core/cpus": "0-3\n", "sys/devices/cpu_atom/cpus": "4-7\n"}
    root = tree(tmp_path, {**files, **cores(["0-1", "0-1", "2-3", "2-3", "4", "5", "6", "7"])})
    found = linux_processor(root, None)
    assert (found.physical, found.performance, found.efficiency, found.threads) == (6, 2, 4, 2)
    assert found.model == "12th Gen Intel Core i7-1260P CPU"
    only_small = linux_processor(root, frozenset({4, 5}))
    assert only_small.threads == 2


def test_big_and_little_on_arm_are_told_apart_by_capacity(tmp_path: Path) -> None:
    base = "sys/devices/system/cpu"
    capacity = {f"{base}/cpu{i}/cpu_capacity": f"{value}\n" for i, value in enumerate([1024, 1024, 1000, 420, 420])}
    root = tree(tmp_path, {"proc/cpuinfo": RASPBERRY_PI, **cores(list("01234")), **capacity})
    found = linux_processor(root, None)
    assert (found.performance, found.efficiency, found.threads) == (3, 2, 3)
    assert found.model == "Cortex-A76"
    assert found.features == ("NEON", "FP16_VA", "DOTPROD")


def test_affinity_and_quota_limit_the_threads(tmp_path: Path) -> None:
    files = {"proc/cpuinfo": RYZEN, **cores([str(i) for i in range(8)])}
    root = tree(tmp_path, files)
    assert linux_processor(root, frozenset({0, 5, 7})).threads == 3
    tree(root, {"sys/fs/cgroup/cpu.max": "200000 100000\n"})
    assert linux_processor(root, None).threads == 2
    assert linux_processor(root, None).usable == 2.0


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000"}, 0.5),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/box\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            },
            4.0,
        ),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "garbage\n"}, None),
    ],
)
def test_quotas_of_both_control_group_versions(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(tree(tmp_path, files)) == quota


def test_an_empty_machine_still_has_one_thread(tmp_path: Path) -> None:
    found = linux_processor(tmp_path, None)
    assert (found.logical, found.threads, found.features) == (1, 1, ())


@given(st.sets(st.integers(0, 300), min_size=1))
def test_cpu_lists_read_back(numbers: set[int]) -> None:
    assert cpu_list(",".join(map(str, sorted(numbers)))) == numbers
    assert cpu_list(f"{min(numbers)}-{max(numbers)}\n") == set(range(min(numbers), max(numbers) + 1))


@given(st.text())
def test_any_text_is_a_machine_without_features(text: str) -> None:
    assert isinstance(cpuinfo_model(text), str)
    assert isinstance(cpuinfo_features(text), tuple)


def test_windows_core_records() -> None:
    record = struct.pack("<IIBB", 0, 48, 1, 1) + bytes(38)
    small = struct.pack("<IIBB", 0, 48, 0, 0) + bytes(38)
    other = struct.pack("<IIBB", 2, 32, 0, 9) + bytes(22)
    assert windows_core_classes(record + other + small + record) == [1, 0, 1]
    assert windows_core_classes(b"\0" * 7) == []


def test_memory_and_its_container_limits(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/meminfo": MEMINFO})
    whole = linux_memory(root)
    assert (whole.total, whole.available, whole.limited) == (16250084 * 1024, 9277424 * 1024, False)
    group = "sys/fs/cgroup/"
    tree(root, {group + "memory.max": f"{4 << 30}\n", group + "memory.current": f"{3 << 30}\n"})
    tree(root, {group + "memory.stat": f"anon 1000\nfile {1 << 30}\n"})
    boxed = linux_memory(root)
    assert (boxed.total, boxed.available, boxed.limited) == (4 << 30, 2 << 30, True)
    tree(root, {group + "memory.max": "max\n"})
    assert not linux_memory(root).limited


def test_version_1_limits_beyond_the_machine_are_none(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/"
    files = {"proc/meminfo": MEMINFO, group + "memory.usage_in_bytes": "1000\n"}
    root = tree(tmp_path, {**files, group + "memory.limit_in_bytes": "9223372036854771712\n"})
    assert not linux_memory(root).limited
    tree(root, {group + "memory.limit_in_bytes": f"{1 << 30}\n"})
    assert linux_memory(root).total == 1 << 30


def test_macos_memory_from_vm_stat() -> None:
    text = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               12345.\n"
        "Pages active:                            300000.\n"
        "Pages inactive:                          250000.\n"
        "Pages speculative:                         1000.\n"
        "Pages purgeable:                            655.\n"
    )
    assert vm_stat_available(text) == 16384 * (12345 + 250000 + 1000 + 655)
    assert vm_stat_available("") == 0


def test_nvidia_smi_lines() -> None:
    found = parse_nvidia_smi("NVIDIA GeForce RTX 4090, 24564, 23010, 550.54.14\nNVIDIA GB10, [N/A], [N/A], 580.95.05\n")
    assert found[0] == Gpu("NVIDIA GeForce RTX 4090", "nvidia", 24564 << 20, 23010 << 20, "550.54.14")
    assert found[1].unified and found[1].memory_total is None
    assert parse_nvidia_smi("No devices were found\n") == ()


def test_graphics_below_sys_and_proc(tmp_path: Path) -> None:
    drm = "sys/class/drm/"
    files = {
        drm + "card0/device/vendor": "0x1002\n",
        drm + "card0/device/device": "0x744c\n",
        drm + "card0/device/mem_info_vram_total": f"{24 << 30}\n",
        drm + "card0/device/mem_info_vram_used": f"{1 << 30}\n",
        drm + "card1/device/vendor": "0x8086\n",
        drm + "card1/device/device": "0x46a6\n",
        drm + "card2/device/vendor": "0x1234\n",  # a virtual display
        drm + "card2/device/device": "0x1111\n",
        drm + "card0-DP-1/status": "connected\n",
        "usr/share/misc/pci.ids": (
            "1002  Advanced Micro Devices, Inc. [AMD/ATI]\n"
            "\t744c  Navi 31 [Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M]\n"
            "\t\t1002 0e3b  RX 7900 GRE [XFX]\n"
            "8086  Intel Corporation\n\t1234  Something\n"
        ),
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA A2\nIRQ:   \t\t 16\n",
    }
    nvidia, amd, intel = linux_gpus(tree(tmp_path, files), "")
    assert nvidia == Gpu("NVIDIA A2", "nvidia")
    assert amd.name == "Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M"
    assert (amd.memory_total, amd.memory_free, amd.unified) == (24 << 30, 23 << 30, False)
    assert (intel.name, intel.vendor, intel.unified) == ("Intel GPU 8086:46a6", "intel", True)
    assert pci_name("", 1, 2) == ""


def test_backends_that_serve_a_device() -> None:
    assert backends_for(Gpu("x", "nvidia"), ("CPU", "RPC")) == ()
    assert backends_for(Gpu("x", "amd"), ("Vulkan", "CPU")) == ("Vulkan",)


def test_power_of_laptops_desktops_and_mice(tmp_path: Path) -> None:
    supply = "sys/class/power_supply/"
    assert linux_power(tmp_path) == Power()
    mouse = {supply + "hid/type": "Battery\n", supply + "hid/scope": "Device\n", supply + "AC/type": "Mains\n"}
    root = tree(tmp_path, mouse)
    assert linux_power(root) == Power("ac")
    governor = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    laptop = {supply + "BAT0/type": "Battery\n", supply + "BAT0/status": "Discharging\n"}
    tree(root, {**laptop, supply + "BAT0/capacity": "81\n", governor: "powersave\n"})
    assert linux_power(root) == Power("battery", 81, "powersave")


def test_power_of_a_mac() -> None:
    text = (
        "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=1)\t93%; discharging; 5:12 remaining present: true\n"
    )
    assert pmset_power(text) == Power("battery", 93)
    assert pmset_power("Now drawing from 'AC Power'\n") == Power("ac")


def test_this_machine_has_a_processor_memory_and_a_disk(tmp_path: Path) -> None:
    here = machine()
    assert here.processor.logical >= here.processor.threads >= 1
    assert default_threads() == here.processor.threads
    assert here.processor.physical == here.processor.performance + here.processor.efficiency
    assert here.memory.total >= here.memory.available > 0
    assert available_memory() > 0 and peak_memory() > 1 << 20
    assert disk_free(tmp_path / "not" / "there") > 0
    assert isinstance(gpus(quick=True), tuple)
    if hasattr(os, "sched_getaffinity"):
        assert default_threads() <= len(os.sched_getaffinity(0))
