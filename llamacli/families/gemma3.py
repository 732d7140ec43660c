"""Gemma 3, text: five blocks with a window and a rope base of their own to one that sees everything."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Key
from llamacli.families.config import Config
from llamacli.families.decoder import (
    DECODER_KEYS,
    DECODER_TENSORS,
    HEAD_WIDTHS,
    POOLING,
    POST_NORMS,
    QK_NORM,
    real,
    windowed,
    windows,
)
from llamacli.families.gemma import GEMMA, attention_scale_warning

GEMMA3 = GEMMA.override(
    name="gemma3",
    title="Gemma 3",
    architectures=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    keys=(
        *DECODER_KEYS, *HEAD_WIDTHS, *windows(6, always_some=False),
        Key("final_logit_softcapping", real("final_logit_softcapping")),
    ),
    expected=(*DECODER_TENSORS, *POST_NORMS, *QK_NORM),
    defaults={
        **GEMMA.defaults, "max_position_embeddings": 131072, "num_attention_heads": 8, "num_key_value_heads": 4,
        "rope_theta": 1e6, "rope_local_base_freq": 10000.0, "sliding_window": 4096, "query_pre_attn_scalar": 256,
    },
    warnings=attention_scale_warning(62),
    example="google/gemma-3-4b-it",
)  # fmt: skip


def _only_windows(config: Config) -> Iterable[str]:
    if all(windowed(config, 6)):
        yield "config.json: every block has a window; the engine's graph of this family has others too"


EMBEDDING_GEMMA = GEMMA3.override(
    name="gemma-embedding",
    title="EmbeddingGemma",
    architectures=("Gemma3TextModel",),
    keys=(*DECODER_KEYS, *HEAD_WIDTHS, *windows(6), POOLING),
    refusals=_only_windows,
    example="google/embeddinggemma-300m",
)
