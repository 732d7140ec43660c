"""Contexts of the engine: how one is made for given settings, and which settings it would not survive."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from llamacli.errors import DoesNotFit, EngineError, UsageError
from llamacli.runtime.bindings import failure_hint, has_gpu
from llamacli.runtime.engine import PROMPT_STEP, EngineSettings

CELLS = 256
"""The engine's contexts are multiples of this many tokens."""

FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
CACHE_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30,
}  # fmt: skip
"""ggml's numbers of the types that a KV cache may have; others abort the process."""

ROWS = 8
"""Tokens of an answer that are evaluated together at most, with the logits after each."""


def whole_cells(tokens: int) -> int:
    """`tokens` rounded up to what the engine allots."""
    return max(CELLS, -(-tokens // CELLS) * CELLS)


def prompt_step(batch: int, ubatch: int, gpu_layers: int | None) -> int:
    """Tokens of a prompt that are computed at a time."""
    step = min(ubatch, batch)
    return min(step, PROMPT_STEP) if gpu_layers == 0 or not has_gpu() else step


def new_context(library: Any, model: Any, parameters: Any) -> Any:
    """The C pointer of a context. Raises DoesNotFit, EngineError."""
    context = library.llama_init_from_model(model, parameters)
    if not context:
        said = failure_hint()
        kind = DoesNotFit if "alloc" in said.lower() or "memory" in said.lower() else EngineError
        raise kind(f"the engine cannot make a context of {parameters.n_ctx // parameters.n_seq_max:,} tokens", said)
    return context


def context_parameters(library: Any, settings: EngineSettings, threads: tuple[int, int], size: int, step: int) -> Any:
    """llama_context_params for sequences of `size` tokens each, of which `step` are computed at a time."""
    s = settings
    parameters = library.llama_context_default_params()
    parameters.n_ctx = size * s.sequences
    parameters.n_batch = max(s.batch, step)
    parameters.n_ubatch = step
    parameters.n_seq_max = s.sequences
    if not s.embeddings:  # no room for the logits of a whole batch of prompt, of which only the last are asked for
        parameters.n_outputs_max = max(s.sequences, ROWS)
    parameters.n_threads, parameters.n_threads_batch = threads
    parameters.flash_attn_type = FLASH_ATTENTION[s.flash_attn]
    parameters.type_k = CACHE_TYPES[s.cache_type_k]
    parameters.type_v = CACHE_TYPES[s.cache_type_v]
    parameters.embeddings = s.embeddings
    parameters.no_perf = True
    return parameters


def apply_adapters(library: Any, context: Any, adapters: Sequence[tuple[Any, float]]) -> None:
    """Let a context compute with these LoRA adapters, each with its scale. Raises EngineError."""
    if not adapters:
        return
    count = len(adapters)
    pointers = (ctypes.c_void_p * count)(*[pointer for pointer, _ in adapters])
    scales = (ctypes.c_float * count)(*[scale for _, scale in adapters])
    array = ctypes.cast(pointers, ctypes.POINTER(library.llama_adapter_lora_p_ctypes))
    if library.llama_set_adapters_lora(context, array, count, scales):
        raise EngineError("the engine refuses the LoRA adapter", failure_hint())


def check_settings(settings: EngineSettings, cpus: int) -> None:
    """Raise UsageError for settings that the engine would not survive."""
    for flag, value in (("-ctk", settings.cache_type_k), ("-ctv", settings.cache_type_v)):
        if value not in CACHE_TYPES:
            raise UsageError(f"{flag} {value}: not a type for the KV cache", f"one of {', '.join(CACHE_TYPES)}")
    if settings.flash_attn not in FLASH_ATTENTION:
        raise UsageError(f"-fa {settings.flash_attn}: on, off or auto")
    if not 1 <= settings.power <= 100:
        raise UsageError(f"--power {settings.power}: per cent of the time, from 1 to 100")
    if settings.draft not in ("auto", "on", "off"):
        raise UsageError(f"--draft {settings.draft}: auto, on or off")
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
