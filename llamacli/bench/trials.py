"""Carry the measurements out: load, warm up, and repeat every case in an order that chance decides anew each round.

Interleaving spreads whatever changes with time (heat, other programs) over all cases alike. Weights and contexts are
kept between repetitions as long as memory allows, and warmed up again when they had to go.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from llamacli.bench.cases import Case
from llamacli.errors import DoesNotFit, UsageError
from llamacli.formats.gguf_check import check_safe
from llamacli.formats.gguf_reader import GGUF, read_gguf
from llamacli.progress import Progress
from llamacli.runtime.fit import estimate
from llamacli.runtime.measure import ContextSettings, ModelSettings, TimedContext, TimedModel

AGREE = 0.03
"""Warm-up ends when two runs differ by less than this share."""

MOST_WARM_UPS = 3
WARM_UP_NS = 3_000_000_000
WARM_UP_TOKENS = 32
"""Tokens that generation is warmed up with."""


@dataclass(frozen=True)
class Measurement:
    """One case and what it took: nanoseconds of each repetition, and of loading weights and making the context."""

    case: Case
    description: str
    size: int
    weights: int
    time: str
    load_ns: int
    samples_ns: tuple[int, ...]

    @property
    def rates(self) -> list[float]:
        """Tokens per second of each repetition."""
        return [1e9 * self.case.test.tokens / ns for ns in self.samples_ns]


@dataclass
class _Held:
    """A context in memory, and the cases that it is warm for."""

    context: TimedContext
    size: int
    warm: set[Case] = field(default_factory=set)


def measure(
    cases: Sequence[Case], repetitions: int, *, available: int, progress: Progress, warm_up: bool = True, seed: int = 0
) -> list[Measurement]:
    """Measure every case `repetitions` times, holding no more than `available` bytes at once if that can be helped.

    `progress` counts repetitions. Raises CorruptFile, Unsupported, EngineError, DoesNotFit.
    """
    bench = _Bench(cases, available, warm_up)
    draw = random.Random(seed)
    samples: dict[Case, list[int]] = {case: [] for case in cases}
    try:
        for group in bench.groups():
            for _ in range(repetitions):
                for case in draw.sample(group, len(group)):
                    progress.describe(f"{case.path.stem} {case.test.name}")
                    samples[case].append(bench.run(case))
                    progress.advance(1)
        return [bench.measurement(case, samples[case]) for case in cases]
    finally:
        bench.close()


class _Bench:
    """What is loaded now, within a budget of memory."""

    def __init__(self, cases: Sequence[Case], available: int, warm_up: bool) -> None:
        self._cases, self._available, self._warm_up = list(dict.fromkeys(cases)), available, warm_up
        self._headers: dict[Path, GGUF] = {}
        for path in dict.fromkeys(case.path for case in cases):
            self._headers[path] = read_gguf(path)
            check_safe(self._headers[path])
        self._models: dict[ModelSettings, TimedModel] = {}
        self._contexts: dict[tuple[ModelSettings, ContextSettings], _Held] = {}
        self._facts: dict[Case, Measurement] = {}

    def groups(self) -> list[list[Case]]:
        """Cases that are interleaved: all of them if their weights fit together, else model by model."""
        by_model: dict[ModelSettings, list[Case]] = {}
        for case in self._cases:
            by_model.setdefault(case.model, []).append(case)
        weights = sum(self._headers[model.path].size_bytes for model in by_model)
        if len(by_model) == 1 or weights < self._available * 0.8:
            return [self._cases]
        return list(by_model.values())

    def run(self, case: Case) -> int:
        """One repetition: nanoseconds."""
        held = self._ready(case)
        context = held.context
        context.set_threads(case.threads)
        if self._warm_up and case not in held.warm:
            _warm(context, case)
        held.warm.add(case)
        context.fill(case.test.depth)
        return _timed(context, case.test.prompt, case.test.generate)

    def measurement(self, case: Case, samples: Sequence[int]) -> Measurement:
        """What is known about `case`."""
        return replace(self._facts[case], samples_ns=tuple(samples))

    def close(self) -> None:
        """Free everything, contexts first."""
        for held in self._contexts.values():
            held.context.close()
        for model in self._models.values():
            model.close()
        self._contexts.clear()
        self._models.clear()

    def _ready(self, case: Case) -> _Held:
        settings = self._context_settings(case)
        key = (case.model, settings)
        held = self._contexts.pop(key, None)
        if held is None:
            size = self._size(case, settings)
            self._make_room(case.model, size)
            held = _Held(TimedContext(self._model(case.model), settings), size)
        self._contexts[key] = held  # the last one is the one used last
        if case not in self._facts:
            self._facts[case] = _facts(case, held.context)
        return held

    def _model(self, settings: ModelSettings) -> TimedModel:
        if settings not in self._models:
            self._models[settings] = TimedModel(settings)
        return self._models[settings]

    def _make_room(self, wanted: ModelSettings, size: int) -> None:
        """Free what was used longest ago until `size` more bytes fit, or nothing is left to free.

        Weights alone may exceed what is free, since they are mapped; a context may not.
        """
        if size > self._available:
            raise DoesNotFit(
                f"{wanted.path.name}: the context needs {size / 1e9:.1f} GB, and {self._available / 1e9:.1f} GB are free",
                "measure shorter prompts or depths, or -ctk q8_0 -ctv q8_0",
            )
        if wanted not in self._models:
            size += self._headers[wanted.path].size_bytes
        while self._contexts and self._held_bytes() + size > self._available:
            key = next(iter(self._contexts))
            self._contexts.pop(key).context.close()
            if key[0] != wanted and all(other[0] != key[0] for other in self._contexts):
                self._models.pop(key[0]).close()

    def _held_bytes(self) -> int:
        models = sum(self._headers[settings.path].size_bytes for settings in self._models)
        return models + sum(held.size for held in self._contexts.values())

    def _context_settings(self, case: Case) -> ContextSettings:
        """One context serves all tests that differ in nothing that it is made of."""
        made_of = _made_of(case)
        longest = max(other.test.depth + other.test.tokens for other in self._cases if _made_of(other) == made_of)
        return ContextSettings(longest, case.batch, case.ubatch, case.flash_attn, case.cache_type_k, case.cache_type_v)

    def _size(self, case: Case, settings: ContextSettings) -> int:
        need = estimate(
            self._headers[case.path],
            settings.context,
            type_k=settings.cache_type_k,
            type_v=settings.cache_type_v,
            ubatch=settings.ubatch,
            outputs=settings.ubatch,
            flash_attn="on" if settings.flash_attn == "auto" else settings.flash_attn,  # the engine's own choice
        )
        return need.cache + need.compute


def check_cases(cases: Sequence[Case], logical: int) -> None:
    """Refuse what would crash the engine or measure nothing. `logical` is the machine's number of processors."""
    for case in cases:
        if case.threads > 4 * logical:
            raise UsageError(f"-t {case.threads}: this machine has {logical} processors", f"at most {4 * logical}")


def _made_of(case: Case) -> tuple[object, ...]:
    return (case.model, case.batch, case.ubatch, case.flash_attn, case.cache_type_k, case.cache_type_v)


def _facts(case: Case, context: TimedContext) -> Measurement:
    model = context.model
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Measurement(case, model.description, model.size, model.weights, now, model.load_ns + context.create_ns, ())


def _warm(context: TimedContext, case: Case) -> None:
    """Run until two runs agree, within limits of number and time."""
    previous, spent = 0, 0
    for _ in range(MOST_WARM_UPS):
        context.clear()
        now = _timed(context, min(case.test.prompt, case.batch), min(case.test.generate, WARM_UP_TOKENS))
        spent += now
        if spent > WARM_UP_NS or (previous and abs(now - previous) < AGREE * previous):
            return
        previous = now


def _timed(context: TimedContext, prompt: int, generate: int) -> int:
    reading = context.time_prompt(prompt) if prompt else 0
    return reading + (context.time_generation(generate) if generate else 0)
