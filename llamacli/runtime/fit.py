"""How much memory a model needs here: estimated from its header alone, or exactly, asked of the engine.

What is meant is what the process holds at its peak while it reads a prompt that fills the context and answers: every
weight once (from the mapped file, or in the layout that the engine has made of it), the cache, the buffers to compute
in, and the program itself with its vocabulary. `benchmarks/check_fit.py` measures it.

The estimate reads nothing but metadata and needs no engine, so `list`, `show` and `download` can afford it. The exact
figures come from loading the header with `no_alloc`: the engine then lays out everything and allocates nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llamacli.errors import EngineError
from llamacli.formats.gguf_reader import GGUF, read_gguf
from llamacli.formats.tensor_types import BY_NAME
from llamacli.runtime.attention import attention, score_bytes
from llamacli.runtime.cache_size import cache_bytes, constant_bytes
from llamacli.runtime.engine import PROMPT_STEP, EngineSettings
from llamacli.runtime.tiles import model_parameters

MARGIN = 0.10
"""Part of the free memory that is left to everybody else."""

_BESIDE_SCORES = 24
"""Bytes that a step of plain attention needs beside its scores, for each number of a token's width."""

STEP = 256
"""Contexts are rounded up to this many tokens, as the engine does."""

LONGEST_ASKED = 1 << 18
"""Tokens of context up to which the engine is asked: it keeps a record of each token even without allocating."""

PROGRAM, EACH_TOKEN, EACH_MERGE = 41 << 20, 240, 106
"""Bytes of the program with the engine's code and its notes, for each token of the vocabulary, and for each merge."""

COPIED = ("Q4_0", "Q4_K", "IQ4_NL")
"""Types that the engine lays out anew for the vectors of any processor."""

PIECE = 2 << 20
"""Bytes of a file that the system maps at a time: so much of the copied weights comes back with a block's small tensors."""

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Need:
    """Bytes for one model with one context of `context` tokens.

    `program` is the program with the vocabulary, and what stays mapped of weights that the engine has copied.
    """

    context: int
    weights: int
    cache: int
    compute: int
    program: int = 0

    @property
    def beside(self) -> int:
        """All but the weights: the same for every quantization of a model."""
        return self.cache + self.compute + self.program

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.beside


def estimate(
    gguf: GGUF,
    context: int,
    *,
    type_k: str = "f16",
    type_v: str = "f16",
    ubatch: int = PROMPT_STEP,
    swa_full: bool = True,
    outputs: int = 1,
    flash_attn: str = "auto",
) -> Need:
    """The need on the processor, from the header alone: weights and cache to the byte, all together within about 3 %.

    `outputs` are the tokens of a batch whose logits are wanted at once.
    """
    context = rounded(context)
    weights = sum(tensor.size_bytes for tensor in gguf.tensors)
    cache = cache_bytes(gguf, context, BY_NAME[type_k.upper()], BY_NAME[type_v.upper()], ubatch, swa_full)
    compute = _compute(gguf, context, ubatch, min(outputs, ubatch, context))
    settings = EngineSettings(flash_attn=flash_attn, cache_type_k=type_k, cache_type_v=type_v)
    if attention(gguf, settings, gpu=False) == "off":
        compute = max(compute, score_bytes(gguf) * context + _BESIDE_SCORES * ubatch * _width(gguf))
    copied = any(tensor.type.name in COPIED for tensor in gguf.tensors)
    return Need(context, weights, cache, compute, program_bytes(gguf) + (held_twice(gguf) if copied else 0))


def memory_needed(
    path: Path,
    context: int,
    *,
    type_k: str = "f16",
    type_v: str = "f16",
    batch: int = 2048,
    ubatch: int = 512,
    flash_attn: str = "auto",
    gpu_layers: int | None = None,
    swa_full: bool = True,
) -> Need:
    """What the engine itself says that it would allocate for a chat. Raises EngineError if it cannot use the file.

    The file must have passed `check_safe`. Beyond `LONGEST_ASKED` tokens the need grows on in a straight line.
    """
    settings = EngineSettings(
        gpu_layers=gpu_layers,
        batch=batch,
        ubatch=ubatch,
        flash_attn=flash_attn,
        cache_type_k=type_k,
        cache_type_v=type_v,
    )
    context = rounded(context)
    if context <= LONGEST_ASKED:
        return _asked(path, replace(settings, ctx_size=context), swa_full)
    half, whole = (_asked(path, replace(settings, ctx_size=n), swa_full) for n in (LONGEST_ASKED // 2, LONGEST_ASKED))
    return extended(half, whole, context)


def extended(small: Need, large: Need, context: int) -> Need:
    """The need at `context`, on the straight line through two others."""
    steps = (context - large.context) / (large.context - small.context)
    cache = large.cache + round((large.cache - small.cache) * steps)
    compute = large.compute + round((large.compute - small.compute) * steps)
    return Need(context, large.weights, cache, compute, large.program)


def _asked(path: Path, settings: EngineSettings, swa_full: bool) -> Need:
    from llamacli.runtime.bindings import has_gpu

    gguf = read_gguf(path, arrays="skip")
    gpu = settings.gpu_layers != 0 and has_gpu()
    said = laid_out(path, replace(settings, flash_attn=attention(gguf, settings, gpu=gpu)), swa_full=swa_full)
    cache, compute = logged_sizes(said.lines)
    copied = any("CPU_REPACK model buffer" in line for line in said.lines)
    program = program_bytes(gguf) + (held_twice(gguf) if copied else 0)
    return Need(settings.ctx_size or 0, said.weights, cache, compute, program)


@dataclass(frozen=True)
class LaidOut:
    """What the engine says of a model that it has laid out without allocating: its log and the bytes of its weights."""

    lines: Sequence[str]
    weights: int


def laid_out(path: Path, settings: EngineSettings, *, swa_full: bool = True) -> LaidOut:
    """Have the engine lay out a model with a context for `settings`. Raises EngineError if it cannot."""
    from llamacli.runtime import bindings
    from llamacli.runtime.engine_context import CACHE_TYPES, FLASH_ATTENTION, ROWS, prompt_step
    from llamacli.runtime.placement import place_weights

    lib, s = bindings.load(), settings
    model_params = model_parameters()
    place_weights(model_params, s)
    model_params.no_alloc, model_params.load_mode = True, 0  # LLAMA_LOAD_MODE_NONE: a map would count the file
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = s.ctx_size, s.batch, prompt_step(s.batch, s.ubatch, s.gpu_layers)
    params.n_outputs_max = ROWS
    params.type_k, params.type_v = CACHE_TYPES[s.cache_type_k], CACHE_TYPES[s.cache_type_v]
    params.flash_attn_type, params.swa_full = FLASH_ATTENTION[s.flash_attn], swa_full
    lines: list[str] = []
    with bindings.listening(lines.append):
        model = lib.llama_model_load_from_file(os.fsencode(path), model_params)
        made = lib.llama_init_from_model(model, params) if model else None
        weights = int(lib.llama_model_size(model)) if model else 0
        if made:
            lib.llama_free(made)
        if model:
            lib.llama_model_free(model)
    if not made:
        raise EngineError(f"the engine cannot lay out {path.name}", bindings.failure_hint())
    return LaidOut(lines, weights)


def logged_sizes(lines: Sequence[str]) -> tuple[int, int]:
    """(cache, compute) bytes in the engine's log of making a context without allocating.

    A cache says `size = 512.00 MiB`, one line for each kind; a compute or output buffer names its device, and what a
    device says last counts.
    """
    cache, buffers = 0.0, {}
    for line in lines:
        if match := re.match(r"llama_(?:kv_cache|memory)\w*: size = +([\d.]+) MiB", line):
            cache += float(match[1])
        elif match := re.search(r"(\S+) +(compute|output) buffer size = +([\d.]+) MiB", line):
            buffers[match[1], match[2]] = float(match[3])
    return round(cache * _MIB), round(sum(buffers.values()) * _MIB)


def largest_context(small: Need, large: Need, available: int) -> int:
    """The most tokens that fit `available` bytes, the need growing as it does between `small` and `large`; maybe 0."""
    growth = (large.total - small.total) / max(1, large.context - small.context)
    usable = available * (1 - MARGIN)
    if growth <= 0:
        return large.context if large.total <= usable else 0
    tokens = small.context + (usable - small.total) / growth
    return max(0, int(tokens) // STEP * STEP)


def fits(need: Need, available: int) -> bool:
    """Whether `need` leaves a margin of the `available` bytes."""
    return need.total <= available * (1 - MARGIN)


def rounded(context: int) -> int:
    """A context size as the engine makes it."""
    return -(-context // STEP) * STEP


def held_twice(gguf: GGUF) -> int:
    """Bytes that stay mapped beside the engine's own layout of weights: between them, and of the token embeddings.

    Embeddings that are the output's weights too are read by rows, and as a matrix in another layout.
    """
    between = min(PIECE * int(gguf.get("{arch}.block_count", 0)), gguf.size_bytes)
    tensors = {tensor.name: tensor for tensor in gguf.tensors}
    embeddings = tensors.get("token_embd.weight")
    if embeddings is None or "output.weight" in tensors or embeddings.type.name not in COPIED:
        return between
    return between + embeddings.size_bytes


def program_bytes(gguf: GGUF) -> int:
    """The program and the vocabulary: the engine keeps texts twice, and a table of merges where there are some.

    A recurrent state is kept once more, to go back to when a conversation is taken up from an earlier place.
    """
    merges = gguf.metadata.get("tokenizer.ggml.merges")
    words = EACH_TOKEN * vocabulary_size(gguf) + EACH_MERGE * (len(merges.value) if merges else 0)
    return PROGRAM + words + constant_bytes(gguf)


def _compute(gguf: GGUF, context: int, ubatch: int, outputs: int) -> int:
    """Activations of one micro-batch: its widest layer, its embeddings twice, its attention mask; and the logits."""
    width = _width(gguf)
    wide = gguf.get("{arch}.feed_forward_length", 0)
    feed = max(wide, default=0) if isinstance(wide, tuple) else int(wide)
    rows = min(ubatch, context)
    logits = 4 * outputs * vocabulary_size(gguf)
    return max(rows * 8 * feed, logits) + rows * (8 * width + 2 * context) + 4 * vocabulary_size(gguf)


def _width(gguf: GGUF) -> int:
    return int(gguf.get("{arch}.embedding_length", 0))


def vocabulary_size(gguf: GGUF) -> int:
    """Rows of the token embeddings, or the length of the list of tokens."""
    for tensor in gguf.tensors:
        if tensor.name == "token_embd.weight":
            return tensor.shape[-1]
    tokens = gguf.metadata.get("tokenizer.ggml.tokens")
    return len(tokens.value) if tokens else 0
