"""Where flash attention does not pay: on x86 processors, where the engine computes it much more slowly than plain attention.

Plain attention keeps the scores of a step of the prompt for every head, so it is taken only where these are no larger than
the cache. Figures are in docs/running.md.
"""

from __future__ import annotations

import platform

from llamacli.formats.gguf_reader import GGUF
from llamacli.formats.tensor_types import F16
from llamacli.runtime.cache_size import token_bytes
from llamacli.runtime.engine import PROMPT_STEP, EngineSettings

SLOW = ("x86_64", "amd64", "x86", "i386", "i686")
"""Processors, as Python names them, that turn every number of the cache into another type before they compute with it."""

UNTOUCHED = ("f32", "f16", "bf16")
"""Types of values that plain attention can read."""


def attention(gguf: GGUF, settings: EngineSettings, *, gpu: bool) -> str:
    """`settings.flash_attn`, `off` instead of `auto` where that is known to be faster."""
    plain = (
        settings.flash_attn == "auto"
        and not gpu
        and platform.machine().lower() in SLOW
        and settings.cache_type_v in UNTOUCHED
        and 0 < score_bytes(gguf) <= token_bytes(gguf, F16, F16)
    )
    return "off" if plain else settings.flash_attn


def score_bytes(gguf: GGUF) -> int:
    """Bytes of scores for each token of the context while a step of a prompt is read, and of the mask over them."""
    heads = gguf.get("{arch}.attention.head_count", 0)
    most = max((n for n in heads if isinstance(n, int)), default=0) if isinstance(heads, tuple) else int(heads or 0)
    return 4 * PROMPT_STEP * (most + 1) if most else 0
