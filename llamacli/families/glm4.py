"""GLM-4 9B and 32B (0414): norms before and after, half of each head rotated, gate and up fused."""

from __future__ import annotations

from llamacli.families.base import Family
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    FUSED_GATE_UP,
    GATED_FFN,
    HEAD_WIDTHS,
    OUTPUT,
    OUTPUT_NORM,
    POST_NORMS,
    partial_rope,
)  # fmt: skip

GLM4 = Family(
    name="glm4",
    title="GLM-4 0414",
    architectures=("Glm4ForCausalLM",),
    keys=(*DECODER_KEYS, *HEAD_WIDTHS, partial_rope(0.5)),
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, GATED_FFN[0], *FUSED_GATE_UP, *POST_NORMS),
    defaults={
        "rope_theta": 10000.0, "rms_norm_eps": 1.5625e-7, "max_position_embeddings": 131072, "head_dim": 128,
        "partial_rotary_factor": 0.5,
    },
    example="zai-org/GLM-4-9B-0414",
)  # fmt: skip
