"""The part of the engine that computes: one context, its KV cache, and what tokens stand in it."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llamacli.errors import EngineError
from llamacli.runtime.bindings import failure_hint
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.engine_context import (
    ROWS,
    apply_adapters,
    context_parameters,
    new_context,
    prompt_step,
    whole_cells,
)
from llamacli.runtime.interrupts import Held
from llamacli.runtime.pace import Pace
from llamacli.runtime.prompt_cuts import last_alone, until_cut
from llamacli.runtime.recurrent_state import RecurrentState

if TYPE_CHECKING:
    from llamacli.runtime.pictures import Pictures

ABORTED, FULL = 2, 1
"""Results of `llama_decode` that are not failures."""


class Stopped(EngineError):
    """An evaluation ended because somebody asked for it."""


class Evaluator:
    """A context of the engine. `cells` are the tokens whose keys and values are in the cache, in order."""

    def __init__(self, library: Any, model: Any, settings: EngineSettings, threads: tuple[int, int]) -> None:
        self._lib, self._model, self._settings, self._threads = library, model, settings, threads
        self._adapters: list[tuple[Any, float]] = []
        self._context: Any = None
        self._memory: Any = None
        self._held = Held()
        self.stopping = False
        self.on_read: Callable[[int], None] | None = None
        """Told how many cells there are after every stretch of a prompt."""
        self.cells: list[int] = []
        self.aligned = 0
        """So many of `cells` were evaluated as any prompt that begins with them is: in whole steps from the start."""
        self.but_last = 0
        """So many of `cells` were evaluated as any prompt is that is one token longer; 0 where that is not known."""
        self.size = 0
        self.pictures: Pictures | None = None
        """What the negative numbers among tokens are."""
        self._extra = 0
        self.step_size = prompt_step(settings.batch, settings.ubatch, settings.gpu_layers)
        self.drops_tail = not (library.llama_model_is_recurrent(model) or library.llama_model_is_hybrid(model))
        """Whether tokens can be taken off the end of the cache; a recurrent state cannot go back."""
        self.window = int(library.llama_model_n_swa(model))
        """Tokens that layers with a sliding window look back, 0 without any. A saved state holds no more for them."""
        self.pace = Pace(settings.power, lambda: bool(self.stopping))
        self._kept = RecurrentState(library)
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
        parameters = context_parameters(self._lib, self._settings, self._threads, size, self.step_size)
        self._context = new_context(self._lib, self._model, parameters)
        self.size = self._lib.llama_n_ctx_seq(self._context)
        self._memory = self._lib.llama_get_memory(self._context)
        self._batch_size = self._lib.llama_n_batch(self._context)
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
            cells = self.cells
            self._nothing_read()
            self.read(cells)

    def use_adapters(self, adapters: Sequence[tuple[Any, float]]) -> None:
        """Add LoRA adapters, each with its scale, to every context from now on."""
        self._adapters = list(adapters)
        if self._context:
            self._apply_adapters()

    @property
    def adapters(self) -> list[tuple[Any, float]]:
        """The LoRA adapters in use, each with its scale."""
        return list(self._adapters)

    def _apply_adapters(self) -> None:
        apply_adapters(self._lib, self._context, self._adapters)

    def _release(self) -> None:
        if self._context:
            self._lib.llama_free(self._context)
        self._context = self._memory = None
        self.size = 0

    def use_pictures(self, pictures: Pictures) -> None:
        """Read `pictures` where they stand among tokens; each fits into one step from now on."""
        self.pictures = pictures
        if pictures.largest > self.step_size:
            self.clear()
            self._release()
            self.step_size = pictures.largest

    def clear(self) -> None:
        """Empty the cache."""
        if self._context:
            self._lib.llama_memory_clear(self._memory, True)
        self._nothing_read()

    def _nothing_read(self) -> None:
        self.cells, self.aligned, self.but_last, self._extra = [], 0, 0, 0
        self._kept.forget()

    def close(self) -> None:
        """Free the context; a second call does nothing."""
        self._release()
        self._nothing_read()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    # -- evaluation --------------------------------------------------------------------------------------------

    def keep(self, tokens: Sequence[int]) -> int:
        """Cut the cache back to what it shares with the beginning of `tokens`; how many tokens that is.

        The last of `tokens` is always left to be evaluated, because its logits are wanted. A model with recurrent
        state cannot drop a tail: it goes back to the last state that was kept while a prompt was read.
        """
        shared = min(common_length(self.cells, tokens), len(tokens) - 1)
        if shared < len(self.cells) and not self.cut(shared):
            self._go_back(tokens)
        return len(self.cells)

    def cut(self, length: int) -> bool:
        """Take everything after `length` tokens out of the cache; False, and nothing is done, where that cannot be."""
        if length < len(self.cells):
            if not self.can_cut(length) or not self._lib.llama_memory_seq_rm(self._memory, 0, length, -1):
                return False
            del self.cells[length:]
            self._extra = self.pictures.extra(self.cells) if self.pictures else 0
            self.aligned = min(self.aligned, length // self.step_size * self.step_size)
            self.but_last = self.but_last if self.but_last <= length else 0
        return True

    def can_cut(self, length: int) -> bool:
        """Whether all that the token after `length` others looks at is still there."""
        if not self.drops_tail or not self.window:
            return self.drops_tail
        return int(self._lib.llama_memory_seq_pos_min(self._memory, 0)) <= max(0, length - self.window)

    def _go_back(self, tokens: Sequence[int]) -> None:
        """To the kept state if `tokens` begin with what it has read, else to nothing."""
        cells = self._kept.cells
        known = cells == self.cells[: len(cells)] == list(tokens[: len(cells)])
        if known and len(cells) < len(tokens) and self._kept.put_back(self._context, self._memory):
            self.cells, self.aligned, self.but_last, self._extra = list(cells), len(cells), 0, 0
            return
        self._lib.llama_memory_clear(self._memory, True)
        self._nothing_read()

    # -- states in files ---------------------------------------------------------------------------------------

    @property
    def reusable(self) -> int:
        """So many cells may serve other prompts: whole steps, and all but the last token where a tail can be dropped."""
        return max(self.aligned, self.but_last) if self.drops_tail and not self.window else self.aligned

    def state_bytes(self) -> int:
        """Bytes that the cache takes in a file."""
        return int(self._lib.llama_state_seq_get_size(self._context, 0)) if self._context and self.cells else 0

    def write_state(self, file: bytes, length: int) -> int:
        """Write the first `length` cells to `file`, which drops the rest; bytes written, 0 if it cannot be done."""
        if not self.cut(length):
            if len(self._kept.cells) != length:
                return 0
            self._go_back([*self._kept.cells, 0])
        if len(self.cells) != length:
            return 0
        ids = (ctypes.c_int32 * length)(*self.cells)
        return int(self._lib.llama_state_seq_save_file(self._context, file, 0, ids, length))

    def read_state(self, file: bytes, aligned: int, but_last: int) -> bool:
        """Fill the cache from a file that `write_state` wrote in full: the engine dies of others. Else it is empty."""
        self.clear()
        ids, count = (ctypes.c_int32 * self.size)(), ctypes.c_size_t()
        if not self._lib.llama_state_seq_load_file(self._context, file, 0, ids, self.size, ctypes.byref(count)):
            self.clear()
            return False
        self.cells, self.aligned, self.but_last = ids[: count.value], aligned, but_last
        if not self.drops_tail:
            self._kept.remember(self._context, self.cells)
        return True

    def read(self, tokens: Sequence[int]) -> bool:
        """Evaluate a stretch of prompt; False if `stopping` was set meanwhile. Raises EngineError.

        Batches end at multiples of their size counted from the start, so that a prompt is cut alike whether its
        beginning was in the cache or not.
        """
        if not self.drops_tail and self.pictures is None:
            steps = (len(self.cells) + len(tokens) - 1) // self.step_size * self.step_size - len(self.cells)
            if steps > 0:
                if not self._read_all(tokens[:steps], ends=False):
                    return False
                self._kept.remember(self._context, self.cells)
                tokens = tokens[steps:]
        return self._read_all(tokens)

    def _read_all(self, tokens: Sequence[int], *, ends: bool = True) -> bool:
        self._lib.llama_set_abort_callback(self._context, self._asks_to_stop, None)
        try:
            done = 0
            while done < len(tokens):
                if self.stopping:
                    return False
                if tokens[done] < 0:
                    done += self._read_picture(tokens[done])
                    continue
                count = self._next_batch(tokens, done, ends=ends)
                started = time.perf_counter()
                if not self._read_batch(tokens[done : done + count]):
                    return False
                done += count
                if self.on_read is not None:
                    self.on_read(len(self.cells))
                self.pace.worked(time.perf_counter() - started)
        finally:
            self._lib.llama_set_abort_callback(self._context, self._never_stops, None)
        return True

    def _next_batch(self, tokens: Sequence[int], done: int, *, ends: bool) -> int:
        """How many of the tokens behind the `done` ones are evaluated next."""
        left = len(tokens) - done
        a_step = self.pace.resting or self.on_read is not None
        batch = self.step_size if a_step else int(self._batch_size)
        count = min(until_cut(len(self.cells), self.step_size, batch), left)
        if self.pictures is not None:
            return next((n for n in range(1, count) if tokens[done + n] < 0), count)
        from_start = self.aligned == len(self.cells)
        alone = ends and from_start and last_alone(len(self.cells) + left)
        return count - 1 if alone and count == left > 1 else count

    def _read_batch(self, tokens: Sequence[int]) -> bool:
        with Held() as self._held:  # Ctrl-C is raised at the end of the block, when the books are right again
            if self.pictures is None:
                ids = (ctypes.c_int32 * len(tokens))(*tokens)
                result = self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(ids, len(tokens)))
            else:
                result = self._decode_placed(tokens, every=False)
            if result:
                self._resynchronize(tokens)
            else:
                on_cut = self.aligned == len(self.cells)
                self.cells += tokens
                if on_cut:
                    self.aligned = len(self.cells) // self.step_size * self.step_size
                    self.but_last = len(self.cells) if last_alone(len(self.cells) + 1) else 0
        if result in (0, ABORTED):
            return not result
        raise EngineError(f"the engine failed to evaluate the prompt (code {result})", failure_hint())

    def _read_picture(self, number: int) -> int:
        """Evaluate a picture, whole; how many of the numbers that stand for it were read."""
        assert self.pictures is not None
        step = min(self._batch_size, self.step_size)
        self._lib.llama_set_abort_callback(self._context, self._never_stops, None)
        with Held():
            count = self.pictures.evaluate(self._context, number, len(self.cells), step)
            self.cells += [number] * count
            self._extra += self.pictures.extra((number,))
        self._lib.llama_set_abort_callback(self._context, self._asks_to_stop, None)
        return count

    def _decode_placed(self, tokens: Sequence[int], *, every: bool) -> int:
        """Decode tokens at the places that follow the cells, with logits after the last or after each of them.

        The engine would find the places by itself, but not behind pictures that take more cells than places.
        """
        batch = self._lib.llama_batch_init(len(tokens), 0, 1)
        try:
            for index, token in enumerate(tokens):
                batch.token[index], batch.pos[index] = token, len(self.cells) + index
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
                batch.logits[index] = every or index + 1 == len(tokens)
            batch.n_tokens = len(tokens)
            return int(self._lib.llama_decode(self._context, batch))
        finally:
            self._lib.llama_batch_free(batch)

    def _resynchronize(self, tokens: Sequence[int]) -> None:
        """After a failed batch, parts of it may stand in the cache: take them out, or if that is impossible, all."""
        if not self._lib.llama_memory_seq_rm(self._memory, 0, len(self.cells), -1):
            self._lib.llama_memory_clear(self._memory, True)
            self._nothing_read()

    def step(self, token: int) -> int:
        """Evaluate one token of an answer; the row of its logits. Raises EngineError."""
        self._slot[0] = token
        result = self._lib.llama_decode(self._context, self._step)
        if result:
            self._resynchronize((token,))
            raise EngineError(f"the engine failed to evaluate a token (code {result})", failure_hint())
        self.cells.append(token)
        return -1

    def step_all(self, tokens: Sequence[int]) -> None:
        """Evaluate at most `ROWS` tokens in one batch, with the logits after each. Raises EngineError."""
        assert len(tokens) <= ROWS, "the engine would end the process"
        result = self._decode_placed(tokens, every=True)
        if result:
            self._resynchronize(tokens)
            raise EngineError(f"the engine failed to evaluate some tokens (code {result})", failure_hint())
        self.cells += tokens

    def step_placed(self, token: int) -> int:
        """As `step`, where pictures came before."""
        self.step_all((token,))
        return 0

    @property
    def full(self) -> bool:
        """Whether the context has no room for another token."""
        return len(self.cells) + self._extra >= self.size

    def _stop_asked(self, data: object) -> bool:
        """Called from C between the operations of a batch."""
        return self.stopping or bool(self._held)

    def decode(self, batch: Any) -> None:
        """Evaluate a batch of several sequences, which may be stopped. Raises EngineError, also when it was stopped."""
        self._lib.llama_set_abort_callback(self._context, self._asks_to_stop, None)
        started = time.perf_counter()
        with Held() as self._held:
            result = self._lib.llama_decode(self._context, batch)
        self.pace.worked(time.perf_counter() - started)
        if result == ABORTED:
            raise Stopped("stopped")
        if result:
            raise EngineError(f"the engine failed to evaluate a batch (code {result})", failure_hint())

    def wait(self) -> None:
        """Until a GPU has computed what it was given."""
        self._lib.llama_synchronize(self._context)

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
