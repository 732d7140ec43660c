"""Ling 2.0 and Ring 2.0 (BailingMoeV2): fused attention with norms per head, experts in groups chosen by sigmoid."""

from __future__ import annotations

from llamacli.families.base import Expected, Family, Key, Rule, with_further_blocks
from llamacli.families.config import Config
from llamacli.families.decoder import (
    DECODER_KEYS,
    EMBEDDING,
    OUTPUT,
    OUTPUT_NORM,
    QK_NORM,
    VOCAB_SIZE,
    always,
    count,
    partial_rope,
)
from llamacli.families.moe import (
    EXPERT_FF,
    EXPERT_RULES,
    SHARED_COUNT,
    WEIGHTS_NORM,
    WEIGHTS_SCALE,
    behind_dense,
    expert_tensors,
    moe_width,
)
from llamacli.formats.gguf_values import Value, u32


def _shared_width(config: Config) -> Value:
    width = config.get("moe_shared_expert_intermediate_size")
    return u32(width if width is not None else moe_width(config) * config.integer("num_shared_experts"))


BAILING_MOE2 = Family(
    name="bailingmoe2",
    title="Ling 2.0, Ring 2.0",
    architectures=("BailingMoeV2ForCausalLM",),
    keys=(
        *DECODER_KEYS, partial_rope(0.5), VOCAB_SIZE, EXPERT_FF, SHARED_COUNT, WEIGHTS_SCALE, WEIGHTS_NORM,
        Key("leading_dense_block_count", count("first_k_dense_replace")),
        Key("expert_shared_feed_forward_length", _shared_width),
        Key("expert_gating_func", always(u32(2))),
        Key("nextn_predict_layers", lambda c: u32(with_further_blocks(c) - c.blocks)
            if c.get("num_nextn_predict_layers") is not None else None),
        Key("block_count", lambda c: u32(with_further_blocks(c))),
    ),
    rules=(*EXPERT_RULES, Rule(r"(.*\.expert_bias)", rename=r"\1.bias")),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *QK_NORM, *expert_tensors(moe_width, behind_dense),
        Expected("blk.{block}.attn_qkv.weight", lambda c: ((c.heads + 2 * c.kv_heads) * c.head_dim, c.hidden)),
    ),
    blocks=with_further_blocks,
    defaults={
        "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 16384, "num_shared_experts": 1,
        "norm_topk_prob": True, "routed_scaling_factor": 2.5, "n_group": 8, "topk_group": 4, "partial_rotary_factor": 0.5,
    },
    example="inclusionAI/Ling-mini-2.0",
)  # fmt: skip
