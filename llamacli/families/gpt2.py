"""GPT-2: learned positions, fused queries, keys and values; matrices stored as (in, out)."""

from __future__ import annotations

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import EMBEDDING, OUTPUT_NORM, count, real
from llamacli.families.transforms import transpose
from llamacli.formats.gguf_values import u32


def _ff(config: Config) -> int:
    return int(config.get("n_inner", default=4 * config.hidden))


GPT2 = Family(
    name="gpt2",
    title="GPT-2",
    architectures=("GPT2LMHeadModel", "GPT2Model"),
    keys=(
        Key("block_count", lambda c: u32(c.blocks)),
        Key("context_length", count("n_ctx", "n_positions")),
        Key("embedding_length", lambda c: u32(c.hidden)),
        Key("feed_forward_length", lambda c: u32(_ff(c))),
        Key("attention.head_count", lambda c: u32(c.heads)),
        Key("attention.layer_norm_epsilon", real("layer_norm_epsilon")),
    ),
    rules=(
        Rule(r".*\.attn\.(masked_)?bias", drop=True),  # the causal mask, stored as if it were a weight
        Rule(r".*\.(c_attn|c_proj|c_fc)\.weight", transpose),
    ),
    expected=(
        EMBEDDING, OUTPUT_NORM,
        Expected("position_embd.weight", lambda c: (c.integer("n_positions", "n_ctx"), c.hidden)),
        Expected("blk.{block}.attn_qkv.weight", lambda c: (3 * c.hidden, c.hidden)),
        Expected("blk.{block}.attn_qkv.bias", lambda c: (3 * c.hidden,)),
        Expected("blk.{block}.attn_output.weight", lambda c: (c.hidden, c.hidden)),
        Expected("blk.{block}.ffn_up.weight", lambda c: (_ff(c), c.hidden)),
        Expected("blk.{block}.ffn_down.weight", lambda c: (c.hidden, _ff(c))),
    ),
    defaults={"tie_word_embeddings": True, "layer_norm_epsilon": 1e-5, "n_positions": 1024},
    fixed={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
    example="openai-community/gpt2",
)  # fmt: skip
