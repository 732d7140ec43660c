"""Qwen 3 mixtures of experts."""

from __future__ import annotations

from llamacli.families.base import Family
from llamacli.families.decoder import ATTENTION, DECODER_KEYS, EMBEDDING, HEAD_WIDTHS, OUTPUT, OUTPUT_NORM, QK_NORM
from llamacli.families.moe import EXPERT_FF, EXPERT_RULES, expert_tensors, moe_width

QWEN3_MOE = Family(
    name="qwen3moe",
    title="Qwen 3 MoE",
    architectures=("Qwen3MoeForCausalLM",),
    keys=(*DECODER_KEYS, *HEAD_WIDTHS, EXPERT_FF),
    rules=EXPERT_RULES,
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *QK_NORM, *expert_tensors(moe_width)),
    defaults={"head_dim": 128, "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768},
    fixed={"norm_topk_prob": True},
    example="Qwen/Qwen3-30B-A3B",
)
