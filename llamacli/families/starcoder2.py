"""StarCoder 2: biases everywhere, layer norms, a plain feed-forward network."""

from __future__ import annotations

from llamacli.families.base import Family
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    FFN_UP_DOWN,
    OUTPUT,
    OUTPUT_NORM,
    QKV_BIAS,
    no_window_warning,
)  # fmt: skip

STARCODER2 = Family(
    name="starcoder2",
    title="StarCoder 2",
    architectures=("Starcoder2ForCausalLM",),
    keys=DECODER_KEYS,
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *QKV_BIAS, *FFN_UP_DOWN),
    defaults={
        "tie_word_embeddings": True, "rope_theta": 10000.0, "norm_epsilon": 1e-5, "max_position_embeddings": 4096,
    },
    warnings=no_window_warning,
    example="bigcode/starcoder2-7b",
)  # fmt: skip
