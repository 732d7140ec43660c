"""Command-R and Command-R7B: attention beside the feed-forward network, scaled logits, the output always tied."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Family, Key
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    GATED_FFN,
    HEAD_WIDTHS,
    OUTPUT_NORM,
    VOCAB_SIZE,
    always,
    count,
    real,
    windows,
)  # fmt: skip
from llamacli.formats.gguf_values import string, u32

NO_SCALING = Key("rope.scaling.type", always(string("none")))


def _qk_norm(config: Config) -> Iterable[str]:
    """The engine looks for q/k norms only in models of 64 blocks and more."""
    if config.get("use_qk_norm", default=False) and config.blocks < 64:
        yield "config.json: use_qk_norm in fewer than 64 blocks is not computed by the engine"


COMMAND_R = Family(
    name="command-r",
    title="Command-R, Aya 23",
    architectures=("CohereForCausalLM",),
    keys=(
        *DECODER_KEYS,
        Key("context_length", count("model_max_length", "max_position_embeddings")),  # the first is what it was trained on
        Key("logit_scale", real("logit_scale")),
        NO_SCALING,
    ),
    expected=(EMBEDDING, OUTPUT_NORM, *ATTENTION, *GATED_FFN[1:]),
    defaults={
        "tie_word_embeddings": True, "rope_theta": 10000.0, "layer_norm_eps": 1e-5, "max_position_embeddings": 8192,
        "logit_scale": 0.0625,
    },
    refusals=_qk_norm,
    example="CohereLabs/c4ai-command-r-v01",
)  # fmt: skip

COHERE2 = COMMAND_R.override(
    name="cohere2",
    title="Command-R7B, Command-A",
    architectures=("Cohere2ForCausalLM",),
    keys=(
        *DECODER_KEYS, *HEAD_WIDTHS, Key("logit_scale", real("logit_scale")), *windows(4), VOCAB_SIZE,
        # rotary_pct counts in the width that hidden_size gives a head
        Key("rope.dimension_count", lambda c: u32(int(c.get("rotary_pct", default=1.0) * (c.hidden // c.heads)))),
        NO_SCALING,
    ),
    defaults={**COMMAND_R.defaults, "sliding_window": 4096},
    refusals=lambda config: (),
    example="CohereLabs/c4ai-command-r7b-12-2024",
)  # fmt: skip
