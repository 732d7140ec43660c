"""Bytes of state that recurrent layers keep, however long the text: Mamba, short convolutions, gated delta rules.

Such a layer remembers its last few inputs (`rows`) and a state (`cells`), as 32-bit floats, for each sequence. The
formulas are the engine's; the tests compare them with what it lays out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llamacli.formats.gguf_reader import GGUF

RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
"""Architectures without attention."""

EVERY_FOURTH = frozenset({"qwen3next", "qwen35", "qwen35moe"})
"""One layer in `full_attention_interval` has attention, whatever the number of KV heads says."""

WITHOUT_HEADS = frozenset({
    "jamba", "granitehybrid", "lfm2", "lfm2moe", "plamo2", "nemotron_h", "nemotron_h_moe", "kimi-linear",
})  # fmt: skip
"""Layers without KV heads are recurrent."""

BOTH = frozenset({"falcon-h1"})
"""Every layer has attention and a state."""


def recurrent_bytes(gguf: GGUF, layers: int) -> int:
    """Bytes of the states of the first `layers` layers, for one sequence."""
    count = sum(map(is_recurrent(gguf), range(layers)))
    return 4 * count * (_rows(gguf) + _cells(gguf)) if count else 0


def is_recurrent(gguf: GGUF) -> Callable[[int], bool]:
    """Whether a layer keeps a state, by its number."""
    arch = gguf.architecture
    if arch in RECURRENT or arch in BOTH:
        return lambda layer: True
    if arch in EVERY_FOURTH:
        marked = gguf.get("{arch}.attention.recurrent_layers")
        if isinstance(marked, tuple):
            return lambda layer: layer < len(marked) and bool(marked[layer])
        every = _number(gguf, "full_attention_interval") or 4
        return lambda layer: (layer + 1) % every != 0
    if arch in WITHOUT_HEADS:
        heads, feed = gguf.get("{arch}.attention.head_count_kv", 0), gguf.get("{arch}.feed_forward_length", 0)
        plain = arch.startswith("nemotron")  # whose layers have a feed-forward network or something else, never both
        return lambda layer: not at(heads, layer) and not (plain and at(feed, layer))
    return lambda layer: False


def keeps_no_tokens(gguf: GGUF, layer: int) -> bool:
    """Whether `layer` has no KV cache because it is recurrent."""
    return gguf.architecture not in BOTH and is_recurrent(gguf)(layer)


def at(value: Any, layer: int) -> int:
    """One number for all layers, or one for each."""
    if isinstance(value, tuple):
        return int(value[layer]) if layer < len(value) else 0
    return int(value)


def _rows(gguf: GGUF) -> int:
    width = _number(gguf, "embedding_length")
    if _number(gguf, "wkv.head_size"):
        return (_number(gguf, "token_shift_count") or 2) * width
    if reach := _number(gguf, "shortconv.l_cache"):
        return width * (reach - 1)
    before = max(_number(gguf, "ssm.conv_kernel") - 1, 0)
    if delta := _number(gguf, "kda.head_dim"):
        return 3 * (before or 3) * _heads(gguf) * delta
    groups = _number(gguf, "ssm.group_count") * _number(gguf, "ssm.state_size")
    return before * (_number(gguf, "ssm.inner_size") + 2 * groups)


def _cells(gguf: GGUF) -> int:
    if size := _number(gguf, "wkv.head_size"):
        return _number(gguf, "embedding_length") * size
    if delta := _number(gguf, "kda.head_dim"):
        return delta * delta * _heads(gguf)
    return _number(gguf, "ssm.state_size") * _number(gguf, "ssm.inner_size")


def _heads(gguf: GGUF) -> int:
    return at(gguf.get("{arch}.attention.head_count", 0), 0)


def _number(gguf: GGUF, name: str) -> int:
    value = gguf.get("{arch}." + name, 0)
    return int(value) if isinstance(value, (int, float)) else 0
