"""EXAONE 3, 3.5 and 4."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    DECODER_TENSORS,
    EMBEDDING,
    GATED_FFN,
    HEAD_WIDTHS,
    OUTPUT,
    OUTPUT_NORM,
    POST_NORMS,
    QK_NORM,
    SLIDING_WINDOW,
    VOCAB_SIZE,
    always,
    count,
    partial_rope,
    real,
)
from llamacli.families.moe import (
    EXPERT_FF,
    EXPERT_RULES,
    SHARED_COUNT,
    WEIGHTS_NORM,
    WEIGHTS_SCALE,
    expert_tensors,
    moe_width,
)
from llamacli.families.rope import llama3_rope_factors
from llamacli.formats.gguf_values import Value, ValueType, array, string, u32

EXAONE = Family(
    name="exaone",
    title="EXAONE 3, 3.5",
    architectures=("ExaoneForCausalLM",),
    keys=(
        *(key for key in DECODER_KEYS if key.name != "attention.layer_norm_epsilon"),
        *HEAD_WIDTHS,
        partial_rope(),
        # Its norms are of the root mean square, whatever the configuration calls them.
        Key("attention.layer_norm_rms_epsilon", real("layer_norm_epsilon", "rms_norm_eps")),
    ),
    expected=DECODER_TENSORS,
    extra=llama3_rope_factors,
    defaults={"rope_theta": 10000.0, "layer_norm_epsilon": 1e-5, "max_position_embeddings": 2048},
    example="LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct",
)


def _local(config: Config) -> list[bool] | None:
    """Which blocks have a window: from `layer_types`, or a pattern such as LLLG or 4."""
    if config.get("sliding_window") is None:
        return None
    if (types := config.get("layer_types")) is not None:
        return [name == "sliding_attention" for name in types]
    pattern = config.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:
        return [pattern[block % len(pattern)] == "L" for block in range(config.blocks)]
    if isinstance(pattern, int) and pattern:
        return [(block + 1) % pattern != 0 for block in range(config.blocks)]
    return None


def _pattern(config: Config) -> Value | None:
    local = _local(config)
    return None if local is None else array(ValueType.BOOL, local)


def _window_warning(config: Config) -> Iterable[str]:
    if any(_local(config) or ()) and config.blocks != 64:
        yield "the engine has EXAONE 4's sliding window only for 64 blocks: exact only up to its length"


def _routed(config: Config, block: int) -> bool:
    kinds = config.get("mlp_layer_types")
    return kinds[block] == "sparse" if kinds else block >= int(config.get("first_k_dense_replace", default=1))


def _moe_refusals(config: Config) -> Iterable[str]:
    dense = int(config.get("first_k_dense_replace", default=1))
    if any(_routed(config, block) != (block >= dense) for block in range(config.blocks)):
        yield "config.json: mlp_layer_types that are not dense in front and sparse behind are not supported"
    if not any(_local(config) or ()):
        yield "config.json: no block has a window, for which the engine's graph of this family is made"


EXAONE4 = Family(
    name="exaone4",
    title="EXAONE 4",
    architectures=("Exaone4ForCausalLM",),
    keys=(
        *DECODER_KEYS, *HEAD_WIDTHS, VOCAB_SIZE, SLIDING_WINDOW, Key("attention.sliding_window_pattern", _pattern),
    ),
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION[1:], *GATED_FFN[1:], *POST_NORMS, *QK_NORM),
    extra=llama3_rope_factors,
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048},
    warnings=_window_warning,
    example="LGAI-EXAONE/EXAONE-4.0-1.2B",
)  # fmt: skip

EXAONE_MOE = EXAONE4.override(
    name="exaone-moe",
    title="K-EXAONE",
    architectures=("ExaoneMoeForCausalLM", "ExaoneMoEForCausalLM"),
    keys=(
        *EXAONE4.keys, EXPERT_FF, SHARED_COUNT, WEIGHTS_SCALE, WEIGHTS_NORM,
        Key("expert_shared_feed_forward_length", lambda c: u32(moe_width(c) * c.integer("num_shared_experts"))),
        Key("leading_dense_block_count", count("first_k_dense_replace", "first_last_k_dense_replace")),
        Key("nextn_predict_layers", always(u32(0))),
        Key("rope.scaling.type", always(string("none"))),
    ),
    rules=(*EXPERT_RULES, Rule(r"mtp\..*", drop=True)),
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *QK_NORM, *expert_tensors(moe_width, _routed)),
    defaults={
        **EXAONE4.defaults, "sliding_window": 4096, "sliding_window_pattern": 4, "first_k_dense_replace": 1,
        "num_shared_experts": 1, "norm_topk_prob": True, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
    },
    refusals=_moe_refusals,
    warnings=lambda config: (),
    example="LGAI-EXAONE/K-EXAONE-236B-A23B",
)  # fmt: skip
