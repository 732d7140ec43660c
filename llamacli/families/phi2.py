"""Phi 1, 1.5 and 2: attention beside the feed-forward network, biases everywhere, a part of each head rotated."""

from __future__ import annotations

from llamacli.families.base import Expected, Family, Key
from llamacli.families.decoder import ATTENTION, EMBEDDING, FFN_UP_DOWN, OUTPUT, OUTPUT_NORM, QKV_BIAS, count, real
from llamacli.families.gptneox import THETA
from llamacli.families.rope import SCALING_KEYS
from llamacli.formats.gguf_values import u32

PHI2 = Family(
    name="phi2",
    title="Phi 1, 1.5, 2",
    architectures=("PhiForCausalLM",),
    keys=(
        Key("context_length", count("n_positions", "max_position_embeddings")),
        Key("embedding_length", lambda c: u32(c.hidden)),
        Key("feed_forward_length", lambda c: u32(int(c.get("intermediate_size", "n_inner", default=4 * c.hidden)))),
        Key("block_count", lambda c: u32(c.blocks)),
        Key("attention.head_count", lambda c: u32(c.heads)),
        Key("attention.head_count_kv", lambda c: u32(c.kv_heads)),
        Key("attention.layer_norm_epsilon", real("layer_norm_epsilon", "layer_norm_eps")),
        Key("rope.dimension_count", lambda c: u32(int(c.full_rope["partial_rotary_factor"] * c.hidden) // c.heads)),
        THETA, *SCALING_KEYS,
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *QKV_BIAS, *FFN_UP_DOWN,
        Expected("output.bias", lambda c: (-1,)),
    ),
    defaults={
        "layer_norm_eps": 1e-5, "max_position_embeddings": 2048, "partial_rotary_factor": 0.5, "rope_theta": 10000.0,
    },
    fixed={"qk_layernorm": False},
    example="microsoft/phi-2",
)  # fmt: skip
