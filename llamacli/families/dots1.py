"""dots.llm1: Qwen 3's attention with DeepSeek's experts."""

from __future__ import annotations

from llamacli.families.base import Key
from llamacli.families.decoder import ATTENTION, EMBEDDING, OUTPUT, OUTPUT_NORM, QK_NORM, always, count
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
from llamacli.families.qwen3 import QWEN3
from llamacli.formats.gguf_values import u32

DOTS1 = QWEN3.override(
    name="dots1",
    title="dots.llm1",
    architectures=("Dots1ForCausalLM",),
    keys=(
        *(key for key in QWEN3.keys if key.name not in ("pooling_type", "expert_gating_func")),
        EXPERT_FF,
        Key("leading_dense_block_count", count("first_k_dense_replace")),
        SHARED_COUNT, WEIGHTS_SCALE, WEIGHTS_NORM,
        Key("expert_gating_func", always(u32(2))),  # the configuration calls it noaux_tc
    ),
    rules=EXPERT_RULES,
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *QK_NORM, *expert_tensors(moe_width, behind_dense)),
    example="rednote-hilab/dots.llm1.inst",
)  # fmt: skip
