"""How many sequences at a time there is room for, where their keys and values will lie: in main memory or on GPUs."""

from __future__ import annotations

from llamacli.runtime.context_limit import RESERVE, kv_bytes_per_token
from llamacli.runtime.llama import LlamaEngine
from llamacli.runtime.memory import memory
from llamacli.runtime.placement import room_on_gpus


def sequences_that_fit(engine: LlamaEngine, wanted: int, cells: int) -> int:
    """How many of the `wanted` sequences of `cells` tokens fit into what is free now; at least one."""
    each = max(1, kv_bytes_per_token(engine.gguf, engine.settings)) * cells
    share = engine.placement.cache_share if engine.placement else 0.0
    fits = wanted
    if share < 1 and (free := memory().available):
        fits = min(fits, int((free - RESERVE) / (each * (1 - share))))
    if share > 0:
        fits = min(fits, int(sum(room_on_gpus(engine.settings.devices)) / (each * share)))
    return max(1, fits)
