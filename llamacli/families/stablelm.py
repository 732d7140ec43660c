"""StableLM 2 and 3B: layer norms with biases, a quarter of each head rotated, norms per head in the 12B model."""

from __future__ import annotations

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    GATED_FFN,
    OUTPUT,
    OUTPUT_NORM,
    flag,
    partial_rope,
)
from llamacli.families.gptneox import THETA


def _has_ffn_norm(config: Config, block: int) -> bool:
    return not config.get("use_parallel_residual", default=False)


STABLELM = Family(
    name="stablelm",
    title="StableLM",
    architectures=("StableLmForCausalLM", "StableLMEpochForCausalLM"),
    keys=(
        *(key for key in DECODER_KEYS if key.name != "rope.freq_base"),
        THETA,
        partial_rope(0.25),
        Key("use_parallel_residual", flag("use_parallel_residual")),
    ),
    rules=(
        Rule(
            r"(?P<stem>.*\.self_attn\.(?P<part>[qk])_layernorm)\.norms\.(?P<expert>\d+)\.weight",
            stack=r"\g<stem>.weight",
            stack_size=lambda config: None,
        ),
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *GATED_FFN[1:],
        Expected("blk.{block}.ffn_norm.weight", lambda c: (c.hidden,), _has_ffn_norm),
        Expected("blk.{block}.attn_q_norm.weight", lambda c: (c.heads, c.head_dim),
                 lambda c, block: c.get("qk_layernorm", default=False)),
        Expected("blk.{block}.attn_k_norm.weight", lambda c: (c.kv_heads, c.head_dim),
                 lambda c, block: c.get("qk_layernorm", default=False)),
    ),
    defaults={
        "rope_theta": 10000.0, "layer_norm_eps": 1e-5, "max_position_embeddings": 4096, "use_parallel_residual": False,
    },
    example="stabilityai/stablelm-2-1_6b-chat",
)  # fmt: skip
