"""Qwen 3-Next and 3.5: three blocks with a gated delta rule to one with gated attention; dense or with experts.

Heads of the delta rule's values are grouped by key head in the checkpoint. The engine repeats keys as (k0, k1, ..., k0, k1,
...), so that Qwen 3.5's value heads are written in that order; Qwen 3-Next's fused matrices are taken as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from llamacli.families.base import Expected, Family, Key, Named, Rule, Transform, with_further_blocks
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    GATED_FFN,
    HEAD_WIDTHS,
    OUTPUT,
    OUTPUT_NORM,
    QK_NORM,
    count,
    partial_rope,
)  # fmt: skip
from llamacli.families.mamba import decay
from llamacli.families.moe import EXPERT_FF, EXPERT_RULES, SHARED_FF, expert_tensors, moe_width
from llamacli.families.transforms import add_one, by_rows, chain, pick_columns, regroup, squeeze
from llamacli.formats.gguf_values import Value, ValueType, array, u32
from llamacli.formats.rows import RowRuns, Rows

Runs = Callable[[Config], Iterable[tuple[int, int]]]


def _key_heads(config: Config) -> int:
    return config.integer("linear_num_key_heads")


def _value_heads(config: Config) -> int:
    return config.integer("linear_num_value_heads")


def _key_rows(config: Config) -> int:
    return config.integer("linear_key_head_dim") * _key_heads(config)


def _value_rows(config: Config) -> int:
    return config.integer("linear_value_head_dim") * _value_heads(config)


# -- value heads from grouped to tiled order ---------------------------------------------------------------------------


def _tiled(width: Callable[[Config], int], first: Callable[[Config], int] = lambda config: 0) -> Runs:
    """Runs of value heads of `width` rows that start at row `first`; what stands before stays."""

    def runs(config: Config) -> Iterable[tuple[int, int]]:
        keys, start, rows = _key_heads(config), first(config), width(config)
        each = _value_heads(config) // keys
        if start:
            yield 0, start
        yield from ((start + (key * each + value) * rows, rows) for value in range(each) for key in range(keys))

    return runs


def _head_width(config: Config) -> int:
    return config.integer("linear_value_head_dim")


_AFTER_KEYS = _tiled(_head_width, lambda config: 2 * _key_rows(config))
_HEADS = _tiled(lambda config: 1)


def _tiled_columns(config: Config) -> Iterable[int]:
    return (column for start, width in _tiled(_head_width)(config) for column in range(start, start + width))


def _delta_rules(order: Callable[[Runs], Transform], columns: Transform) -> tuple[Rule, ...]:
    return (
        *_FURTHER,
        Rule(r".*\.linear_attn\.A_log", chain(order(_HEADS), decay)),
        Rule(r"(.*\.linear_attn)\.dt_bias", order(_HEADS), rename=r"\1.dt_proj.bias"),
        Rule(r".*\.linear_attn\.conv1d\.weight", chain(squeeze, order(_AFTER_KEYS))),
        Rule(r".*\.linear_attn\.in_proj_qkv\.weight", order(_AFTER_KEYS)),
        Rule(r".*\.linear_attn\.in_proj_z\.weight", order(_tiled(_head_width))),
        Rule(r".*\.linear_attn\.in_proj_[ab]\.weight", order(_HEADS)),
        Rule(r".*\.linear_attn\.out_proj\.weight", columns),
        Rule(r".*\.linear_attn\.norm\.weight"),
        Rule(r".*norm\.weight", add_one),
    )


def _split_qkvz(name: str, rows: Rows, config: Config) -> Iterable[Named]:
    """Groups of (q, k, values, gates), one for each key head, as all q, all k, all values; and all gates."""
    key, groups = config.integer("linear_key_head_dim"), _key_heads(config)
    values = _value_rows(config) // groups
    size = 2 * key + 2 * values

    def runs(first: int, width: int) -> list[tuple[int, int]]:
        return [(group * size + first, width) for group in range(groups)]

    fused = (*runs(0, key), *runs(key, key), *runs(2 * key, values))
    yield name.replace("in_proj_qkvz", "in_proj_qkv"), by_rows(lambda m: RowRuns(m, fused), rows)
    gates = tuple(runs(2 * key + values, values))
    yield name.replace("in_proj_qkvz", "in_proj_z"), by_rows(lambda m: RowRuns(m, gates), rows)


# -- blocks that predict further tokens ---------------------------------------------------------------------------------

_MTP = {"fc": "eh_proj", "pre_fc_norm_embedding": "enorm", "pre_fc_norm_hidden": "hnorm", "norm": "shared_head_norm"}
_FURTHER = (
    Rule(r"model\.layers\.(\d+)\.(eh_proj)\.weight", rename=r"blk.\1.nextn.\2.weight"),
    Rule(r"model\.layers\.(\d+)\.(enorm|hnorm|shared_head_norm)\.weight", add_one, rename=r"blk.\1.nextn.\2.weight"),
)


def _number_on(name: str, config: Config) -> str:
    """`mtp.layers.0.x` as the block after the last."""
    name = re.sub(r"^model\.mtp\.", "mtp.", name)
    if match := re.fullmatch(r"mtp\.layers\.(\d+)\.(.*)", name):
        return f"model.layers.{config.blocks + int(match[1])}.{match[2]}"
    if match := re.fullmatch(r"mtp\.(\w+)\.(\w+)", name):
        return f"model.layers.{config.blocks}.{_MTP.get(match[1], match[1])}.{match[2]}"
    return name


# -- metadata -------------------------------------------------------------------------------------------------------------


def _attends(config: Config, block: int) -> bool:
    types = config.get("layer_types")
    if types is not None:
        return bool(types[block] == "full_attention")
    return (block + 1) % int(config.get("full_attention_interval", default=4)) == 0


def _recurrent(config: Config) -> Value:
    flags = [not _attends(config, block) for block in range(config.blocks)]
    return array(ValueType.BOOL, flags + [False] * (with_further_blocks(config) - config.blocks))


def _further(config: Config) -> Value | None:
    further = with_further_blocks(config) - config.blocks
    return u32(further) if further else None


def _sections(config: Config) -> Value:
    sections = config.rope.get("mrope_section") or [11, 11, 10]
    return array(ValueType.INT32, [*sections, 0, 0, 0, 0][:4])


def _refusals(config: Config) -> Iterable[str]:
    """What the engine's graph takes for granted."""
    if all(_attends(config, block) for block in range(config.blocks)):
        yield "config.json: no block has a delta rule, for which the engine's graph of this family is made"
    keys, values = config.integer("linear_key_head_dim"), config.integer("linear_value_head_dim")
    if keys != values:
        yield f"config.json: linear_key_head_dim {keys} and linear_value_head_dim {values} are one width to the engine"


KEYS = (
    *DECODER_KEYS, *HEAD_WIDTHS,
    Key("block_count", lambda c: u32(with_further_blocks(c))),
    Key("nextn_predict_layers", _further),
    Key("ssm.conv_kernel", count("linear_conv_kernel_dim")),
    Key("ssm.state_size", count("linear_key_head_dim")),
    Key("ssm.group_count", count("linear_num_key_heads")),
    Key("ssm.time_step_rank", count("linear_num_value_heads")),
    Key("ssm.inner_size", lambda c: u32(_value_rows(c))),
    Key("attention.recurrent_layers", _recurrent),
    Key("full_attention_interval", lambda c: u32(c.get("full_attention_interval", default=4))),
    partial_rope(0.25),
)  # fmt: skip


def _delta(config: Config, block: int) -> bool:
    return not _attends(config, block)


TENSORS = (
    EMBEDDING, OUTPUT, OUTPUT_NORM, ATTENTION[0],
    Expected("blk.{block}.attn_q.weight", lambda c: (2 * c.heads * c.head_dim, c.hidden), _attends),  # with its gate
    *(Expected(tensor.name, tensor.shape, _attends) for tensor in (*ATTENTION[2:], *QK_NORM)),
    Expected("blk.{block}.post_attention_norm.weight", lambda c: (c.hidden,)),
    Expected("blk.{block}.attn_qkv.weight", lambda c: (2 * _key_rows(c) + _value_rows(c), c.hidden), _delta),
    Expected("blk.{block}.attn_gate.weight", lambda c: (_value_rows(c), c.hidden), _delta),
    Expected("blk.{block}.ssm_a", lambda c: (_value_heads(c),), _delta),
    Expected("blk.{block}.ssm_dt.bias", lambda c: (_value_heads(c),), _delta),
    Expected("blk.{block}.ssm_out.weight", lambda c: (c.hidden, _value_rows(c)), _delta),
)  # fmt: skip
DEFAULTS = {
    "rope_theta": 1e7, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "head_dim": 256,
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
}  # fmt: skip


def _as_it_is(runs: Runs) -> Transform:
    return lambda rows, config: rows


QWEN3_NEXT = Family(
    name="qwen3next",
    title="Qwen 3-Next",
    architectures=("Qwen3NextForCausalLM",),
    keys=(*KEYS, EXPERT_FF, SHARED_FF),
    rename=_number_on,
    rules=(
        *EXPERT_RULES,
        Rule(r".*\.linear_attn\.in_proj_qkvz\.weight", split=_split_qkvz),
        *_delta_rules(_as_it_is, lambda rows, config: rows),
    ),
    expected=(*TENSORS, *expert_tensors(moe_width)),
    defaults=DEFAULTS,
    blocks=with_further_blocks,
    refusals=_refusals,
    fixed={"norm_topk_prob": True},
    example="Qwen/Qwen3-Next-80B-A3B-Instruct",
)

QWEN3_5 = QWEN3_NEXT.override(
    name="qwen35",
    title="Qwen 3.5",
    architectures=("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
    keys=(*KEYS, Key("rope.dimension_sections", _sections)),
    rules=_delta_rules(regroup, pick_columns(_tiled_columns)),
    expected=(*TENSORS, *GATED_FFN[1:]),
    example="Qwen/Qwen3.5-9B",
)

QWEN3_5_MOE = QWEN3_5.override(
    name="qwen35moe",
    title="Qwen 3.5 MoE",
    architectures=("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
    keys=(*QWEN3_5.keys, EXPERT_FF, SHARED_FF),
    rules=(*EXPERT_RULES, *QWEN3_5.rules),
    expected=(*TENSORS, *expert_tensors(moe_width)),
    example="Qwen/Qwen3.5-35B-A3B",
)
