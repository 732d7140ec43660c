"""How long a context may be: what the model was trained for, and what memory allows."""

from __future__ import annotations

from llamacli.formats.gguf_reader import GGUF
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.memory import memory

BYTES_PER_VALUE = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32,
    "q4_0": 18 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip
"""Bytes that one key or value takes in the cache, by its type."""

RESERVE = 512 << 20
"""Bytes left for computing and for everybody else."""

SMALLEST = 512
"""Tokens that are always tried: the estimate may be wrong, and the engine says so itself if it was right."""

UNTRAINED = 4096
"""Context of a file that does not say what it was trained for."""


def kv_bytes_per_token(gguf: GGUF, settings: EngineSettings) -> float:
    """Bytes of KV cache that one token takes, over all layers. An upper bound: layers without a cache count too."""
    layers = _number(gguf.get("{arch}.block_count"), 1)
    heads = gguf.get("{arch}.attention.head_count", 1)
    kv_heads = gguf.get("{arch}.attention.head_count_kv", heads)
    embedding = _number(gguf.get("{arch}.embedding_length"), 1)
    head = embedding / max(1, _number(heads, 1))
    key = _number(gguf.get("{arch}.attention.key_length"), head)
    value = _number(gguf.get("{arch}.attention.value_length"), head)
    total_heads = sum(kv_heads) if isinstance(kv_heads, tuple) else layers * _number(kv_heads, 1)
    return total_heads * (key * BYTES_PER_VALUE[settings.cache_type_k] + value * BYTES_PER_VALUE[settings.cache_type_v])


def context_limit(gguf: GGUF, settings: EngineSettings) -> int:
    """Tokens that the model was trained for, or as many as memory allows if that is less."""
    trained = int(_number(gguf.get("{arch}.context_length"), UNTRAINED)) or UNTRAINED
    free = memory().available
    if not free:
        return trained
    each = max(kv_bytes_per_token(gguf, settings), 1.0)
    fits = int((free - gguf.size_bytes - RESERVE) / each) // 256 * 256
    return min(trained, max(fits, SMALLEST))


def _number(value: object, default: float) -> float:
    if isinstance(value, tuple):
        value = max((v for v in value if isinstance(v, (int, float))), default=default)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default
