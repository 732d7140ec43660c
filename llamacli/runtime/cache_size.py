"""Bytes of what a model remembers of its context, from its metadata.

Per token and layer the cache holds one key and one value for each KV head. Exceptions: recurrent layers hold a state
instead that does not grow, latent attention (DeepSeek's MLA) holds a compressed key only, and layers with a sliding
window need not hold more than the window.
"""

from __future__ import annotations

from llamacli.formats.gguf_reader import GGUF
from llamacli.formats.tensor_types import F16, TensorType
from llamacli.runtime.recurrent_size import at, keeps_no_tokens, recurrent_bytes

FULL_LAYER_EVERY: dict[str, int] = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2, "exaone4": 4, "exaone-moe": 4, "olmo2": 4,
    "afmoe": 4, "plamo3": 8, "smallthinker": 4, "cohere2moe": 4,
}  # fmt: skip
"""Architectures with a sliding window whose pattern need not be in the metadata: one layer in so many sees all."""

ENCODERS = frozenset({
    "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert", "modern-bert",
    "gemma-embedding", "dream", "llada", "llada-moe", "rnd1",
})  # fmt: skip
"""Architectures that read a text as a whole and remember none of it."""

INDEXED = frozenset({"glm-dsa", "deepseek32"})
"""Architectures whose sparse attention keeps one more key for each token, to look up the others by."""

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
    total = constant_bytes(gguf)
    for layer in range(_layers(gguf)):
        cells = near if not swa_full and window and _slides(gguf, layer) else context
        key, value = token_width(gguf, layer)
        total += cells * (_row(type_k, key) + _row(type_v, value))
    return total


def token_width(gguf: GGUF, layer: int) -> tuple[int, int]:
    """(numbers in the key, numbers in the value) that `layer` keeps for each token."""
    heads = at(gguf.get("{arch}.attention.head_count_kv", gguf.get("{arch}.attention.head_count", 0)), layer)
    if not heads or keeps_no_tokens(gguf, layer):
        return 0, 0
    query_heads = at(gguf.get("{arch}.attention.head_count", 0), layer) or 1
    head = int(gguf.get("{arch}.embedding_length", 0)) // query_heads
    key = _length(gguf, "key_length", layer, head)
    value = _length(gguf, "value_length", layer, head)
    if gguf.get("{arch}.attention.kv_lora_rank") and gguf.get("{arch}.attention.key_length_mla"):
        value = 0  # latent attention: the value is part of the key
    indexed = _length(gguf, "indexer.key_length", layer, 0) if gguf.architecture in INDEXED else 0
    return heads * key + indexed, heads * value


def _length(gguf: GGUF, name: str, layer: int, default: int) -> int:
    """The width of a head; layers with a sliding window may have one of their own."""
    near = gguf.get(f"{{arch}}.attention.{name}_swa")
    if near is not None and _slides(gguf, layer):
        return int(near)
    return int(gguf.get(f"{{arch}}.attention.{name}", default))


def _layers(gguf: GGUF) -> int:
    """Layers with a cache of their own: not those that only predict further tokens, nor those that share another's."""
    if gguf.architecture in ENCODERS:
        return 0
    extra = int(gguf.get("{arch}.nextn_predict_layers", 0) or 0)
    shared = int(gguf.get("{arch}.attention.shared_kv_layers", 0) or 0)
    return max(0, int(gguf.get("{arch}.block_count", 0)) - extra - shared)


def token_bytes(gguf: GGUF, type_k: TensorType = F16, type_v: TensorType = F16) -> int:
    """Bytes by which the cache grows with each token of context."""
    widths = (token_width(gguf, layer) for layer in range(_layers(gguf)))
    return sum(_row(type_k, key) + _row(type_v, value) for key, value in widths)


def constant_bytes(gguf: GGUF) -> int:
    """Bytes that do not grow with the context."""
    return recurrent_bytes(gguf, _layers(gguf))


def _slides(gguf: GGUF, layer: int) -> bool:
    pattern = gguf.get("{arch}.attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        return layer < len(pattern) and bool(pattern[layer])
    every = int(pattern or FULL_LAYER_EVERY.get(gguf.architecture, 0))
    return every > 0 and layer % every < every - 1


def _row(kind: TensorType, count: int) -> int:
    return -(-count // kind.block_size) * kind.block_bytes
