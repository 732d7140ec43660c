"""MiMo V2 Flash: blocks with a window have other heads and sinks, values are scaled, a third of each head is rotated."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import (
    DECODER_KEYS,
    EMBEDDING,
    OUTPUT,
    OUTPUT_NORM,
    count,
    partial_rope,
    real,
)
from llamacli.families.moe import EXPERT_FF, EXPERT_RULES, expert_tensors, moe_width
from llamacli.formats.gguf_values import Value, ValueType, array, u32


def _local(config: Config) -> list[int]:
    """1 for a block with a window."""
    if (pattern := config.get("hybrid_layer_pattern")) is not None:
        return [int(kind) for kind in pattern]
    return [int(kind == "sliding_attention") for kind in config.get("layer_types", default=[])]


def _kv_heads(config: Config) -> Value:
    near = int(config.get("swa_num_key_value_heads", default=config.kv_heads))
    return array(ValueType.INT32, [near if local else config.kv_heads for local in _local(config)])


def _window(config: Config) -> Value:
    """`sliding_window_size` does not count the token itself, the engine's window does."""
    size = config.get("sliding_window_size")
    return u32(config.integer("sliding_window") if size is None else int(size) + 1)


def _refusals(config: Config) -> Iterable[str]:
    if len(_local(config)) != config.blocks or not 0 < sum(_local(config)) < config.blocks:
        yield "config.json: the engine's graph has blocks with a window and without; this does not say which, or has one kind"
    for name in ("head_dim", "v_head_dim", "num_attention_heads"):
        if config.get(f"swa_{name}", default=config.get(name)) != config.get(name):
            yield f"config.json: swa_{name} {config.get(f'swa_{name}')} differs from {name}, which the engine does not compute"
    near = config.rope.get("sliding_attention", {}).get("partial_rotary_factor")
    if near not in (None, config.full_rope.get("partial_rotary_factor")):
        yield "config.json: partial_rotary_factor differs between blocks with a window and without, one number to the engine"


def _routed(config: Config, block: int) -> bool:
    kinds = config.get("moe_layer_freq", "mlp_layer_types")
    return kinds is None or kinds[block] in (1, "sparse")


MIMO2 = Family(
    name="mimo2",
    title="MiMo V2 Flash",
    architectures=("MiMoV2FlashForCausalLM",),
    keys=(
        *DECODER_KEYS, EXPERT_FF,
        Key("attention.head_count_kv", _kv_heads),
        Key("attention.sliding_window", _window),
        Key("attention.sliding_window_pattern", lambda c: array(ValueType.INT32, _local(c))),
        Key("attention.value_length", count("v_head_dim")),
        partial_rope(0.334),
        Key("attention.layer_norm_rms_epsilon", real("layernorm_epsilon", "rms_norm_eps")),
        Key("attention.value_scale", real("attention_value_scale")),
    ),
    rules=(
        Rule(r"model\.mtp\..*", drop=True),
        Rule(r"(.*\.attention_sink(_bias)?)", rename=r"\1.weight"),
        *EXPERT_RULES,
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *expert_tensors(moe_width, _routed),
        Expected("blk.{block}.attn_q.weight", lambda c: (c.heads * c.head_dim, c.hidden)),
    ),
    defaults={
        "rope_theta": 5e6, "rms_norm_eps": 1e-5, "max_position_embeddings": 262144, "head_dim": 192, "v_head_dim": 128,
        "sliding_window": 128, "scoring_func": "sigmoid", "partial_rotary_factor": 0.334,
    },
    refusals=_refusals,
    fixed={"norm_topk_prob": True, "routed_scaling_factor": 1.0, "attention_bias": False},
    example="XiaomiMiMo/MiMo-V2-Flash",
)  # fmt: skip
