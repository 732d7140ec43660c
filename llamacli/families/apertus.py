"""Apertus: Llama's block with q/k norms and xIELU, whose four numbers of each block are trained and stored as tensors."""

from __future__ import annotations

from collections.abc import Callable

from llamacli.families.base import Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    FFN_UP_DOWN,
    GATED_FFN,
    OUTPUT,
    OUTPUT_NORM,
    QK_NORM,
    ROPE_DIMENSIONS,
    VOCAB_SIZE,
)
from llamacli.families.rope import llama3_rope_factors
from llamacli.formats.gguf_values import Value, ValueType, array


def _numbers(name: str, default: float) -> Callable[[Config], Value]:
    """One number of every block's activation."""

    def value(config: Config) -> Value:
        found = config.get("scalars", default={})
        names = (f"model.layers.{block}.mlp.act_fn.{name}" for block in range(config.blocks))
        return array(ValueType.FLOAT32, [found.get(full, default) for full in names])

    return value


APERTUS = Family(
    name="apertus",
    title="Apertus",
    architectures=("ApertusForCausalLM",),
    keys=(
        *DECODER_KEYS, VOCAB_SIZE, ROPE_DIMENSIONS,
        Key("xielu.alpha_n", _numbers("alpha_n", 0.8)),
        Key("xielu.alpha_p", _numbers("alpha_p", 0.8)),
        Key("xielu.beta", _numbers("beta", 0.5)),
        Key("xielu.eps", _numbers("eps", -1e-6)),
    ),
    scalars=r".*\.act_fn\.(alpha_n|alpha_p|beta|eps)",
    rules=(Rule(r".*\.act_fn\..*", drop=True),),
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, GATED_FFN[0], *FFN_UP_DOWN, *QK_NORM),
    extra=llama3_rope_factors,
    defaults={
        "max_position_embeddings": 65536, "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 12000000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        },
    },
    example="swiss-ai/Apertus-8B-Instruct-2509",
)  # fmt: skip
