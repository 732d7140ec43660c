"""GLM-4 as transformers has it (GlmForCausalLM), and the GLM-4.5 and 4.6 mixtures."""

from __future__ import annotations

from llamacli.families.base import Expected, Family, Key, Rule, with_further_blocks
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    FUSED_GATE_UP,
    GATED_FFN,
    HEAD_WIDTHS,
    OUTPUT,
    OUTPUT_NORM,
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
from llamacli.families.rope import partial_factor
from llamacli.formats.gguf_values import Value, u32

GLM = Family(
    name="chatglm",
    title="GLM-4 9B, GLM-Edge",
    architectures=("GlmForCausalLM",),
    keys=(*DECODER_KEYS, *HEAD_WIDTHS, partial_rope(0.5)),
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, GATED_FFN[0], *FUSED_GATE_UP),
    defaults={
        "rope_theta": 10000.0, "rms_norm_eps": 1.5625e-7, "max_position_embeddings": 131072, "head_dim": 128,
        "partial_rotary_factor": 0.5,
    },
    example="zai-org/glm-4-9b-chat-hf",
)  # fmt: skip


def _further(config: Config) -> Value | None:
    return (
        u32(with_further_blocks(config) - config.blocks) if config.get("num_nextn_predict_layers") is not None else None
    )


GLM4_MOE = Family(
    name="glm4moe",
    title="GLM-4.5, 4.6, 4.7, GLM-4.5V",
    architectures=("Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration"),
    keys=(
        *DECODER_KEYS, *HEAD_WIDTHS,
        Key("block_count", lambda c: u32(with_further_blocks(c))),
        partial_rope(0.5),
        EXPERT_FF, SHARED_COUNT,
        Key("leading_dense_block_count", count("first_k_dense_replace")),
        Key("expert_gating_func", always(u32(2))),
        WEIGHTS_SCALE, WEIGHTS_NORM,
        Key("nextn_predict_layers", _further),
    ),
    rules=(
        *EXPERT_RULES,
        Rule(r"model\.layers\.(\d+)\.(eh_proj|enorm|hnorm|embed_tokens)\.weight", rename=r"blk.\1.nextn.\2.weight"),
        Rule(r"model\.layers\.(\d+)\.shared_head\.(head|norm)\.weight", rename=r"blk.\1.nextn.shared_head_\2.weight"),
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *expert_tensors(moe_width, behind_dense),
        Expected("blk.{block}.ffn_gate.weight", lambda c: (c.integer("intermediate_size"), c.hidden),
                 lambda c, block: not behind_dense(c, block)),
    ),
    defaults={
        "rope_theta": 1e6, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "head_dim": 128,
        "partial_rotary_factor": 0.5,
    },
    blocks=with_further_blocks,
    example="zai-org/GLM-4.5-Air",
)  # fmt: skip

SOLAR_OPEN = GLM4_MOE.override(
    title="Solar Open",
    architectures=("SolarOpenForCausalLM",),
    keys=(*GLM4_MOE.keys, Key("rope.dimension_count", lambda c: u32(int(c.head_dim * partial_factor(c))))),
    defaults={**GLM4_MOE.defaults, "partial_rotary_factor": 1.0, "first_k_dense_replace": 0},
    example="upstage/Solar-Open-100B",
)
