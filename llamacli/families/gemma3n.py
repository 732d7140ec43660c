"""Gemma 3n, text: four streams of which one is computed (AltUp), a low-rank detour (Laurel), sparse networks in front."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import NormalDist

from llamacli.families.base import Expected, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import (
    DECODER_KEYS,
    EMBEDDING,
    GATED_FFN,
    HEAD_WIDTHS,
    OUTPUT_NORM,
    POST_NORMS,
    SLIDING_WINDOW,
    count,
    real,
)
from llamacli.families.gemma import GEMMA
from llamacli.formats.gguf_values import Value, ValueType, array, u32


def _types(config: Config) -> list[str]:
    given = config.get("layer_types")
    blocks = range(config.blocks)
    return given or ["full_attention" if block % 5 == 4 else "sliding_attention" for block in blocks]


def _sparsity(config: Config) -> list[float]:
    """The part of each block's network that is left out."""
    given = config.get("activation_sparsity_pattern", default=0.0)
    return [float(part) for part in given] if isinstance(given, list) else [float(given)] * config.blocks


def _cuts(config: Config) -> Value:
    """How many standard deviations above the mean a value must be to count: those of a normal distribution."""
    cuts = [NormalDist().inv_cdf(part) if part > 0 else -float("inf") for part in _sparsity(config)]
    return array(ValueType.FLOAT32, cuts)


def _ff(config: Config) -> Value:
    width = config.get("intermediate_size")
    return array(ValueType.INT32, width) if isinstance(width, list) else u32(width)


def _refusals(config: Config) -> Iterable[str]:
    if config.get("altup_num_inputs", default=4) != 4:
        yield f"config.json: altup_num_inputs {config.get('altup_num_inputs')} is not computed by the engine, only 4"
    for name, size in (("hidden_size_per_layer_input", 256), ("laurel_rank", 64)):
        if config.integer(name) != size:
            yield f"config.json: {name} {config.get(name)} is not computed by the engine, only {size}"


def _warnings(config: Config) -> Iterable[str]:
    own = config.blocks - int(config.get("num_kv_shared_layers", default=15))
    if own != 20:
        yield f"the engine gives the first 20 blocks keys of their own, this model the first {own}"
    if _sparsity(config) != [0.95] * 10 + [0.0] * (config.blocks - 10):
        yield "the engine leaves out 95 percent of the first ten blocks' networks, this model another part"


GEMMA3N = GEMMA.override(
    name="gemma3n",
    title="Gemma 3n",
    architectures=("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"),
    keys=(
        *(key for key in DECODER_KEYS if key.name != "feed_forward_length"), *HEAD_WIDTHS, SLIDING_WINDOW,
        Key("feed_forward_length", _ff),
        Key("final_logit_softcapping", real("final_logit_softcapping")),
        Key("altup.active_idx", count("altup_active_idx")),
        Key("altup.num_inputs", count("altup_num_inputs")),
        Key("embedding_length_per_layer_input", count("hidden_size_per_layer_input")),
        Key("attention.shared_kv_layers", count("num_kv_shared_layers")),
        Key("activation_sparsity_scale", _cuts),
        Key("attention.sliding_window_pattern", lambda c: array(
            ValueType.BOOL, [kind == "sliding_attention" for kind in _types(c)])),
    ),
    rules=(
        Rule(r"(.*_scale)", rename=r"\1.weight"),
        Rule(
            r"(?P<stem>model\.altup_(unembed_)?projections)\.(?P<expert>\d+)\.weight",
            stack=r"\g<stem>.weight",
            stack_size=lambda c: c.integer("altup_num_inputs") - 1,
        ),
    ),
    expected=(
        EMBEDDING, OUTPUT_NORM, GATED_FFN[0], *POST_NORMS,
        Expected("per_layer_token_embd.weight", lambda c: (-1, c.blocks * c.integer("hidden_size_per_layer_input"))),
        Expected("altup_proj.weight", lambda c: (3, c.hidden, c.hidden)),
        Expected("blk.{block}.attn_q.weight", lambda c: (c.heads * c.head_dim, c.hidden)),
        Expected("blk.{block}.attn_k.weight", lambda c: (c.kv_heads * c.head_dim, c.hidden)),  # shared ones too
        Expected("blk.{block}.ffn_gate.weight", lambda c: (-1, c.hidden)),
        Expected("blk.{block}.laurel_l.weight", lambda c: (-1, c.hidden)),
    ),
    defaults={
        "tie_word_embeddings": True, "head_dim": 256, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768,
        "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 2048, "intermediate_size": 16384,
        "num_hidden_layers": 35, "sliding_window": 512, "hidden_size_per_layer_input": 256, "altup_active_idx": 0,
        "laurel_rank": 64,
        "altup_num_inputs": 4, "num_kv_shared_layers": 15, "final_logit_softcapping": 30.0, "rope_theta": 1e6,
        "rope_local_base_freq": 10000.0,
    },
    refusals=_refusals,
    warnings=_warnings,
    example="google/gemma-3n-E4B-it",
)  # fmt: skip
