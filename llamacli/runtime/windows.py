"""Given tokens through a model: windows of a text side by side, each a sequence of its own, and their logits.

What generation leaves to the sampler is computed here for all positions, a stretch at a time, so that memory depends
neither on the text nor on the number of windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llamacli.errors import DoesNotFit, EngineError
from llamacli.runtime import bindings
from llamacli.runtime.engine_context import CACHE_TYPES, FLASH_ATTENTION, apply_adapters, whole_cells
from llamacli.runtime.graph import GraphWatch, Observer
from llamacli.runtime.interrupts import Held
from llamacli.runtime.llama import LlamaEngine

LOGITS_BYTES = 1 << 26
"""Logits that are asked for at a time, unless that is less than `LEAST_ROWS` positions."""

LEAST_ROWS = 16


@dataclass(frozen=True)
class Stretch:
    """Logits of the positions [start, stop) of every window: float32 at `logits`, (windows, stop - start, vocabulary).

    They stay valid until the next stretch of the same `Windows`.
    """

    logits: Any
    start: int
    stop: int


class Windows:
    """A context of `engine` for up to `sequences` windows of `size` tokens at a time.

    Raises DoesNotFit or EngineError where the engine cannot make it.
    """

    def __init__(
        self,
        engine: LlamaEngine,
        size: int,
        *,
        sequences: int = 1,
        observer: Observer | None = None,
        logits_bytes: int = LOGITS_BYTES,
    ) -> None:
        self.engine, self.size, self.sequences = engine, size, sequences
        self._lib = bindings.load()
        self._watch = GraphWatch(observer) if observer else None
        fit = logits_bytes // (4 * engine.vocab.size * sequences)
        self.rows = max(LEAST_ROWS, min(size, fit))
        """Positions of a window whose logits come at a time."""
        self._held = Held()
        self._abort = self._lib.ggml_abort_callback(self._asked_to_stop)
        self._context = self._lib.llama_init_from_model(engine.pointer, self._parameters())
        if not self._context:
            said = bindings.failure_hint()
            kind = DoesNotFit if "alloc" in said.lower() or "memory" in said.lower() else EngineError
            raise kind(f"the engine cannot make a context for {sequences} windows of {size:,} tokens", said)
        self._memory = self._lib.llama_get_memory(self._context)
        apply_adapters(self._lib, self._context, engine.adapters)
        self._lib.llama_set_abort_callback(self._context, self._abort, None)
        self._batch = self._lib.llama_batch_init(size * sequences, 0, 1)

    def _parameters(self) -> Any:
        settings = self.engine.settings
        parameters = self._lib.llama_context_default_params()
        parameters.n_ctx = whole_cells(self.size) * self.sequences
        parameters.n_batch = self.size * self.sequences
        parameters.n_ubatch = min(settings.ubatch, parameters.n_batch)
        parameters.n_outputs_max = min(self.rows * self.sequences, parameters.n_batch)
        parameters.n_seq_max = self.sequences
        parameters.n_threads, parameters.n_threads_batch = self.engine.threads
        parameters.flash_attn_type = FLASH_ATTENTION[self.engine.asked_attention]
        parameters.type_k = CACHE_TYPES[settings.cache_type_k]
        parameters.type_v = CACHE_TYPES[settings.cache_type_v]
        parameters.no_perf = True
        if self._watch is not None:
            parameters.cb_eval = self._watch.callback
        return parameters

    def evaluate(self, windows: Sequence[Sequence[int]], first: int) -> Iterator[Stretch]:
        """Compute up to `sequences` windows of equal length; yield the logits of the positions from `first` on.

        Raises EngineError when the engine fails, and what an observer raised.
        """
        self._lib.llama_memory_clear(self._memory, True)
        length, done = len(windows[0]), 0
        if length - first > self.rows:  # else all at once, as llama-perplexity does it, and cut alike to the last bit
            self._decode(windows, 0, first, first)
            done = first
        for start in range(first, length, self.rows):
            stop = min(start + self.rows, length)
            self._decode(windows, done, stop, start)
            done = stop
            yield Stretch(self._lib.llama_get_logits(self._context), start, stop)

    def _decode(self, windows: Sequence[Sequence[int]], start: int, stop: int, first: int) -> None:
        """Evaluate the positions [start, stop) of every window, with logits from `first` on."""
        if start == stop:
            return
        batch, index = self._batch, 0
        for sequence, window in enumerate(windows):
            for position in range(start, stop):
                batch.token[index] = window[position]
                batch.pos[index] = position
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = sequence
                batch.logits[index] = position >= first
                index += 1
        batch.n_tokens = index
        with Held() as self._held:  # Ctrl-C ends the evaluation and is raised at the end of the block
            result = self._lib.llama_decode(self._context, batch)
            if not result:
                self._lib.llama_synchronize(self._context)
        if self._watch is not None and self._watch.fault is not None:
            raise self._watch.fault
        if result:
            raise EngineError(f"the engine failed to evaluate the text (code {result})", bindings.failure_hint())

    def _asked_to_stop(self, data: object) -> bool:
        """Called from C between operations."""
        return bool(self._held)

    def close(self) -> None:
        """Free the context. Calling it twice does no harm."""
        if self._context:
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(self._context)
            self._context = None

    def __enter__(self) -> Windows:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
