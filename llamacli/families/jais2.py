"""Jais 2: layer norms and biases everywhere, and a squared ReLU without a gate."""

from __future__ import annotations

from llamacli.families.base import Family
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    FFN_UP_DOWN,
    GATED_FFN,
    HEAD_WIDTHS,
    OUTPUT,
    OUTPUT_NORM,
    QKV_BIAS,
    ROPE_DIMENSIONS,
)

JAIS2 = Family(
    name="jais2",
    title="Jais 2",
    architectures=("Jais2ForCausalLM",),
    keys=(*DECODER_KEYS, *HEAD_WIDTHS, ROPE_DIMENSIONS),
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *QKV_BIAS, GATED_FFN[0], *FFN_UP_DOWN),
    defaults={"rope_theta": 500000.0, "layer_norm_eps": 1e-5, "max_position_embeddings": 8192},
    example="inceptionai/Jais-2-8B-Chat",
)
