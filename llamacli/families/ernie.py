"""ERNIE 4.5, dense and with experts."""

from __future__ import annotations

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import ATTENTION, DECODER_KEYS, DECODER_TENSORS, EMBEDDING, OUTPUT, OUTPUT_NORM, count
from llamacli.families.moe import EXPERT_FF, EXPERT_RULES, moe_width
from llamacli.formats.gguf_values import Value, u32

ERNIE4_5 = Family(
    name="ernie4_5",
    title="ERNIE 4.5",
    architectures=("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
    keys=DECODER_KEYS,
    expected=DECODER_TENSORS,
    defaults={
        "tie_word_embeddings": True, "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072,
    },
    example="baidu/ERNIE-4.5-0.3B-PT",
)  # fmt: skip


def _experts(config: Config) -> int:
    return config.integer("moe_num_experts")


def _routed(config: Config, block: int) -> bool:
    first, last = config.integer("moe_layer_start_index"), int(config.get("moe_layer_end_index", default=-1))
    return (
        first <= block <= (last if last >= 0 else config.blocks) and block % config.integer("moe_layer_interval") == 0
    )


def _shared_width(config: Config) -> Value | None:
    shared = config.get("moe_num_shared_experts", default=0)
    return u32(moe_width(config) * shared) if shared else None


ERNIE4_5_MOE = ERNIE4_5.override(
    name="ernie4_5-moe",
    title="ERNIE 4.5 MoE",
    architectures=("Ernie4_5_MoeForCausalLM",),
    keys=(
        *DECODER_KEYS,
        Key("expert_count", count("moe_num_experts")),
        Key("expert_used_count", count("moe_k")),
        Key("interleave_moe_layer_step", count("moe_layer_interval")),
        Key("leading_dense_block_count", count("moe_layer_start_index")),
        EXPERT_FF,
        Key("expert_shared_count", count("moe_num_shared_experts")),
        Key("expert_shared_feed_forward_length", _shared_width),
    ),
    rules=(
        Rule(r"model\.mtp_.*", drop=True),
        Rule(r"(.*\.mlp)\.moe_statics\.e_score_correction_bias", rename=r"\1.moe_statics.e_score_correction.bias"),
        Rule(EXPERT_RULES[0].pattern, stack=EXPERT_RULES[0].stack, stack_size=_experts),
        *EXPERT_RULES[1:],
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION,
        Expected("blk.{block}.ffn_gate_inp.weight", lambda c: (_experts(c), c.hidden), _routed),
        Expected("blk.{block}.ffn_gate_exps.weight", lambda c: (_experts(c), moe_width(c), c.hidden), _routed),
    ),
    example="baidu/ERNIE-4.5-21B-A3B-PT",
)  # fmt: skip

PADDLE_OCR = ERNIE4_5.override(
    name="paddleocr",
    title="PaddleOCR-VL",
    architectures=("PaddleOCRVLForConditionalGeneration",),
    defaults={**ERNIE4_5.defaults, "head_dim": 128, "num_key_value_heads": 2},
    example="PaddlePaddle/PaddleOCR-VL",
)
