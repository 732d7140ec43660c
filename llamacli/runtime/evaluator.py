"""The part of the engine that computes: one context, its KV cache, and what tokens stand in it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

from llamacli.errors import DoesNotFit, EngineError, UsageError
from llamacli.runtime.bindings import failure_hint
from llamacli.runtime.engine import EngineSettings

CELLS = 256
"""The engine's contexts are multiples of this many tokens."""

FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
CACHE_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30,
}  # fmt: skip
"""ggml's numbers of the types that a KV cache may have; others abort the process."""

ABORTED, FULL = 2, 1
"""Results of `llama_decode` that are not failures."""


def whole_cells(tokens: int) -> int:
    """`tokens` rounded up to what the engine allots."""
    return max(CELLS, -(-tokens // CELLS) * CELLS)


class Evaluator:
    """A context of the engine. `cells` are the tokens whose keys and values are in the cache, in order."""

    def __init__(self, library: Any, model: Any, settings: EngineSettings, threads: tuple[int, int]) -> None:
        self._lib, self._model, self._settings, self._threads = library, model, settings, threads
        self._adapters: list[tuple[Any, float]] = []
        self._context: Any = None
        self._memory: Any = None
        self._fault: BaseException | None = None
        self.stopping = False
        self.cells: list[int] = []
        self.size = 0
        self._checked = False
        self._pool: Any = None
        self._slot = (ctypes.c_int32 * 1)()
        self._step = library.llama_batch_get_one(self._slot, 1)
        self._asks_to_stop = library.ggml_abort_callback(self._stop_asked)
        self._never_stops = library.ggml_abort_callback()

    # -- the context -------------------------------------------------------------------------------------------

    @property
    def context(self) -> Any:
        """The C pointer; there is one after the first `grow`."""
        return self._context

    def grow(self, tokens: int, limit: int) -> None:
        """Have room for `tokens`, doubling so that it happens rarely, but never above `limit`; the cache is kept."""
        if tokens <= self.size:
            return
        size = min(max(whole_cells(tokens), min(2 * self.size, limit)), whole_cells(limit))
        state = self._save()
        self._release()
        self._create(size)
        self._restore(state)

    def _create(self, size: int) -> None:
        parameters = self._parameters(size)
        context = self._lib.llama_init_from_model(self._model, parameters)
        if not context:
            said = failure_hint()
            kind = DoesNotFit if "alloc" in said.lower() or "memory" in said.lower() else EngineError
            raise kind(f"the engine cannot make a context of {size:,} tokens", said)
        self._context, self.size = context, self._lib.llama_n_ctx_seq(context)
        self._memory = self._lib.llama_get_memory(context)
        self._batch_size = self._lib.llama_n_batch(context)
        self._keep_threads()
        self._apply_adapters()

    def _keep_threads(self) -> None:
        """Engines without OpenMP (the rule on a Mac) start and end their threads for every token, unless told not to."""
        if b"OPENMP = 1" in self._lib.llama_print_system_info():
            return
        from llamacli.runtime.threadpool import ThreadPool

        if self._pool is None:
            self._pool = ThreadPool(max(self._threads))
        self._pool.attach(self._context)

    def _parameters(self, size: int) -> Any:
        s = self._settings
        parameters = self._lib.llama_context_default_params()
        parameters.n_ctx = size * s.sequences
        parameters.n_batch = s.batch
        parameters.n_ubatch = min(s.ubatch, s.batch)
        parameters.n_seq_max = s.sequences
        parameters.n_threads, parameters.n_threads_batch = self._threads
        parameters.flash_attn_type = FLASH_ATTENTION[s.flash_attn]
        parameters.type_k = CACHE_TYPES[s.cache_type_k]
        parameters.type_v = CACHE_TYPES[s.cache_type_v]
        parameters.embeddings = s.embeddings
        parameters.no_perf = True
        return parameters

    def _save(self) -> Any:
        """The cache as bytes, or None if there is nothing in it."""
        if not self._context or not self.cells:
            return None
        size = self._lib.llama_state_seq_get_size(self._context, 0)
        state = (ctypes.c_uint8 * size)()
        return state if self._lib.llama_state_seq_get_data(self._context, state, size, 0) == size else None

    def _restore(self, state: Any) -> None:
        kept = state is not None and self._lib.llama_state_seq_set_data(self._context, state, len(state), 0) > 0
        if not kept:
            cells, self.cells = self.cells, []
            self.read(cells)

    def use_adapters(self, adapters: Sequence[tuple[Any, float]]) -> None:
        """Add LoRA adapters, each with its scale, to every context from now on."""
        self._adapters = list(adapters)
        if self._context:
            self._apply_adapters()

    def _apply_adapters(self) -> None:
        if not self._adapters:
            return
        count = len(self._adapters)
        pointers = (ctypes.c_void_p * count)(*[pointer for pointer, _ in self._adapters])
        scales = (ctypes.c_float * count)(*[scale for _, scale in self._adapters])
        array = ctypes.cast(pointers, ctypes.POINTER(self._lib.llama_adapter_lora_p_ctypes))
        if self._lib.llama_set_adapters_lora(self._context, array, count, scales):
            raise EngineError("the engine refuses the LoRA adapter", failure_hint())

    def _release(self) -> None:
        if self._context:
            self._lib.llama_free(self._context)
        self._context = self._memory = None
        self.size = 0

    def clear(self) -> None:
        """Empty the cache."""
        if self._context:
            self._lib.llama_memory_clear(self._memory, True)
        self.cells = []

    def close(self) -> None:
        """Free the context; a second call does nothing."""
        self._release()
        self.cells = []
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    # -- evaluation --------------------------------------------------------------------------------------------

    def keep(self, tokens: Sequence[int]) -> int:
        """Cut the cache back to what it shares with the beginning of `tokens`; how many tokens that is.

        The last of `tokens` is always left to be evaluated, because its logits are wanted. A model with recurrent
        state cannot drop a tail: then nothing is kept.
        """
        shared = min(common_length(self.cells, tokens), len(tokens) - 1)
        if shared == len(self.cells):
            return shared
        if not self._lib.llama_memory_seq_rm(self._memory, 0, shared, -1):
            self._lib.llama_memory_clear(self._memory, True)
            shared = 0
        del self.cells[shared:]
        return shared

    def read(self, tokens: Sequence[int]) -> bool:
        """Evaluate a stretch of prompt; False if `stopping` was set meanwhile. Raises EngineError.

        Batches end at multiples of the batch size counted from the start, so that a prompt is cut alike whether its
        beginning was in the cache or not.
        """
        self._fault = None
        self._lib.llama_set_abort_callback(self._context, self._asks_to_stop, None)
        try:
            done = 0
            while done < len(tokens):
                if self.stopping:
                    return False
                count = min(self._batch_size - len(self.cells) % self._batch_size, len(tokens) - done)
                if not self._read_batch(tokens[done : done + count]):
                    return False
                done += count
        finally:
            self._lib.llama_set_abort_callback(self._context, self._never_stops, None)
        return True

    def _read_batch(self, tokens: Sequence[int]) -> bool:
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        result = self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(ids, len(tokens)))
        if result == 0:
            self.cells += tokens
            return True
        self._resynchronize(tokens)
        if self._fault is not None:
            raise self._fault
        if result == ABORTED:
            return False
        raise EngineError(f"the engine failed to evaluate the prompt (code {result})", failure_hint())

    def _resynchronize(self, tokens: Sequence[int]) -> None:
        """After a failed batch, parts of it may stand in the cache: take them out, or if that is impossible, all."""
        if not self._lib.llama_memory_seq_rm(self._memory, 0, len(self.cells), -1):
            self._lib.llama_memory_clear(self._memory, True)
            self.cells = []

    def step(self, token: int) -> None:
        """Evaluate one token of an answer. Raises EngineError."""
        self._slot[0] = token
        result = self._lib.llama_decode(self._context, self._step)
        if result:
            self._resynchronize((token,))
            raise EngineError(f"the engine failed to evaluate a token (code {result})", failure_hint())
        self.cells.append(token)

    def _stop_asked(self, data: object) -> bool:
        """Called from C between the operations of a batch; an exception here (Ctrl-C) is kept for later."""
        try:
            return self.stopping
        except BaseException as error:
            self._fault = error
            return True

    def check_logits(self, vocabulary_size: int) -> None:
        """Raise EngineError if the model computes nothing meaningful; looked at once."""
        if self._checked:
            return
        logits = self._lib.llama_get_logits_ith(self._context, -1)
        if math.isnan(sum(logits[:vocabulary_size])):
            raise EngineError(
                "the model computes NaN instead of probabilities",
                "its weights are damaged, or it needs other settings (-fa off, -ctk f16 -ctv f16); llamacli verify FILE",
            )
        self._checked = True


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many items two sequences share from the start."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))


def check_settings(settings: EngineSettings, cpus: int) -> None:
    """Raise UsageError for settings that the engine would not survive."""
    for flag, value in (("-ctk", settings.cache_type_k), ("-ctv", settings.cache_type_v)):
        if value not in CACHE_TYPES:
            raise UsageError(f"{flag} {value}: not a type for the KV cache", f"one of {', '.join(CACHE_TYPES)}")
    if settings.flash_attn not in FLASH_ATTENTION:
        raise UsageError(f"-fa {settings.flash_attn}: on, off or auto")
    for flag, threads in (("-t", settings.threads), ("-tb", settings.threads_batch)):
        if threads is not None and not 1 <= threads <= max(4 * cpus, 8):
            raise UsageError(f"{flag} {threads}: from 1 to {max(4 * cpus, 8)} on this machine")
    if settings.batch < 1 or settings.ubatch < 1:
        raise UsageError("-b and -ub: at least 1")
    if settings.ctx_size is not None and not 1 <= settings.ctx_size <= 1 << 24:
        raise UsageError(f"-c {settings.ctx_size}: from 1 to {1 << 24:,}")
    quantized = settings.cache_type_k not in ("f32", "f16", "bf16")
    if settings.flash_attn == "off" and (quantized or settings.cache_type_v not in ("f32", "f16", "bf16")):
        raise UsageError("a quantized KV cache needs flash attention", "leave -fa out, or use -fa on")
