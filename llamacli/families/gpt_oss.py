"""gpt-oss: experts with biases, kept in MXFP4 bit for bit; attention with sinks, every second block with a window."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Expected, Family, Key, Named, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    HEAD_WIDTHS,
    OUTPUT,
    OUTPUT_NORM,
    QKV_BIAS,
    count,
    windows,
)  # fmt: skip
from llamacli.families.moe import expert_tensors, moe_width
from llamacli.families.transforms import rows_of, transpose
from llamacli.formats.rows import Columns, Rows


def _as_rows(rows: Rows, config: Config) -> Rows:
    """Blocks of MXFP4 stand as (experts, out, in), plain numbers as (experts, in, out)."""
    return rows if rows.dtype == "MXFP4" else transpose(rows, config)


def _split_gate_up(name: str, rows: Rows, config: Config) -> Iterable[Named]:
    """Gate and up alternate row by row."""
    whole = _as_rows(rows, config)
    size = whole.shape[-2]
    yield name.replace("gate_up_proj", "gate_proj.weight"), rows_of(whole, 0, size, 2)
    yield name.replace("gate_up_proj", "up_proj.weight"), rows_of(whole, 1, size, 2)


def _split_gate_up_bias(name: str, rows: Rows, config: Config) -> Iterable[Named]:
    for part, first in (("gate_proj", 0), ("up_proj", 1)):
        yield name.replace("gate_up_proj_bias", f"{part}.bias"), Columns(rows, range(first, rows.shape[-1], 2))


def _warnings(config: Config) -> Iterable[str]:
    if config.full_rope.get("truncate") is False:
        yield "the engine rounds yarn's corners, this model (truncate: false) does not: logits differ a little"


GPT_OSS = Family(
    name="gpt-oss",
    title="gpt-oss",
    architectures=("GptOssForCausalLM",),
    keys=(*DECODER_KEYS, *HEAD_WIDTHS, *windows(2), Key("expert_feed_forward_length", count("intermediate_size"))),
    rules=(
        Rule(r"(.*\.sinks)", rename=r"\1.weight"),
        Rule(r".*\.experts\.gate_up_proj", split=_split_gate_up),
        Rule(r".*\.experts\.gate_up_proj_bias", split=_split_gate_up_bias),
        Rule(r"(.*\.experts\.down_proj)", _as_rows, rename=r"\1.weight"),
        Rule(r"(.*\.experts\.down_proj)_bias", rename=r"\1.bias"),
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *QKV_BIAS, *expert_tensors(moe_width),
        Expected("blk.{block}.attn_sinks.weight", lambda c: (c.heads,)),
    ),
    defaults={
        "rope_theta": 150000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "head_dim": 64,
        "sliding_window": 128,
    },
    warnings=_warnings,
    example="openai/gpt-oss-20b",
)  # fmt: skip
