"""MiniCPM 1, 2 and 4: Llama's block with three scales."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Key
from llamacli.families.config import Config
from llamacli.families.decoder import DECODER_KEYS, real
from llamacli.families.llama import LLAMA
from llamacli.families.phi3 import long_rope_factors
from llamacli.formats.gguf_values import Value, f32


def _residual(config: Config) -> Value:
    return f32(config.get("scale_depth", default=1.4) / config.blocks**0.5)


def _logits(config: Config) -> Value:
    return f32(config.hidden / config.integer("dim_model_base"))


def _refusals(config: Config) -> Iterable[str]:
    if config.get("num_experts", default=0):
        yield "config.json: a MiniCPM with experts is not supported"


MINICPM = LLAMA.override(
    name="minicpm",
    title="MiniCPM",
    architectures=("MiniCPMForCausalLM",),
    keys=(
        *DECODER_KEYS,
        Key("embedding_scale", real("scale_emb")),
        Key("residual_scale", _residual),
        Key("logit_scale", _logits),
    ),
    extra=long_rope_factors,
    defaults={
        "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "scale_emb": 12, "scale_depth": 1.4,
        "dim_model_base": 256, "tie_word_embeddings": True,
    },
    refusals=_refusals,
    example="openbmb/MiniCPM4-8B",
)  # fmt: skip
