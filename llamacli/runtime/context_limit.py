"""How long a context may be: what the model was trained for, and what memory allows."""

from __future__ import annotations

from llamacli.formats.gguf_reader import GGUF
from llamacli.formats.tensor_types import BY_NAME
from llamacli.runtime.attention import score_bytes
from llamacli.runtime.cache_size import CELL_STEP, constant_bytes, token_bytes
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.memory import memory

RESERVE = 512 << 20
"""Bytes left for computing and for everybody else."""

SMALLEST = 512
"""Tokens that are always tried: the estimate may be wrong, and the engine says so itself if it was right."""

UNTRAINED = 4096
"""Context of a file that does not say what it was trained for."""


def kv_bytes_per_token(gguf: GGUF, settings: EngineSettings) -> int:
    """Bytes of KV cache that one token takes, over all layers that have one."""
    return token_bytes(gguf, BY_NAME[settings.cache_type_k.upper()], BY_NAME[settings.cache_type_v.upper()])


def context_limit(gguf: GGUF, settings: EngineSettings) -> int:
    """Tokens that the model was trained for, or as many as memory allows if that is less."""
    trained = int(_number(gguf.get("{arch}.context_length"), UNTRAINED)) or UNTRAINED
    free = memory().available
    if not free:
        return trained
    each = max(kv_bytes_per_token(gguf, settings), 1)
    each += score_bytes(gguf) if settings.flash_attn == "off" else 0
    fits = (free - gguf.size_bytes - constant_bytes(gguf) - RESERVE) // each // CELL_STEP * CELL_STEP
    return min(trained, max(fits, SMALLEST))


def _number(value: object, default: float) -> float:
    if isinstance(value, tuple):
        value = max((v for v in value if isinstance(v, (int, float))), default=default)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default
