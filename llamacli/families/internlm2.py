"""InternLM 2 and 2.5: Llama's block with queries, keys and values in one matrix, group by group."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Named, Rule, Transform
from llamacli.families.config import Config
from llamacli.families.decoder import DECODER_KEYS
from llamacli.families.llama import LLAMA
from llamacli.families.transforms import interleave_rope, rows_of
from llamacli.formats.rows import Reshaped, Rows


def _group(config: Config) -> int:
    """Rows of one group: its queries, one key, one value."""
    return (config.heads // config.kv_heads + 2) * config.head_dim


def _paired(heads: int) -> Transform:
    return interleave_rope(lambda config: heads)


def _split(name: str, rows: Rows, config: Config) -> Iterable[Named]:
    width, queries = config.head_dim, config.heads // config.kv_heads
    groups = Reshaped(rows, (config.kv_heads, _group(config), rows.shape[-1]))
    for part, start, count_ in (("q", 0, queries), ("k", queries, 1), ("v", queries + 1, 1)):
        taken = rows_of(groups, start * width, (start + count_) * width)
        matrix = Reshaped(taken, (config.kv_heads * count_ * width, rows.shape[-1]))
        heads = config.kv_heads * count_
        new = name.replace("attention.wqkv", f"self_attn.{part}_proj")
        yield new, matrix if part == "v" else _paired(heads)(matrix, config)


INTERNLM2 = LLAMA.override(
    name="internlm2",
    title="InternLM 2, 2.5",
    architectures=("InternLM2ForCausalLM",),
    keys=DECODER_KEYS,
    rules=(Rule(r".*\.attention\.wqkv\.weight", split=_split),),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    example="internlm/internlm2_5-7b-chat",
)
