"""DBRX: layer norms without biases, sixteen experts stored row below row, clipped queries, keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import EMBEDDING, OUTPUT, OUTPUT_NORM, always, count
from llamacli.families.rope import SCALING_KEYS
from llamacli.families.transforms import chain, transpose
from llamacli.formats.gguf_values import Value, f32, u32
from llamacli.formats.rows import Reshaped, Rows


def _of(part: str, name: str) -> Callable[[Config], Any]:
    """What a nested table of the configuration says."""
    return lambda config: (config.get(part, default={}) or {}).get(name)


_EXPERTS = _of("ffn_config", "moe_num_experts")
_WIDTH = _of("ffn_config", "ffn_hidden_size")


def _number(value: Callable[[Config], Any]) -> Callable[[Config], Value]:
    return lambda config: u32(int(value(config)))


def _stack(rows: Rows, config: Config) -> Rows:
    return Reshaped(rows, (_EXPERTS(config), _WIDTH(config), config.hidden))


DBRX = Family(
    name="dbrx",
    title="DBRX",
    architectures=("DbrxForCausalLM",),
    keys=(
        Key("block_count", lambda c: u32(c.blocks)),
        Key("context_length", count("max_seq_len")),
        Key("embedding_length", count("d_model")),
        Key("feed_forward_length", _number(_WIDTH)),
        Key("attention.head_count", count("n_heads")),
        Key("attention.head_count_kv", _number(_of("attn_config", "kv_n_heads"))),
        Key("rope.freq_base", lambda c: f32(c.full_rope.get("rope_theta") or _of("attn_config", "rope_theta")(c))),
        *SCALING_KEYS,
        Key("attention.clamp_kqv", lambda c: f32(_of("attn_config", "clip_qkv")(c))),
        Key("expert_count", _number(_EXPERTS)),
        Key("expert_used_count", _number(_of("ffn_config", "moe_top_k"))),
        Key("attention.layer_norm_epsilon", always(f32(1e-5))),
    ),
    rules=(
        Rule(r"(.*\.experts\.mlp\.[wv]1)", _stack, rename=r"\1.weight"),
        Rule(r"(.*\.experts\.mlp\.w2)", chain(_stack, transpose), rename=r"\1.weight"),
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM,
        Expected("blk.{block}.attn_qkv.weight", lambda c: (-1, c.hidden)),
        Expected("blk.{block}.ffn_gate_exps.weight", lambda c: (_EXPERTS(c), _WIDTH(c), c.hidden)),
    ),
    example="databricks/dbrx-instruct",
)  # fmt: skip
