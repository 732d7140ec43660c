"""Qwen 3: queries and keys are normalised head by head; no biases."""

from __future__ import annotations

from llamacli.families.base import Family
from llamacli.families.decoder import DECODER_KEYS, DECODER_TENSORS, HEAD_WIDTHS, POOLING, QK_NORM

QWEN3 = Family(
    name="qwen3",
    title="Qwen 3",
    architectures=("Qwen3ForCausalLM", "Qwen3Model"),
    keys=(*DECODER_KEYS, *HEAD_WIDTHS, POOLING),
    expected=(*DECODER_TENSORS, *QK_NORM),
    defaults={"head_dim": 128, "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768},
    example="Qwen/Qwen3-8B",
)
