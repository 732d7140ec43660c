"""MPT: ALiBi in place of positions, queries, keys and values in one matrix, no biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llamacli.families.base import Expected, Family, Key
from llamacli.families.config import Config
from llamacli.families.decoder import EMBEDDING, OUTPUT_NORM, count, real
from llamacli.formats.gguf_values import Value, f32, u32


def _attention(name: str, default: Any = None) -> Callable[[Config], Any]:
    """What `attn_config` says."""
    return lambda config: (config.get("attn_config", default={}) or {}).get(name, default)


def _alibi(config: Config) -> Value:
    return f32(_attention("alibi_bias_max", 8)(config) if _attention("alibi", True)(config) else 0.0)


def _clamp(config: Config) -> Value | None:
    limit = _attention("clip_qkv")(config)
    return None if limit is None else f32(limit)


def _kv_heads(config: Config) -> Value | None:
    heads = _attention("kv_n_heads")(config)
    return None if heads is None else u32(heads)


def _ff(config: Config) -> int:
    return int(config.get("expansion_ratio", default=4)) * config.hidden


MPT = Family(
    name="mpt",
    title="MPT",
    architectures=("MPTForCausalLM", "MptForCausalLM"),
    keys=(
        Key("context_length", count("max_seq_len")),
        Key("embedding_length", count("d_model")),
        Key("block_count", lambda c: u32(c.blocks)),
        Key("feed_forward_length", lambda c: u32(_ff(c))),
        Key("attention.head_count", count("n_heads")),
        Key("attention.head_count_kv", _kv_heads),
        Key("attention.layer_norm_epsilon", real("layer_norm_epsilon")),
        Key("attention.clamp_kqv", _clamp),
        Key("attention.max_alibi_bias", _alibi),
    ),
    expected=(
        EMBEDDING, OUTPUT_NORM,
        Expected("blk.{block}.attn_qkv.weight", lambda c: (-1, c.hidden)),
        Expected("blk.{block}.attn_output.weight", lambda c: (c.hidden, c.hidden)),
        Expected("blk.{block}.ffn_up.weight", lambda c: (_ff(c), c.hidden)),
        Expected("blk.{block}.ffn_down.weight", lambda c: (c.hidden, _ff(c))),
    ),
    defaults={"tie_word_embeddings": True, "max_seq_len": 2048, "expansion_ratio": 4, "layer_norm_epsilon": 1e-5},
    example="mosaicml/mpt-7b-chat",
)  # fmt: skip
