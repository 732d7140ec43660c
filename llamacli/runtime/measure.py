"""Timing a model the way llama-bench does: random tokens, no sampling, nothing but the engine inside the clock.

A prompt is decoded in batches of `batch` tokens, generation one token at a time, each waited for. The first token is
the beginning-of-text token where the model wants one. Times are nanoseconds of a monotonic clock.
"""

from __future__ import annotations

import ctypes
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamacli.errors import DoesNotFit, EngineError
from llamacli.runtime import bindings
from llamacli.runtime.backends import device_pointers
from llamacli.runtime.engine_context import CACHE_TYPES, FLASH_ATTENTION, whole_cells
from llamacli.runtime.threadpool import ThreadPool
from llamacli.runtime.tiles import model_parameters

_LARGEST_STATE = 1 << 30
"""Saved states beyond this many bytes are computed again instead of kept."""


@dataclass(frozen=True)
class ModelSettings:
    """How weights are loaded. `gpu_layers` -1 means all that fit, `devices` none means all."""

    path: Path
    gpu_layers: int = -1
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class ContextSettings:
    """How a context is made; names as in llama.cpp."""

    context: int
    batch: int = 2048
    ubatch: int = 512
    flash_attn: str = "auto"
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"


class TimedModel:
    """Loaded weights. `load_ns` is what loading took; `description`, `size` (bytes) and `weights` as llama.cpp says."""

    def __init__(self, settings: ModelSettings) -> None:
        lib = bindings.load()
        params = model_parameters()
        params.n_gpu_layers = settings.gpu_layers
        self._devices = device_pointers(settings.devices) if settings.devices else None
        if self._devices is not None:
            params.devices = ctypes.cast(self._devices, ctypes.c_void_p)
        start = time.perf_counter_ns()
        self.pointer: Any = lib.llama_model_load_from_file(os.fsencode(settings.path), params)
        self.load_ns = time.perf_counter_ns() - start
        if not self.pointer:
            raise EngineError(f"the engine cannot load {settings.path.name}", bindings.failure_hint())
        text = ctypes.create_string_buffer(256)
        lib.llama_model_desc(self.pointer, text, len(text))
        self.description = text.value.decode("utf-8", "replace")
        self.size = int(lib.llama_model_size(self.pointer))
        self.weights = int(lib.llama_model_n_params(self.pointer))
        self._vocabulary = lib.llama_model_get_vocab(self.pointer)
        self.vocabulary_size = int(lib.llama_vocab_n_tokens(self._vocabulary))
        self.first_token: int | None = (
            int(lib.llama_vocab_bos(self._vocabulary)) if lib.llama_vocab_get_add_bos(self._vocabulary) else None
        )

    def close(self) -> None:
        """Free the weights; contexts must be closed before. Calling it twice does no harm."""
        if self.pointer:
            bindings.load().llama_model_free(self.pointer)
            self.pointer = None


class TimedContext:
    """A context of `model`. `create_ns` is what making it took."""

    def __init__(self, model: TimedModel, settings: ContextSettings, seed: int = 0) -> None:
        lib = self._lib = bindings.load()
        self.model, self.settings = model, settings
        self._random = random.Random(seed)
        params = lib.llama_context_default_params()
        params.n_ctx = whole_cells(settings.context)
        params.n_batch, params.n_ubatch = settings.batch, min(settings.ubatch, settings.batch)
        params.flash_attn_type = FLASH_ATTENTION[settings.flash_attn]
        params.type_k, params.type_v = CACHE_TYPES[settings.cache_type_k], CACHE_TYPES[settings.cache_type_v]
        params.swa_full = False
        start = time.perf_counter_ns()
        self.pointer: Any = lib.llama_init_from_model(model.pointer, params)
        self.create_ns = time.perf_counter_ns() - start
        if not self.pointer:
            raise DoesNotFit(f"no context of {params.n_ctx} tokens can be made", bindings.failure_hint())
        self._memory = lib.llama_get_memory(self.pointer)
        self._pool: ThreadPool | None = None
        self._tokens = (ctypes.c_int32 * max(1, min(settings.batch, params.n_ctx)))()
        self._states: dict[int, Any] = {}

    def set_threads(self, threads: int) -> None:
        """Compute with this many threads from now on."""
        if self._pool is None or self._pool.threads != threads:
            old, self._pool = self._pool, ThreadPool(threads)
            self._pool.attach(self.pointer)
            if old is not None:
                old.close()
        self._lib.llama_set_n_threads(self.pointer, threads, threads)

    def clear(self) -> None:
        """Forget all tokens."""
        self._lib.llama_memory_clear(self._memory, False)

    def fill(self, depth: int) -> None:
        """Hold `depth` random tokens and no others; the second time at one depth costs a copy only."""
        self.clear()
        if depth == 0 or self._restore(depth):
            return
        self.time_prompt(depth)
        size = self._lib.llama_state_seq_get_size(self.pointer, 0)
        if 0 < size <= _LARGEST_STATE:
            state = (ctypes.c_uint8 * size)()
            if self._lib.llama_state_seq_get_data(self.pointer, state, size, 0):
                self._states = {depth: state}

    def time_prompt(self, count: int) -> int:
        """Decode `count` random tokens in batches, as reading a prompt does."""
        lib, tokens = self._lib, self._tokens
        chunks = [self._random_tokens(start, min(len(tokens), count - start)) for start in range(0, count, len(tokens))]
        started = time.perf_counter_ns()
        for chunk in chunks:
            self._decode(lib.llama_batch_get_one(chunk, len(chunk)))
        lib.llama_synchronize(self.pointer)
        return time.perf_counter_ns() - started

    def time_generation(self, count: int) -> int:
        """Decode `count` random tokens one by one, each waited for, as generating an answer does."""
        decode, synchronize, pointer = self._lib.llama_decode, self._lib.llama_synchronize, self.pointer
        tokens = self._random_tokens(0, count)
        one = self._tokens
        batch = self._lib.llama_batch_get_one(one, 1)
        started = time.perf_counter_ns()
        for token in tokens:
            one[0] = token
            if decode(pointer, batch):
                raise self._failure()
            synchronize(pointer)
        return time.perf_counter_ns() - started

    def close(self) -> None:
        """Free the context and its threads. Calling it twice does no harm."""
        if self.pointer:
            self._lib.llama_free(self.pointer)
            self.pointer = None
            if self._pool is not None:
                self._pool.close()

    def _restore(self, depth: int) -> bool:
        state = self._states.get(depth)
        if state is None:
            return False
        return bool(self._lib.llama_state_seq_set_data(self.pointer, state, len(state), 0))

    def _random_tokens(self, start: int, count: int) -> Any:
        most = self.model.vocabulary_size
        tokens = (ctypes.c_int32 * count)(*(self._random.randrange(most) for _ in range(count)))
        if start == 0 and self.model.first_token is not None:
            tokens[0] = self.model.first_token
        return tokens

    def _decode(self, batch: Any) -> None:
        if self._lib.llama_decode(self.pointer, batch):
            raise self._failure()

    def _failure(self) -> EngineError:
        return EngineError("the engine failed to decode", bindings.failure_hint())


@contextmanager
def timed(model: ModelSettings, context: ContextSettings) -> Iterator[TimedContext]:
    """One model and one context, freed at the end."""
    weights = TimedModel(model)
    try:
        ready = TimedContext(weights, context)
        try:
            yield ready
        finally:
            ready.close()
    finally:
        weights.close()
