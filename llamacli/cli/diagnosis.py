"""What `doctor` looks at: facts about this machine and this installation, and which of them are problems.

The rules are functions of plain values, so that they can be tried on machines that are not here.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamacli import __version__
from llamacli.cli.context import Context
from llamacli.cli.models import places
from llamacli.cli.sizes import human_size
from llamacli.errors import LlamacliError

if TYPE_CHECKING:
    from llamacli.runtime.backends import EngineInfo
    from llamacli.runtime.gpus import Gpu
    from llamacli.runtime.hardware import Machine

LEAST_MEMORY = 1 << 30
LEAST_DISK = 5 * 10**9
"""Bytes below which most models are out of reach."""

PACKAGES = (
    "llama-cpp-python", "gguf", "numpy", "numba", "typer", "rich", "prompt-toolkit", "jinja2",
)  # fmt: skip

WORTH_REBUILDING = ("AVX", "AVX2", "FMA", "F16C", "AVX512", "NEON", "DOTPROD", "MATMUL_INT8")
"""Vector instructions without which the engine is much slower on a processor that has them."""


@dataclass(frozen=True)
class Problem:
    """What is wrong, and the line that mends it."""

    message: str
    fix: str


@dataclass(frozen=True)
class Section:
    """Facts of one kind, as (label, value), and the problems among them."""

    name: str
    facts: tuple[tuple[str, str], ...]
    problems: tuple[Problem, ...] = ()


def examine(here: Context) -> tuple[Section, ...]:
    """Look at everything, without using the network."""
    from llamacli.runtime.hardware import machine

    computer = machine()
    engine, error = installed_engine()
    return (
        machine_section(computer),
        engine_section(computer, engine, error),
        disk_section(here),
        terminal_section(here),
        python_section(),
    )


def installed_engine() -> tuple[EngineInfo | None, LlamacliError | None]:
    """The engine, or why there is none."""
    from llamacli.runtime.backends import engine_info

    try:
        return engine_info(), None
    except LlamacliError as error:
        return None, error


# -- the machine -------------------------------------------------------------------------------------------------


def machine_section(computer: Machine) -> Section:
    """Processor, memory, graphics, power."""
    cpu, memory, power = computer.processor, computer.memory, computer.power
    cores = f"{cpu.physical} cores"
    if cpu.efficiency:
        cores += f" ({cpu.performance} fast, {cpu.efficiency} small)"
    limit = " (container limit)" if memory.limited else ""
    facts = [
        ("system", f"{computer.system}, {cpu.architecture}"),
        ("processor", f"{cpu.model}, {cores}, {cpu.logical} threads; {cpu.threads} used for generation"),
        ("instructions", " ".join(cpu.features) or "unknown"),
        ("memory", f"{human_size(memory.total)}{limit}, {human_size(memory.available)} free"),
        *(("graphics", gpu_text(gpu)) for gpu in computer.gpus),
        *([] if computer.gpus else [("graphics", "none found")]),
    ]
    if power.source or power.governor:
        charge = f" {power.charge} %" if power.charge is not None else ""
        governor = f", governor {power.governor}" if power.governor else ""
        facts.append(("power", f"{power.source or 'unknown'}{charge}{governor}"))
    return Section("machine", tuple(facts), tuple(machine_problems(computer)))


def machine_problems(computer: Machine) -> list[Problem]:
    """Of the machine itself."""
    found = []
    if computer.translated:
        found.append(
            Problem(
                "this Python is an Intel program on an Apple processor, several times slower than need be",
                "install Python for arm64 (for example from python.org) and llamacli with it",
            )
        )
    if 0 < computer.memory.available < LEAST_MEMORY:
        found.append(
            Problem(
                f"only {human_size(computer.memory.available)} of memory are free",
                "close other programs, or take a smaller model (llamacli fit MODEL)",
            )
        )
    return found


def gpu_text(gpu: Gpu) -> str:
    """One device in a few words."""
    if gpu.memory_total:
        free = f", {human_size(gpu.memory_free)} free" if gpu.memory_free is not None else ""
        return f"{gpu.name}, {human_size(gpu.memory_total)}{free}" + (f", driver {gpu.driver}" if gpu.driver else "")
    return gpu.name + (", shares the main memory" if gpu.unified else "")


# -- the engine --------------------------------------------------------------------------------------------------


def engine_section(computer: Machine, engine: EngineInfo | None, error: LlamacliError | None) -> Section:
    """What the engine was built for, against what the machine has."""
    if engine is None:
        message, hint = (error.message, error.hint) if error else ("the inference engine is missing", "")
        problem = Problem(message, hint or reinstall(""))
        return Section("engine", (("llama.cpp", "cannot be loaded"),), (problem,))
    facts = (
        ("llama.cpp", f"{engine.commit}, llama-cpp-python {engine.package_version}, {origin('llama-cpp-python')}"),
        ("built for", ", ".join(engine.backends)),
        ("instructions", " ".join(engine.features)),
        *((f"device {d.name}", f"{d.description}, {human_size(d.memory_free)} free") for d in engine.gpus),
    )
    return Section("engine", facts, tuple(engine_problems(computer, engine)))


def engine_problems(computer: Machine, engine: EngineInfo) -> list[Problem]:
    """Hardware that the engine cannot use."""
    return [*unused_gpus(computer.gpus, engine), *_missing_instructions(computer, engine), *_failing_tiles(engine)]


def unused_gpus(gpus: Sequence[Gpu], engine: EngineInfo) -> list[Problem]:
    """One problem for each vendor whose devices are present and not used.

    Intel's integrated graphics are no faster than the processor beside them, so they are not missed.
    """
    from llamacli.runtime.gpus import BACKENDS, BUILD_FLAG, backends_for

    found: dict[str, Problem] = {}
    for gpu in gpus:
        if gpu.vendor == "intel" and gpu.unified:
            continue
        usable = backends_for(gpu, engine.backends)
        if not usable:
            wanted = BACKENDS[gpu.vendor][0]
            message = f"{gpu.name} is present but not used: the engine is built without {wanted}"
            found.setdefault(gpu.vendor, Problem(message, reinstall(BUILD_FLAG[gpu.vendor])))
        elif not any(device.backend in usable for device in engine.gpus):
            message = f"the engine is built with {usable[0]} but sees no device, though {gpu.name} is present"
            found.setdefault(gpu.vendor, Problem(message, "check the driver, and CUDA_VISIBLE_DEVICES if it is set"))
    return list(found.values())


def _missing_instructions(computer: Machine, engine: EngineInfo) -> list[Problem]:
    missing = [name for name in computer.processor.features if name in WORTH_REBUILDING and name not in engine.features]
    if not missing or not engine.features:
        return []
    return [Problem(f"the engine does not use {', '.join(missing)} of this processor", reinstall("-DGGML_NATIVE=on"))]


def _failing_tiles(engine: EngineInfo) -> list[Problem]:
    from llamacli.runtime.tiles import tiles_work

    if "AMX_INT8" not in engine.features or tiles_work():
        return []
    message = (
        "the engine's code for matrix tiles (AMX) fails here, as GCC before 13 makes it; it runs without, more slowly"
    )
    return [
        Problem(
            message,
            f"with GCC 13 or newer, or after export CXXFLAGS='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16': {reinstall('')}",
        )
    ]


def reinstall(flag: str) -> str:
    """The line that builds the engine anew on this machine, for the shell that this system has."""
    flags = " ".join(part for part in (flag, "-DGGML_RPC=on") if part)
    pip = "pipx runpip llamacli" if "pipx" in Path(sys.prefix).parts else "pip"
    command = f"{pip} install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
    return f'$env:CMAKE_ARGS="{flags}"; {command}' if os.name == "nt" else f'CMAKE_ARGS="{flags}" {command}'


def origin(package: str) -> str:
    """Where an installed package came from: its wheel's tag."""
    try:
        text = importlib.metadata.distribution(package).read_text("WHEEL") or ""
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    tags = [line.removeprefix("Tag:").strip() for line in text.splitlines() if line.startswith("Tag:")]
    return f"wheel {tags[0]}" if tags else "no wheel"


# -- disk, terminal, Python --------------------------------------------------------------------------------------


def disk_section(here: Context) -> Section:
    """The Hub's cache, and whether a token is there; its value is never shown."""
    from llamacli.runtime.hardware import disk_free

    where = places(here)
    cache = where.hub_cache
    free, writable = disk_free(cache), can_write(cache)
    shown = homeless(cache, here.home)
    facts = (
        ("model cache", f"{shown}, {human_size(free)} free, {'writable' if writable else 'not writable'}"),
        ("settings", homeless(here.config_dir, here.home)),
        ("Hub", f"{where.endpoint}{', offline' if here.offline else ''}"),
        ("token", "present" if where.token() else "none (only gated and private models need one)"),
    )
    problems = []
    if not writable:
        problems.append(Problem(f"{shown} is not writable", "set HF_HUB_CACHE to a folder that is"))
    elif free < LEAST_DISK:
        fix = "remove models (llamacli rm MODEL), or set HF_HUB_CACHE to another disk"
        problems.append(Problem(f"only {human_size(free)} are free for models", fix))
    return Section("disk", facts, tuple(problems))


def can_write(folder: Path) -> bool:
    """Whether a file can be made in `folder`, or in the nearest parent that exists. Leaves nothing behind."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".llamacli-"):
            return True
    except OSError:
        return False


def terminal_section(here: Context) -> Section:
    """What the terminal can show."""
    console = here.console
    encoding = getattr(console.out, "encoding", None) or "none"
    width = here.env.get("COLUMNS") or str(shutil.get_terminal_size().columns)
    facts = (
        ("stdout", "terminal" if console.out_is_terminal else "not a terminal"),
        ("TERM", here.env.get("TERM", "not set")),
        ("colour", "yes" if console.colored(console.out) else "no"),
        ("encoding", str(encoding)),
        ("width", width),
    )
    return Section("terminal", facts)


def python_section() -> Section:
    """Versions."""
    facts = [("llamacli", __version__), ("python", f"{platform.python_version()} {platform.python_implementation()}")]
    problems = []
    for name in PACKAGES:
        try:
            facts.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            facts.append((name, "not installed"))
            if name != "numba":
                problems.append(Problem(f"{name} is not installed", "pip install --force-reinstall llamacli"))
    return Section("python", tuple(facts), tuple(problems))


def homeless(path: Path, home: Path) -> str:
    """A path without the user's name: the home folder is `~`."""
    try:
        return (Path("~") / path.relative_to(home)).as_posix()
    except ValueError:
        return str(path)
