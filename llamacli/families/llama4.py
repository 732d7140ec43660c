"""Llama 4, text: experts in every block or every second one, stacked as (experts, in, out), beside a shared one."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Expected, Family, Key, Named, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    GATED_FFN,
    HEAD_WIDTHS,
    OUTPUT,
    OUTPUT_NORM,
    ROPE_DIMENSIONS,
    VOCAB_SIZE,
    count,
)
from llamacli.families.moe import expert_tensors, experts
from llamacli.families.rope import llama3_rope_factors
from llamacli.families.transforms import rows_of, transpose
from llamacli.formats.gguf_values import Value, u32
from llamacli.formats.rows import Rows


def _step(config: Config) -> int:
    return int(config.get("interleave_moe_layer_step", default=1))


def _has_experts(config: Config, block: int) -> bool:
    return block in config.get("moe_layers", default=[b for b in range(config.blocks) if (b + 1) % _step(config) == 0])


def _split_gate_up(name: str, rows: Rows, config: Config) -> Iterable[Named]:
    out = transpose(rows, config)
    half = out.shape[-2] // 2
    yield name.replace("gate_up_proj", "gate_proj.weight"), rows_of(out, 0, half)
    yield name.replace("gate_up_proj", "up_proj.weight"), rows_of(out, half, 2 * half)


def _window(config: Config) -> Value | None:
    """Zero switches the chunks off, and the blocks without a rope with them."""
    types = config.get("layer_types")
    return u32(0) if types and all(kind == "full_attention" for kind in types) else None


def _warnings(config: Config) -> Iterable[str]:
    """What the engine has as fixed numbers."""
    for name, fixed in (("attention_chunk_size", 8192), ("floor_scale", 8192), ("attn_scale", 0.1)):
        if (value := config.get(name)) is not None and value != fixed:
            yield f"the engine has {name} {fixed} for every Llama 4; this model says {value}"
    if config.get("use_qk_norm", default=True) == (experts(config) == 128):
        yield "the engine normalises queries and keys in every Llama 4 but those of 128 experts; this model differs"
    no_rope = config.get("no_rope_layers")
    if no_rope and [bool(flag) for flag in no_rope] != [(block + 1) % 4 != 0 for block in range(len(no_rope))]:
        yield "the engine leaves the rope out of every fourth block; this model's no_rope_layers differ from that"


LLAMA4 = Family(
    name="llama4",
    title="Llama 4 Scout, Maverick",
    architectures=("Llama4ForConditionalGeneration", "Llama4ForCausalLM"),
    keys=(
        *DECODER_KEYS, *HEAD_WIDTHS,
        Key("feed_forward_length", count("intermediate_size_mlp")),
        VOCAB_SIZE, ROPE_DIMENSIONS,
        Key("interleave_moe_layer_step", lambda c: u32(_step(c))),
        Key("expert_feed_forward_length", count("intermediate_size")),
        Key("attention.sliding_window", _window),
    ),
    rules=(
        Rule(r".*\.experts\.gate_up_proj", split=_split_gate_up),
        Rule(r"(.*\.experts\.down_proj)", transpose, rename=r"\1.weight"),
        Rule(
            r"(?P<stem>.*\.feed_forward\.experts)\.(?P<expert>\d+)\.(?P<part>(gate|up|down)_proj)\.weight",
            stack=r"\g<stem>.\g<part>.weight",
        ),
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, GATED_FFN[0],
        Expected("blk.{block}.ffn_gate.weight", lambda c: (c.integer("intermediate_size_mlp"), c.hidden),
                 lambda c, block: not _has_experts(c, block)),
        *expert_tensors(lambda c: c.integer("intermediate_size"), _has_experts),
        Expected("blk.{block}.ffn_up_shexp.weight", lambda c: (c.integer("intermediate_size"), c.hidden), _has_experts),
    ),
    extra=llama3_rope_factors,
    defaults={
        "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "head_dim": 128,
        "num_local_experts": 16, "num_experts_per_tok": 1, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
        "num_attention_heads": 40, "num_key_value_heads": 8, "hidden_size": 5120, "num_hidden_layers": 48,
    },
    warnings=_warnings,
    example="meta-llama/Llama-4-Scout-17B-16E-Instruct",
)  # fmt: skip
