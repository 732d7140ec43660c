"""Arcee AFM: Llama's attention, and a squared ReLU without a gate."""

from __future__ import annotations

from llamacli.families.decoder import ATTENTION, EMBEDDING, FFN_UP_DOWN, GATED_FFN, OUTPUT, OUTPUT_NORM, POOLING
from llamacli.families.llama import LLAMA

ARCEE = LLAMA.override(
    name="arcee",
    title="Arcee AFM",
    architectures=("ArceeForCausalLM",),
    keys=(*LLAMA.keys, POOLING),
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, GATED_FFN[0], *FFN_UP_DOWN),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
    example="arcee-ai/AFM-4.5B",
)
