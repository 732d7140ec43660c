"""Gemma 4, text: heads of two widths, a rope that turns a quarter of the wide ones, inputs for each block, experts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from llamacli.families.base import Expected, Family, Key, Named, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import (
    DECODER_KEYS,
    EMBEDDING,
    GATED_FFN,
    OUTPUT_NORM,
    POST_NORMS,
    SLIDING_WINDOW,
    count,
    real,
)
from llamacli.families.moe import EXPERT_FF
from llamacli.formats.gguf_values import Value, ValueType, array, u32
from llamacli.formats.rows import InMemory


def _types(config: Config) -> list[str]:
    given = config.get("layer_types")
    blocks = range(config.blocks)
    return given or ["full_attention" if block % 6 == 5 else "sliding_attention" for block in blocks]


def _local(config: Config, block: int) -> bool:
    return bool(_types(config)[block] == "sliding_attention")


def _wide(config: Config) -> int:
    """The width of a head that sees everything; `per_layer_config` says it in files of transformers 5."""
    return int(_of_full_layers(config, "head_dim") or config.get("global_head_dim", default=512))


def _of_full_layers(config: Config, name: str) -> int | None:
    for block, settings in (config.get("per_layer_config") or {}).items():
        if int(block) < config.blocks and not _local(config, int(block)) and name in settings:
            return int(settings[name])
    return None


def _full_kv_heads(config: Config) -> int | None:
    found = _of_full_layers(config, "num_key_value_heads") or config.get("num_global_key_value_heads")
    return None if found is None else int(found)


def _kv_heads(config: Config) -> Value:
    full = _full_kv_heads(config)
    if full is None:
        return u32(config.kv_heads)
    heads = [config.kv_heads if _local(config, block) else full for block in range(config.blocks)]
    return array(ValueType.INT32, heads)


def _own_kv(config: Config) -> int:
    """Blocks in front with keys and values of their own; the others use those of an earlier block."""
    return config.blocks - int(config.get("num_kv_shared_layers", default=0))


def _ff(config: Config) -> Value:
    """Blocks that share keys and values are twice as wide in the small models."""
    width = config.integer("intermediate_size")
    if not config.get("use_double_wide_mlp", default=False):
        return u32(width)
    return array(ValueType.INT32, [width if block < _own_kv(config) else 2 * width for block in range(config.blocks)])


def _narrow_rotated(config: Config) -> Value:
    factor = config.rope.get("sliding_attention", {}).get("partial_rotary_factor", 1.0)
    return u32(int(config.head_dim * factor))


def _refusals(config: Config) -> Iterable[str]:
    rows = config.get("vocab_size_per_layer_input", default=config.get("vocab_size"))
    if rows != config.get("vocab_size"):
        yield f"config.json: the inputs for each block have {rows} rows, the engine takes vocab_size for granted"


def _proportional_rope(config: Config) -> Iterable[Named]:
    """Divisors for the wide heads: pairs that are not rotated get one that stops them."""
    rotated = int(_wide(config) * config.full_rope.get("partial_rotary_factor", 0.25) / 2)
    factors = np.full(_wide(config) // 2, 1e30, np.float32)
    factors[:rotated] = 1
    yield "rope_freqs.weight", InMemory(factors)


def _number(value: Callable[[Config], int]) -> Callable[[Config], Value]:
    return lambda config: u32(value(config))


GEMMA4 = Family(
    name="gemma4",
    title="Gemma 4",
    architectures=("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"),
    keys=(
        *DECODER_KEYS,
        Key("final_logit_softcapping", real("final_logit_softcapping")),
        SLIDING_WINDOW,
        Key("attention.shared_kv_layers", _number(lambda c: c.blocks - _own_kv(c))),
        Key("embedding_length_per_layer_input", count("hidden_size_per_layer_input")),
        Key(
            "attention.sliding_window_pattern",
            lambda c: array(ValueType.BOOL, [_local(c, block) for block in range(c.blocks)]),
        ),
        Key("attention.key_length", _number(_wide)),
        Key("attention.value_length", _number(_wide)),
        Key("attention.key_length_swa", _number(lambda c: c.head_dim)),
        Key("attention.value_length_swa", _number(lambda c: c.head_dim)),
        Key("attention.head_count_kv", _kv_heads),
        Key("feed_forward_length", _ff),
        EXPERT_FF,
        Key("rope.dimension_count", _number(_wide)),
        Key("rope.dimension_count_swa", _narrow_rotated),
    ),
    rules=(
        Rule(r"(.*\.layer_scalar)", rename=r"\1.weight"),
        Rule(r"model\.layers\.(\d+)\.router\.scale", rename=r"blk.\1.ffn_gate_inp.scale"),
        Rule(r"model\.layers\.(\d+)\.router\.per_expert_scale", rename=r"blk.\1.ffn_down_exps.scale"),
        Rule(r"model\.layers\.(\d+)\.experts\.gate_up_proj", rename=r"blk.\1.ffn_gate_up_exps.weight"),
        Rule(r"model\.layers\.(\d+)\.experts\.down_proj", rename=r"blk.\1.ffn_down_exps.weight"),
    ),
    expected=(
        EMBEDDING, OUTPUT_NORM, GATED_FFN[0], *POST_NORMS,
        Expected("blk.{block}.attn_norm.weight", lambda c: (c.hidden,)),
        Expected("blk.{block}.attn_q.weight", lambda c: (c.heads * c.head_dim, c.hidden), _local),
        Expected("blk.{block}.attn_q.weight", lambda c: (c.heads * _wide(c), c.hidden), lambda c, b: not _local(c, b)),
        Expected("blk.{block}.attn_k.weight", lambda c: (c.kv_heads * c.head_dim, c.hidden),
                 lambda c, block: _local(c, block) and block < _own_kv(c)),
        Expected("blk.{block}.ffn_gate.weight", lambda c: (-1, c.hidden)),
        Expected("blk.{block}.layer_output_scale.weight", lambda c: (1,)),
    ),
    extra=_proportional_rope,
    refusals=_refusals,
    defaults={
        "tie_word_embeddings": True, "head_dim": 256, "rms_norm_eps": 1e-6, "max_position_embeddings": 131072,
        "num_attention_heads": 8, "num_key_value_heads": 4, "hidden_size": 2304, "intermediate_size": 9216,
        "num_hidden_layers": 30, "sliding_window": 512, "hidden_size_per_layer_input": 256,
        "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    example="google/gemma-4-E2B-it",
)  # fmt: skip
