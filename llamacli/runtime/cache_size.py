"""Bytes of a model's KV cache, from its metadata.

Per token and layer the cache holds one key and one value for each KV head. Exceptions: layers without KV heads
(recurrent ones) hold none, latent attention (DeepSeek's MLA) holds a compressed key only, and layers with a sliding
window need not hold more than the window.
"""

from __future__ import annotations

from typing import Any

from llamacli.formats.gguf_reader import GGUF
from llamacli.formats.tensor_types import F16, TensorType

FULL_LAYER_EVERY: dict[str, int] = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2, "exaone4": 4, "exaone-moe": 4, "olmo2": 4,
    "afmoe": 4, "plamo3": 8, "smallthinker": 4, "cohere2moe": 4,
}  # fmt: skip
"""Architectures with a sliding window whose pattern need not be in the metadata: one layer in so many sees all."""

CELL_STEP = 256


def cache_bytes(
    gguf: GGUF,
    context: int,
    type_k: TensorType = F16,
    type_v: TensorType = F16,
    ubatch: int = 512,
    swa_full: bool = True,
) -> int:
    """Bytes of the cache for one sequence of `context` tokens.

    With `swa_full` layers with a sliding window hold the whole context too, as the engine does when it must be able to
    go back in the conversation.
    """
    window = int(gguf.get("{arch}.attention.sliding_window", 0) or 0)
    near = min(context, -(-(window + ubatch) // CELL_STEP) * CELL_STEP) if window else context
    total = 0
    for layer in range(_layers(gguf)):
        cells = near if not swa_full and window and _slides(gguf, layer) else context
        key, value = token_width(gguf, layer)
        total += cells * (_row(type_k, key) + _row(type_v, value))
    return total


def token_width(gguf: GGUF, layer: int) -> tuple[int, int]:
    """(numbers in the key, numbers in the value) that `layer` keeps for each token."""
    heads = _at(gguf.get("{arch}.attention.head_count_kv", gguf.get("{arch}.attention.head_count", 0)), layer)
    if not heads:
        return 0, 0
    query_heads = _at(gguf.get("{arch}.attention.head_count", 0), layer) or 1
    head = int(gguf.get("{arch}.embedding_length", 0)) // query_heads
    key = int(gguf.get("{arch}.attention.key_length", head))
    value = int(gguf.get("{arch}.attention.value_length", head))
    if gguf.get("{arch}.attention.kv_lora_rank") and gguf.get("{arch}.attention.key_length_mla"):
        value = 0  # latent attention: the value is part of the key
    return heads * key, heads * value


def _layers(gguf: GGUF) -> int:
    """Layers with a cache of their own: not those that only predict further tokens, nor those that share another's."""
    extra = int(gguf.get("{arch}.nextn_predict_layers", 0) or 0)
    shared = int(gguf.get("{arch}.attention.shared_kv_layers", 0) or 0)
    return max(0, int(gguf.get("{arch}.block_count", 0)) - extra - shared)


def _slides(gguf: GGUF, layer: int) -> bool:
    pattern = gguf.get("{arch}.attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        return layer < len(pattern) and bool(pattern[layer])
    every = int(pattern or FULL_LAYER_EVERY.get(gguf.architecture, 0))
    return every > 0 and layer % every < every - 1


def _at(value: Any, layer: int) -> int:
    """One number for all layers, or one for each."""
    if isinstance(value, tuple):
        return int(value[layer]) if layer < len(value) else 0
    return int(value)


def _row(kind: TensorType, count: int) -> int:
    return -(-count // kind.block_size) * kind.block_bytes
