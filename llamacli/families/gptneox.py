"""GPT-NeoX and Pythia: queries, keys and values fused head by head."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import EMBEDDING, FFN_UP_DOWN, OUTPUT, OUTPUT_NORM, count, flag, real
from llamacli.families.rope import SCALING_KEYS
from llamacli.families.transforms import regroup
from llamacli.formats.gguf_values import Value, f32, u32


def qkv_runs(config: Config) -> Iterable[tuple[int, int]]:
    """Rows from (head, q k v) to (q k v, head)."""
    width = config.head_dim
    return (((3 * head + part) * width, width) for part in range(3) for head in range(config.heads))


def _rotated(config: Config) -> int:
    factor = config.get("rotary_pct", default=config.full_rope.get("partial_rotary_factor", 0.25))
    return int(factor * config.head_dim)


def _theta(config: Config) -> Value | None:
    theta = float(config.full_rope.get("rope_theta", 10000.0))
    return f32(theta) if theta != 10000.0 else None


THETA = Key("rope.freq_base", _theta)
"""Left out at the engine's own default, as others do."""


GPTNEOX = Family(
    name="gptneox",
    title="GPT-NeoX, Pythia",
    architectures=("GPTNeoXForCausalLM", "GPTNeoXModel"),
    keys=(
        Key("context_length", count("max_position_embeddings")),
        Key("embedding_length", lambda c: u32(c.hidden)),
        Key("block_count", lambda c: u32(c.blocks)),
        Key("feed_forward_length", count("intermediate_size")),
        Key("rope.dimension_count", lambda c: u32(_rotated(c))),
        THETA, *SCALING_KEYS,
        Key("attention.head_count", lambda c: u32(c.heads)),
        Key("use_parallel_residual", flag("use_parallel_residual")),
        Key("attention.layer_norm_epsilon", real("layer_norm_eps")),
    ),
    rules=(
        Rule(r".*\.attention\.(bias|masked_bias)", drop=True),
        Rule(r".*\.query_key_value\.(weight|bias)", regroup(qkv_runs)),
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *FFN_UP_DOWN,
        Expected("blk.{block}.attn_norm.weight", lambda c: (c.hidden,)),
        Expected("blk.{block}.attn_qkv.weight", lambda c: (3 * c.hidden, c.hidden)),
        Expected("blk.{block}.attn_qkv.bias", lambda c: (3 * c.hidden,)),
        Expected("blk.{block}.attn_output.weight", lambda c: (c.hidden, c.hidden)),
        Expected("blk.{block}.ffn_norm.weight", lambda c: (c.hidden,)),
    ),
    defaults={
        "use_parallel_residual": True, "layer_norm_eps": 1e-5, "max_position_embeddings": 2048,
        "rotary_emb_base": 10000.0,
    },
    example="EleutherAI/pythia-410m",
)  # fmt: skip
