"""Qwen 1: one matrix with a bias for queries, keys and values, and half the width that the configuration gives."""

from __future__ import annotations

from llamacli.families.base import Expected, Family, Key
from llamacli.families.config import Config
from llamacli.families.decoder import DECODER_KEYS, EMBEDDING, OUTPUT, OUTPUT_NORM, count, real


def _ff(config: Config) -> int:
    return config.integer("intermediate_size") // 2


QWEN = Family(
    name="qwen",
    title="Qwen 1",
    architectures=("QWenLMHeadModel",),
    keys=(*DECODER_KEYS, Key("context_length", count("seq_length", "max_position_embeddings")),
          Key("attention.layer_norm_rms_epsilon", real("layer_norm_epsilon"))),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM,
        Expected("blk.{block}.attn_qkv.weight", lambda c: (3 * c.hidden, c.hidden)),
        Expected("blk.{block}.attn_qkv.bias", lambda c: (3 * c.hidden,)),
        Expected("blk.{block}.ffn_gate.weight", lambda c: (_ff(c), c.hidden)),
        Expected("blk.{block}.ffn_down.weight", lambda c: (c.hidden, _ff(c))),
    ),
    defaults={"rotary_emb_base": 10000.0, "layer_norm_epsilon": 1e-6, "seq_length": 8192},
    example="Qwen/Qwen-7B-Chat",
)  # fmt: skip
