"""Falcon 7B, 40B and 180B: one fused matrix of queries, keys and values, grouped by key; attention beside the MLP."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import EMBEDDING, OUTPUT, OUTPUT_NORM, always, real
from llamacli.families.gptneox import THETA
from llamacli.families.rope import SCALING_KEYS
from llamacli.families.transforms import regroup
from llamacli.formats.gguf_values import string, u32


def _kv_heads(config: Config) -> int:
    """The new decoder says how many; the old one shares a single pair unless it is not multi-query."""
    if config.get("new_decoder_architecture", default=False):
        return int(config.get("num_kv_heads", "n_head_kv", default=config.heads))
    return 1 if config.get("multi_query", default=True) else config.heads


def _ff(config: Config) -> int:
    return int(config.get("ffn_hidden_size", default=4 * config.hidden))


def _qkv_runs(config: Config) -> Iterable[tuple[int, int]]:
    """Rows from groups of (queries, key, value) to all queries, all keys, all values."""
    width, groups = config.head_dim, _kv_heads(config)
    queries = config.heads // groups * width
    size = queries + 2 * width
    yield from ((group * size, queries) for group in range(groups))
    yield from ((group * size + queries, width) for group in range(groups))
    yield from ((group * size + queries + width, width) for group in range(groups))


FALCON = Family(
    name="falcon",
    title="Falcon",
    architectures=("FalconForCausalLM", "RWForCausalLM"),
    keys=(
        Key("context_length", always(u32(2048))),  # not in config.json
        Key("tensor_data_layout", always(string("jploski"))),
        Key("embedding_length", lambda c: u32(c.hidden)),
        Key("feed_forward_length", lambda c: u32(_ff(c))),
        Key("block_count", lambda c: u32(c.blocks)),
        Key("attention.head_count", lambda c: u32(c.heads)),
        Key("attention.head_count_kv", lambda c: u32(_kv_heads(c))),
        Key("attention.layer_norm_epsilon", real("layer_norm_epsilon")),
        THETA, *SCALING_KEYS,
    ),
    rules=(Rule(r".*\.query_key_value\.(weight|bias)", regroup(_qkv_runs)),),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM,
        Expected("blk.{block}.attn_norm.weight", lambda c: (c.hidden,)),
        Expected("blk.{block}.attn_qkv.weight", lambda c: ((c.heads + 2 * _kv_heads(c)) * c.head_dim, c.hidden)),
        Expected("blk.{block}.attn_output.weight", lambda c: (c.hidden, c.hidden)),
        Expected("blk.{block}.ffn_up.weight", lambda c: (_ff(c), c.hidden)),
        Expected("blk.{block}.ffn_down.weight", lambda c: (c.hidden, _ff(c))),
    ),
    defaults={"tie_word_embeddings": True, "layer_norm_epsilon": 1e-5},
    fixed={"alibi": False, "parallel_attn": True},
    example="tiiuae/falcon-7b-instruct",
)  # fmt: skip
