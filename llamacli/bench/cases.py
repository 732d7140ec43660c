"""What is to be measured: tests and settings, and all their combinations in llama-bench's order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llamacli.errors import UsageError
from llamacli.runtime.engine_context import CACHE_TYPES, FLASH_ATTENTION
from llamacli.runtime.measure import ModelSettings

MOST_VALUES = 1000
"""A range that gives more than this is a slip of the finger."""


@dataclass(frozen=True)
class Workload:
    """Read `prompt` tokens, then generate `generate`, after `depth` tokens that are there already."""

    prompt: int = 0
    generate: int = 0
    depth: int = 0

    @property
    def name(self) -> str:
        """As llama-bench names it: pp512, tg128, pp512+tg128, tg128 @ d4096."""
        parts = [f"pp{self.prompt}"] * bool(self.prompt) + [f"tg{self.generate}"] * bool(self.generate)
        return "+".join(parts) + (f" @ d{self.depth}" if self.depth else "")

    @property
    def tokens(self) -> int:
        """Tokens inside the clock."""
        return self.prompt + self.generate


@dataclass(frozen=True)
class Case:
    """One test under one configuration."""

    path: Path
    test: Workload
    threads: int
    gpu_layers: int = -1
    devices: tuple[str, ...] = ()
    batch: int = 2048
    ubatch: int = 512
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    flash_attn: str = "auto"

    @property
    def model(self) -> ModelSettings:
        """What decides how weights are loaded."""
        return ModelSettings(self.path, self.gpu_layers, self.devices)


@dataclass(frozen=True)
class Grid:
    """Every list of values that the user gave."""

    prompts: tuple[int, ...] = (512,)
    generates: tuple[int, ...] = (128,)
    pairs: tuple[tuple[int, int], ...] = ()
    depths: tuple[int, ...] = (0,)
    threads: tuple[int, ...] = (1,)
    gpu_layers: tuple[int, ...] = (-1,)
    devices: tuple[tuple[str, ...], ...] = ((),)
    batches: tuple[int, ...] = (2048,)
    ubatches: tuple[int, ...] = (512,)
    cache_types_k: tuple[str, ...] = ("f16",)
    cache_types_v: tuple[str, ...] = ("f16",)
    flash_attn: tuple[str, ...] = ("auto",)

    def tests(self, depth: int) -> list[Workload]:
        """The tests at one depth; a length of 0 means: not this one."""
        prompts = [Workload(prompt=count, depth=depth) for count in self.prompts if count]
        generates = [Workload(generate=count, depth=depth) for count in self.generates if count]
        return prompts + generates + [Workload(p, g, depth) for p, g in self.pairs if p or g]


def all_cases(paths: Sequence[Path], grid: Grid) -> list[Case]:
    """All combinations. Raises UsageError if no test is left."""
    settings = itertools.product(
        paths,
        grid.gpu_layers,
        grid.devices,
        grid.batches,
        grid.ubatches,
        grid.cache_types_k,
        grid.cache_types_v,
        grid.flash_attn,
        grid.threads,
        grid.depths,
    )
    cases = [
        Case(path, test, threads, layers, devices, batch, ubatch, type_k, type_v, flash)
        for path, layers, devices, batch, ubatch, type_k, type_v, flash, threads, depth in settings
        for test in grid.tests(depth)
    ]
    if not cases:
        raise UsageError("nothing to measure: every test has length 0", "for example -p 512 -n 128")
    return cases


def numbers(flag: str, text: str, least: int = 0) -> tuple[int, ...]:
    """A list such as `0,4096`; `1-4`, `0-8+2` and `1-16*2` are ranges, as in llama-bench. Raises UsageError."""
    values: list[int] = []
    for part in text.split(","):
        values.extend(_range(flag, part.strip()))
    for value in values:
        if value < least:
            raise UsageError(f"{flag} {value}: at least {least}")
    return tuple(values)


def pair(text: str) -> tuple[int, int]:
    """`512,128`: read so many, then generate so many."""
    values = numbers("-pg", text)
    if len(values) != 2:
        raise UsageError(f"-pg {text}: two lengths, such as 512,128")
    return values[0], values[1]


def layers(text: str) -> tuple[int, ...]:
    """GPU layers; `auto` and `all` mean as many as fit."""
    words = {"auto": "-1", "all": "-1"}
    parts = [words.get(part.strip().lower(), part.strip()) for part in text.split(",")]
    return tuple(itertools.chain(*([-1] if part == "-1" else numbers("-ngl", part) for part in parts)))


def flash_attention(text: str) -> tuple[str, ...]:
    """`on`, `off`, `auto`, or llama-bench's 1 and 0."""
    words = {"1": "on", "0": "off", "-1": "auto"}
    values = tuple(words.get(part.strip(), part.strip().lower()) for part in text.split(","))
    return _known("-fa", values, FLASH_ATTENTION)


def cache_types(flag: str, text: str) -> tuple[str, ...]:
    """Types of the KV cache."""
    return _known(flag, tuple(part.strip().lower() for part in text.split(",")), CACHE_TYPES)


def device_lists(text: str) -> tuple[tuple[str, ...], ...]:
    """`CUDA0,CUDA0/CUDA1`: alternatives, each one or several devices; `auto` means all."""
    return tuple(() if part == "auto" else tuple(part.split("/")) for part in text.split(","))


def _known(flag: str, values: tuple[str, ...], known: Sequence[str] | dict[str, int]) -> tuple[str, ...]:
    for value in values:
        if value not in known:
            raise UsageError(f"{flag} {value}: not one of {', '.join(known)}")
    return values


def _range(flag: str, text: str) -> list[int]:
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9})(?:([+*])(\d{1,9}))?)?", text)
    if not match:
        raise UsageError(f"{flag} {text}: not a number, a list such as 4,8 or a range such as 1-8 or 1-16*2")
    first, last = int(match[1]), int(match[2] or match[1])
    step = int(match[4] or 1)
    if (match[3] == "*" and (step < 2 or first == 0)) or step == 0:
        raise UsageError(f"{flag} {text}: a range that never ends")
    values = [first]
    while (following := values[-1] * step if match[3] == "*" else values[-1] + step) <= last:
        values.append(following)
        if len(values) > MOST_VALUES:
            raise UsageError(f"{flag} {text}: more than {MOST_VALUES} values")
    return values
