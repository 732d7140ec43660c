"""Mamba 1 and 2, and Granite 4, which has its blocks with attention in a few of them, and experts or none."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.config import CONTEXT_NAMES, Config
from llamacli.families.decoder import DECODER_KEYS, EMBEDDING, OUTPUT_NORM, always, count, real
from llamacli.families.granite import GRANITE_MOE
from llamacli.families.moe import experts
from llamacli.families.rope import partial_factor
from llamacli.families.transforms import chain, interleave_rope, squeeze
from llamacli.formats.gguf_values import Value, ValueType, array, boolean, u32
from llamacli.formats.rows import Mapped, Reshaped, Rows


def decay(rows: Rows, config: Config) -> Rows:
    """`A_log` as the factor that the engine multiplies with: -exp, rounded once."""
    return Mapped(rows, lambda values: (-np.exp(values.astype(np.float64))).astype(np.float32))


def _column(rows: Rows, config: Config) -> Rows:
    return Reshaped(rows, (*rows.shape, 1))


def _inner(config: Config) -> int:
    return int(config.get("mamba_expand", default=2)) * config.hidden


def _mixer(config: Config) -> int:
    """Width of Mamba 2's own mixer."""
    return int(config.get("d_inner", "intermediate_size", default=int(config.get("expand", default=2)) * config.hidden))


def _groups(config: Config) -> int:
    return int(config.get("mamba_n_groups", default=1))


def _by_group(rows: Rows, config: Config) -> Rows:
    return Reshaped(rows, (_groups(config), rows.shape[0] // _groups(config)))


MAMBA2_RULES = (
    Rule(r".*\.A_log", chain(_column, decay)),
    Rule(r".*\.mamba\.D", _column),
    Rule(r"(.*)\.dt_bias", rename=r"\1.dt_proj.bias"),
    Rule(r".*\.conv1d\.weight", squeeze),
    Rule(r".*\.mamba\.norm\.weight", _by_group),
)


def _attends(config: Config, block: int) -> bool:
    types, places = config.get("layer_types"), config.get("attn_layer_indices")
    if types is not None:
        return bool(types[block] in ("attention", "full_attention"))
    return places is None or block in places


def _hybrid(config: Config) -> bool:
    return not all(_attends(config, block) for block in range(config.blocks))


def _without_state_space(config: Config) -> Family | None:
    if _hybrid(config):
        return None
    return _PLAIN_MOE if experts(config) else _PLAIN


def _rotates(config: Config) -> bool:
    return bool(config.get("position_embedding_type") == "rope")


def _context(config: Config) -> Value:
    """Without positions there is no length that it was made for."""
    return u32(config.integer(*CONTEXT_NAMES) if _rotates(config) else 1 << 20)


ROPE_SWITCH = Key("rope.scaling.finetuned", lambda c: boolean(_rotates(c)))
"""By this the engine decides whether a Granite has positions."""

GRANITE_HYBRID = GRANITE_MOE.override(
    name="granitehybrid",
    title="Granite 4 hybrid",
    architectures=("GraniteMoeHybridForCausalLM",),
    keys=(
        *GRANITE_MOE.keys,
        Key("ssm.conv_kernel", count("mamba_d_conv")),
        Key("ssm.state_size", count("mamba_d_state")),
        Key("ssm.group_count", lambda c: u32(_groups(c))),
        Key("ssm.inner_size", lambda c: u32(_inner(c))),
        Key("ssm.time_step_rank", count("mamba_n_heads")),
        Key(
            "attention.head_count_kv",
            lambda c: array(ValueType.INT32, [c.kv_heads if _attends(c, block) else 0 for block in range(c.blocks)]),
        ),
        ROPE_SWITCH,
        Key("context_length", _context),
    ),
    rules=(*MAMBA2_RULES, *GRANITE_MOE.rules),
    expected=(
        *(Expected(t.name, t.shape, _attends) if "attn_" in t.name and "norm" not in t.name else t
          for t in GRANITE_MOE.expected),
        Expected("blk.{block}.ssm_in.weight", lambda c: (-1, c.hidden), lambda c, block: not _attends(c, block)),
        Expected("blk.{block}.ssm_out.weight", lambda c: (c.hidden, _inner(c)), lambda c, block: not _attends(c, block)),
    ),
    sibling=_without_state_space,
    example="ibm-granite/granite-4.0-h-tiny",
)  # fmt: skip

_STATE_KEYS = (
    Key("context_length", always(u32(1 << 20))),  # a state has no length
    Key("embedding_length", lambda c: u32(c.hidden)),
    Key("feed_forward_length", always(u32(0))),
    Key("attention.head_count", always(u32(0))),
    Key("block_count", lambda c: u32(c.blocks)),
    Key("ssm.conv_kernel", count("conv_kernel", "d_conv")),
    Key("ssm.state_size", count("state_size", "d_state")),
)
"""What models without attention share."""

MAMBA2 = Family(
    name="mamba2",
    title="Mamba 2",
    architectures=("Mamba2ForCausalLM",),
    keys=(
        *_STATE_KEYS,
        Key("ssm.inner_size", lambda c: u32(_mixer(c))),
        Key("ssm.time_step_rank", lambda c: u32(_mixer(c) // int(c.get("head_dim", default=64)))),
        Key("ssm.group_count", lambda c: u32(int(c.get("n_groups", default=1)))),
        Key("attention.layer_norm_rms_epsilon", real("layer_norm_epsilon", "rms_norm_eps")),
    ),
    rename=lambda name, config: name.removeprefix("model.") if name.startswith("model.backbone.") else name,
    rules=(
        Rule(r".*\.mixer\.(A_log)", chain(_column, decay)),
        Rule(r".*\.mixer\.D", _column),
        Rule(r"(.*)\.dt_bias", rename=r"\1.dt_proj.bias"),
        Rule(r".*\.conv1d\.weight", squeeze),
        Rule(r".*\.mixer\.norm\.weight", lambda rows, config: Reshaped(
            rows, (int(config.get("n_groups", default=1)), rows.shape[0] // int(config.get("n_groups", default=1))))),
    ),
    expected=(
        EMBEDDING, OUTPUT_NORM,
        Expected("blk.{block}.ssm_in.weight", lambda c: (-1, c.hidden)),
        Expected("blk.{block}.ssm_out.weight", lambda c: (c.hidden, _mixer(c))),
    ),
    defaults={"layer_norm_epsilon": 1e-5, "conv_kernel": 4, "state_size": 128, "tie_word_embeddings": False},
    example="mistralai/Mamba-Codestral-7B-v0.1",
)  # fmt: skip


def _rank(config: Config) -> int:
    rank = config.get("time_step_rank", "dt_rank", default="auto")
    return -(-config.hidden // 16) if rank == "auto" else int(rank)


def _width(config: Config) -> int:
    return int(config.get("intermediate_size", "d_inner", default=2 * config.hidden))


def _mamba1_refusals(config: Config) -> Iterable[str]:
    if _width(config) != 2 * config.hidden:
        yield f"config.json: a mixer of width {_width(config)} is not computed by the engine, only twice hidden_size"


MAMBA1 = Family(
    name="mamba",
    title="Mamba, Falcon Mamba",
    architectures=("MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM"),
    keys=(
        *_STATE_KEYS,
        Key("ssm.inner_size", lambda c: u32(_width(c))),
        Key("ssm.time_step_rank", lambda c: u32(_rank(c))),
        Key("attention.layer_norm_rms_epsilon", real("layer_norm_epsilon", "rms_norm_eps")),
        Key("ssm.dt_b_c_rms", lambda c: boolean(c.get("model_type") == "falcon_mamba")),
    ),
    rules=(Rule(r".*\.A_log", decay), Rule(r".*\.conv1d\.weight", squeeze)),
    expected=(
        EMBEDDING, OUTPUT_NORM,
        Expected("blk.{block}.ssm_in.weight", lambda c: (2 * _width(c), c.hidden)),
        Expected("blk.{block}.ssm_out.weight", lambda c: (c.hidden, _width(c))),
    ),
    defaults={"layer_norm_epsilon": 1e-5, "conv_kernel": 4, "state_size": 16, "tie_word_embeddings": True},
    refusals=_mamba1_refusals,
    example="tiiuae/falcon-mamba-7b-instruct",
)  # fmt: skip

_PLAIN_MOE = GRANITE_MOE.override(
    title="Granite 4 MoE without state space", architectures=(), keys=(*GRANITE_MOE.keys, ROPE_SWITCH),
    example="ibm-granite/granite-4.0-micro",
)  # fmt: skip
_PLAIN = _PLAIN_MOE.override(name="granite", title="Granite 4 without state space")

BAMBA = GRANITE_HYBRID.override(
    title="Bamba",
    architectures=("BambaForCausalLM",),
    keys=(
        *(key for key in GRANITE_HYBRID.keys if key.name not in ("context_length", "rope.scaling.finetuned")),
        *(key for key in DECODER_KEYS if key.name == "context_length"),
        Key("rope.scaling.finetuned", lambda c: boolean(True)),
        Key("rope.dimension_count", lambda c: u32(int(c.head_dim * partial_factor(c, 0.5)))),
    ),
    sibling=lambda c: None,
    rules=(
        Rule(r".*\.q_proj\.(weight|bias)", interleave_rope(lambda c: c.heads, lambda c: partial_factor(c, 0.5))),
        Rule(r".*\.k_proj\.(weight|bias)", interleave_rope(lambda c: c.kv_heads, lambda c: partial_factor(c, 0.5))),
        *GRANITE_HYBRID.rules,
    ),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 262144, "num_key_value_heads": 8},
    example="ibm-ai-platform/Bamba-9B-v2",
)
