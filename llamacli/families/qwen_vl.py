"""The language models of Qwen 2-VL, 2.5-VL and 3-VL: Qwen's blocks with a rope in three sections."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Family, Key, Named, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import DECODER_KEYS
from llamacli.families.moe import EXPERT_RULES, moe_width
from llamacli.families.qwen2 import QWEN2
from llamacli.families.qwen3 import QWEN3
from llamacli.families.qwen3_moe import QWEN3_MOE
from llamacli.families.transforms import split_gate_up, transpose
from llamacli.formats.gguf_values import Value, u32
from llamacli.formats.rows import Rows

QWEN2_VL = QWEN2.override(
    name="qwen2vl",
    title="Qwen 2-VL, 2.5-VL, 2.5-Omni",
    architectures=(
        "Qwen2VLForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen2_5OmniModel",
        "Qwen2_5OmniForConditionalGeneration",
        "Qwen2_5OmniThinkerForConditionalGeneration",
    ),
    keys=DECODER_KEYS,
    example="Qwen/Qwen2.5-VL-7B-Instruct",
)


def _deep_layers(config: Config) -> Value:
    """How many blocks take in what the vision tower saw deeper down."""
    return u32(len((config.wrapper.get("vision_config") or {}).get("deepstack_visual_indexes", [])))


DEEPSTACK = Key("n_deepstack_layers", _deep_layers)


def _without_pooling(family: Family) -> tuple[Key, ...]:
    return tuple(key for key in family.keys if key.name != "pooling_type")


QWEN3_VL = QWEN3.override(
    name="qwen3vl",
    title="Qwen 3-VL",
    architectures=("Qwen3VLForConditionalGeneration",),
    keys=(*_without_pooling(QWEN3), DEEPSTACK),
    example="Qwen/Qwen3-VL-8B-Instruct",
)


def _in_rows(rows: Rows, config: Config, height: int) -> Rows:
    """A stack as (experts, out, in), whichever of the two orders it has: both are shipped."""
    return rows if rows.shape[-2] == height and rows.shape[-1] != height else transpose(rows, config)


def _gate_up(name: str, rows: Rows, config: Config) -> Iterable[Named]:
    return split_gate_up(name, _in_rows(rows, config, 2 * moe_width(config)), config)


def _down(rows: Rows, config: Config) -> Rows:
    return _in_rows(rows, config, config.hidden)


QWEN3_VL_MOE = QWEN3_MOE.override(
    name="qwen3vlmoe",
    title="Qwen 3-VL MoE, Qwen 3-Omni",
    architectures=(
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3OmniMoeForConditionalGeneration",
        "Qwen3OmniMoeThinkerForConditionalGeneration",
    ),
    keys=(*QWEN3_MOE.keys, DEEPSTACK),
    rules=(
        Rule(r".*\.mlp\.experts\.gate_up_proj(\.weight)?", split=_gate_up),
        Rule(r"(.*\.mlp\.experts\.down_proj)(\.weight)?", _down, rename=r"\1.weight"),
        *EXPERT_RULES,
    ),
    example="Qwen/Qwen3-VL-30B-A3B-Instruct",
)
