"""Seed-OSS: Qwen 2's block with heads of a width of their own."""

from __future__ import annotations

from llamacli.families.decoder import ATTENTION, DECODER_KEYS, EMBEDDING, GATED_FFN, HEAD_WIDTHS, OUTPUT, OUTPUT_NORM
from llamacli.families.qwen2 import QWEN2

SEED_OSS = QWEN2.override(
    name="seed_oss",
    title="Seed-OSS",
    architectures=("SeedOssForCausalLM",),
    keys=(*DECODER_KEYS, *HEAD_WIDTHS),
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *GATED_FFN[1:]),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 524288, "head_dim": 128},
    example="ByteDance-Seed/Seed-OSS-36B-Instruct",
)
