"""MiniMax M2: queries and keys normalised over their full width, sigmoid routing with a bias, half of each head rotated."""

from __future__ import annotations

from llamacli.families.base import Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import ATTENTION, DECODER_KEYS, EMBEDDING, HEAD_WIDTHS, OUTPUT, OUTPUT_NORM, count
from llamacli.families.moe import expert_tensors, moe_width
from llamacli.families.olmo import FULL_WIDTH_QK_NORM
from llamacli.formats.gguf_values import Value, u32


def _rotated(config: Config) -> Value | None:
    """The part of a head that transformers 5 says, or the width that published configurations have."""
    factor, width = config.full_rope.get("partial_rotary_factor"), config.get("rotary_dim")
    return u32(int(config.head_dim * factor)) if factor is not None else None if width is None else u32(width)


MINIMAX_M2 = Family(
    name="minimax-m2",
    title="MiniMax M2",
    architectures=("MiniMaxM2ForCausalLM",),
    keys=(
        *DECODER_KEYS, *HEAD_WIDTHS,
        Key("expert_feed_forward_length", count("intermediate_size")),
        Key("rope.dimension_count", _rotated),
    ),
    rules=(
        Rule(
            r"(?P<stem>.*\.block_sparse_moe\.experts)\.(?P<expert>\d+)\.(?P<part>w[123])\.weight",
            stack=r"\g<stem>.\g<part>.weight",
        ),
        Rule(r"(.*\.block_sparse_moe\.e_score_correction)_bias", rename=r"\1.bias"),
    ),
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *FULL_WIDTH_QK_NORM, *expert_tensors(moe_width)),
    defaults={"rope_theta": 5e6, "rms_norm_eps": 1e-6, "max_position_embeddings": 196608, "head_dim": 128,
              "scoring_func": "sigmoid"},
    example="MiniMaxAI/MiniMax-M2",
)  # fmt: skip
