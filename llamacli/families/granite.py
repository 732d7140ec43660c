"""Granite 3: Llama's block with multipliers; and its mixtures, whose experts are stacked with gate and up fused."""

from __future__ import annotations

from llamacli.families.base import Expected, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    OUTPUT,
    OUTPUT_NORM,
    ROPE_DIMENSIONS,
    VOCAB_SIZE,
    count,
    real,
)  # fmt: skip
from llamacli.families.llama import INTERLEAVED_QK, LLAMA
from llamacli.families.moe import expert_tensors, experts
from llamacli.families.rope import FACTOR_ROPE_KEYS
from llamacli.families.transforms import split_rows
from llamacli.formats.gguf_values import Value, u32

MULTIPLIERS = (
    Key("attention.scale", real("attention_multiplier")),
    Key("embedding_scale", real("embedding_multiplier")),
    Key("residual_scale", real("residual_multiplier")),
    Key("logit_scale", real("logits_scaling")),
)

GRANITE = LLAMA.override(
    name="granite",
    title="Granite 3",
    architectures=("GraniteForCausalLM",),
    keys=(*DECODER_KEYS, *FACTOR_ROPE_KEYS, VOCAB_SIZE, ROPE_DIMENSIONS, *MULTIPLIERS),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    example="ibm-granite/granite-3.3-8b-instruct",
)


def _width(config: Config) -> int:
    return config.integer("intermediate_size")


def _shared_width(config: Config) -> int:
    return int(config.get("shared_intermediate_size", default=0))


def _dense(config: Config) -> bool:
    return not experts(config)


def _ff(config: Config) -> Value:
    """In a dense model the shared network is the only one."""
    return u32((_dense(config) and _shared_width(config)) or _width(config))


GRANITE_MOE = GRANITE.override(
    name="granitemoe",
    title="Granite 3 MoE",
    architectures=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
    keys=(
        *GRANITE.keys,
        Key("feed_forward_length", _ff),
        Key("expert_shared_feed_forward_length", count("shared_intermediate_size")),
    ),
    rules=(
        *INTERLEAVED_QK,
        Rule(
            r".*\.block_sparse_moe\.input_linear\.weight",
            split=split_rows(
                ("mlp.experts.gate_proj", _width), ("mlp.experts.up_proj", _width), old="block_sparse_moe.input_linear"
            ),
        ),
        Rule(
            r".*\.shared_mlp\.input_linear\.weight",
            when=_dense,
            split=split_rows(("mlp.gate_proj", _shared_width), ("mlp.up_proj", _shared_width), old="shared_mlp.input_linear"),
        ),
        Rule(r"(.*)\.shared_mlp\.output_linear\.weight", when=_dense, rename=r"\1.mlp.down_proj.weight"),
        Rule(
            r".*\.shared_mlp\.input_linear\.weight",
            split=split_rows(
                ("mlp.shared_expert.gate_proj", _shared_width),
                ("mlp.shared_expert.up_proj", _shared_width),
                old="shared_mlp.input_linear",
            ),
        ),
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *expert_tensors(_width, lambda c, block: not _dense(c)),
        Expected("blk.{block}.ffn_up_shexp.weight", lambda c: (_shared_width(c), c.hidden),
                 lambda c, block: not _dense(c) and _shared_width(c) > 0),
    ),
    example="ibm-granite/granite-3.1-3b-a800m-instruct",
)  # fmt: skip
