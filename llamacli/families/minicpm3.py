"""MiniCPM 3: latent attention that is not absorbed, with MiniCPM's scales fixed in the engine."""

from __future__ import annotations

from llamacli.families.base import Expected, Family, Key
from llamacli.families.config import Config
from llamacli.families.decoder import DECODER_KEYS, EMBEDDING, GATED_FFN, OUTPUT, OUTPUT_NORM, VOCAB_SIZE, count
from llamacli.families.deepseek import key_width
from llamacli.families.phi3 import long_rope_factors
from llamacli.families.rope import is_long_rope
from llamacli.formats.gguf_values import Value, u32

_DECODER_KEYS = tuple(
    key for key in DECODER_KEYS if key.name == "rope.freq_base" or not key.name.startswith(("rope.", "attention.value"))
)


def _value_width(config: Config) -> Value | None:
    """Left out where it is what the engine assumes."""
    width = config.get("v_head_dim")
    return None if width in (None, config.hidden // config.heads) else u32(width)


MINICPM3 = Family(
    name="minicpm3",
    title="MiniCPM 3",
    architectures=("MiniCPM3ForCausalLM",),
    keys=(
        *_DECODER_KEYS, VOCAB_SIZE,
        Key("attention.q_lora_rank", count("q_lora_rank")),
        Key("attention.kv_lora_rank", count("kv_lora_rank")),
        Key("attention.key_length", lambda c: u32(key_width(c))),
        Key("attention.value_length", _value_width),
        Key("rope.dimension_count", count("qk_rope_head_dim")),
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *GATED_FFN,
        Expected("blk.{block}.attn_q_b.weight", lambda c: (c.heads * key_width(c), c.integer("q_lora_rank"))),
        Expected("blk.{block}.attn_kv_b.weight", lambda c: (-1, c.integer("kv_lora_rank"))),
    ),
    extra=lambda config: long_rope_factors(config) if is_long_rope(config) else (),
    defaults={
        "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 32768, "tie_word_embeddings": True,
        "q_lora_rank": 768, "kv_lora_rank": 256, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32,
    },
    fixed={"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 256},
    example="openbmb/MiniCPM3-4B",
)  # fmt: skip
