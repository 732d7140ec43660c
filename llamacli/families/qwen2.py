"""Qwen 1.5, 2 and 2.5: Llama's block with biases on queries, keys and values."""

from __future__ import annotations

from llamacli.families.base import Family
from llamacli.families.decoder import DECODER_KEYS, DECODER_TENSORS, POOLING, QKV_BIAS

QWEN2 = Family(
    name="qwen2",
    title="Qwen 1.5, 2, 2.5",
    architectures=(
        "Qwen2ForCausalLM",
        "Qwen2Model",
        "Qwen2AudioForConditionalGeneration",
        "KORMoForCausalLM",
        "DotsOCRForCausalLM",
    ),
    keys=(*DECODER_KEYS, POOLING),
    expected=(*DECODER_TENSORS, *QKV_BIAS),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768},
    example="Qwen/Qwen2.5-7B-Instruct",
)
