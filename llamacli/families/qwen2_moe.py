"""Qwen 1.5 and 2 mixtures: routed experts beside one shared expert behind a gate."""

from __future__ import annotations

from llamacli.families.base import Expected, Family
from llamacli.families.decoder import ATTENTION, DECODER_KEYS, EMBEDDING, OUTPUT, OUTPUT_NORM, QKV_BIAS
from llamacli.families.moe import EXPERT_FF, EXPERT_RULES, SHARED_FF, expert_tensors, moe_width

QWEN2_MOE = Family(
    name="qwen2moe",
    title="Qwen 1.5 and 2 MoE",
    architectures=("Qwen2MoeForCausalLM",),
    keys=(*DECODER_KEYS, EXPERT_FF, SHARED_FF),
    rules=EXPERT_RULES,
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *QKV_BIAS, *expert_tensors(moe_width),
        Expected("blk.{block}.ffn_gate_inp_shexp.weight", lambda c: (-1, c.hidden)),
        Expected("blk.{block}.ffn_up_shexp.weight", lambda c: (c.integer("shared_expert_intermediate_size"), c.hidden)),
    ),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768},
    fixed={"norm_topk_prob": False},
    example="Qwen/Qwen1.5-MoE-A2.7B-Chat",
)  # fmt: skip
