"""BLOOM: alibi instead of positions, a norm after the embedding, queries, keys and values fused head by head."""

from __future__ import annotations

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.decoder import EMBEDDING, OUTPUT_NORM, real
from llamacli.families.gptneox import qkv_runs
from llamacli.families.transforms import regroup
from llamacli.formats.gguf_values import u32

BLOOM = Family(
    name="bloom",
    title="BLOOM",
    architectures=("BloomForCausalLM", "BloomModel"),
    keys=(
        Key("context_length", lambda c: u32(int(c.get("seq_length", default=2048)))),
        Key("embedding_length", lambda c: u32(c.hidden)),
        Key("feed_forward_length", lambda c: u32(4 * c.hidden)),
        Key("block_count", lambda c: u32(c.blocks)),
        Key("attention.head_count", lambda c: u32(c.heads)),
        Key("attention.head_count_kv", lambda c: u32(c.heads)),
        Key("attention.layer_norm_epsilon", real("layer_norm_epsilon")),
    ),
    rename=lambda name, config: name.removeprefix("transformer."),
    rules=(Rule(r".*\.query_key_value\.(weight|bias)", regroup(qkv_runs)),),
    expected=(
        EMBEDDING, OUTPUT_NORM,
        Expected("token_embd_norm.weight", lambda c: (c.hidden,)),
        Expected("blk.{block}.attn_qkv.weight", lambda c: (3 * c.hidden, c.hidden)),
        Expected("blk.{block}.ffn_up.weight", lambda c: (4 * c.hidden, c.hidden)),
    ),
    defaults={"tie_word_embeddings": True, "layer_norm_epsilon": 1e-5},
    fixed={"apply_residual_connection_post_layernorm": False},
    example="bigscience/bloomz-560m",
)  # fmt: skip
