"""Arcee Trinity (AfMoE): gated attention with norms all around, a window and rope in three blocks of four, experts."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    HEAD_WIDTHS,
    OUTPUT,
    OUTPUT_NORM,
    POST_NORMS,
    QK_NORM,
    ROPE_DIMENSIONS,
    SLIDING_WINDOW,
    VOCAB_SIZE,
    count,
    flag,
    real,
    windowed,
)  # fmt: skip
from llamacli.families.moe import EXPERT_FF, EXPERT_RULES, SHARED_COUNT, expert_tensors, moe_width


def _routed(config: Config, block: int) -> bool:
    return block >= int(config.get("num_dense_layers", default=1))


def _warnings(config: Config) -> Iterable[str]:
    if not config.get("mup_enabled", default=False):
        yield "the engine scales this family's embeddings by the root of their width, which this model does not want"


def _refusals(config: Config) -> Iterable[str]:
    if windowed(config, 4) != [(block + 1) % 4 != 0 for block in range(config.blocks)]:
        yield "config.json: the engine gives every fourth block full attention without rope, this model others"


AFMOE = Family(
    name="afmoe",
    title="Arcee Trinity",
    architectures=("AfmoeForCausalLM",),
    keys=(
        *DECODER_KEYS, *HEAD_WIDTHS, VOCAB_SIZE, ROPE_DIMENSIONS, SHARED_COUNT, EXPERT_FF, SLIDING_WINDOW,
        Key("leading_dense_block_count", count("num_dense_layers")),
        Key("expert_weights_norm", flag("route_norm")),
        Key("expert_weights_scale", real("route_scale")),
    ),
    rules=(*EXPERT_RULES, Rule(r"(.*\.expert_bias)", rename=r"\1.bias")),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *QK_NORM, *POST_NORMS, *expert_tensors(moe_width, _routed),
        Expected("blk.{block}.attn_gate.weight", lambda c: (c.heads * c.head_dim, c.hidden)),
    ),
    defaults={
        "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 16384, "head_dim": 128,
        "num_dense_layers": 1, "num_shared_experts": 2, "route_norm": True, "route_scale": 1.0, "sliding_window": 1024,
        "score_func": "sigmoid",
    },
    warnings=_warnings,
    refusals=_refusals,
    example="arcee-ai/Trinity-Mini",
)  # fmt: skip
