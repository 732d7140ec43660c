"""Nemotron-H and Nemotron 3 Nano: each block is a Mamba 2 mixer, attention, a network or experts, one of them alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import DECODER_KEYS, EMBEDDING, HEAD_WIDTHS, OUTPUT, OUTPUT_NORM, VOCAB_SIZE, count, real
from llamacli.families.llama import INTERLEAVED_QK
from llamacli.families.mamba import decay
from llamacli.families.moe import EXPERT_FF, SHARED_COUNT, WEIGHTS_NORM, WEIGHTS_SCALE, experts
from llamacli.families.transforms import chain, squeeze
from llamacli.formats.gguf_values import Value, ValueType, array, boolean, u32
from llamacli.formats.rows import Reshaped, Rows

_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_NAMES = {"linear_attention": "mamba", "full_attention": "attention"}


def _kinds(config: Config) -> list[str]:
    """What each block is: from letters (`M-M*`), or a list of names."""
    pattern = config.get("hybrid_override_pattern", "layers_block_type", "layer_types", default="")
    if isinstance(pattern, str):
        return [_LETTERS.get(letter, letter) for letter in pattern]
    return [_NAMES.get(name, name) for name in pattern]


def _is(kind: str) -> Callable[[Config, int], bool]:
    return lambda config, block: _kinds(config)[block] == kind


def _inner(config: Config) -> int:
    return config.integer("mamba_num_heads") * config.integer("mamba_head_dim")


def _per_block(kind: str, *names: str) -> Callable[[Config], Value]:
    """A number for blocks of one kind, 0 for the others."""

    def value(config: Config) -> Value:
        number = int(config.get(*names, default=0))
        return array(ValueType.INT32, [number if found == kind else 0 for found in _kinds(config)])

    return value


def _column(rows: Rows, config: Config) -> Rows:
    return Reshaped(rows, (rows.shape[0], 1))


def _by_group(rows: Rows, config: Config) -> Rows:
    return Reshaped(rows, (config.integer("n_groups"), rows.shape[0] // config.integer("n_groups")))


def _with_experts(config: Config) -> Family | None:
    return NEMOTRON_H_MOE if "moe" in _kinds(config) else None


def _refusals(config: Config) -> Iterable[str]:
    unknown = set(_kinds(config)) - set(_LETTERS.values())
    if unknown or not _kinds(config):
        yield f"config.json: a Nemotron-H with blocks of kind {', '.join(sorted(unknown)) or 'none'} is not supported"
    elif "mamba" not in _kinds(config):
        yield "config.json: no block is a Mamba mixer, for which the engine's graph of this family is made"


NEMOTRON_H = Family(
    name="nemotron_h",
    title="Nemotron-H, Nemotron Nano 2",
    architectures=("NemotronHForCausalLM",),
    keys=(
        *(key for key in DECODER_KEYS if not key.name.startswith("expert_")), *HEAD_WIDTHS, VOCAB_SIZE,
        Key("rope.dimension_count", lambda c: u32(c.head_dim)),
        Key("attention.layer_norm_epsilon", real("layer_norm_epsilon")),
        Key("attention.layer_norm_rms_epsilon", real("layer_norm_epsilon", "rms_norm_eps")),
        Key("attention.head_count_kv", _per_block("attention", "num_key_value_heads")),
        Key("feed_forward_length", _per_block("mlp", "intermediate_size")),
        Key("ssm.conv_kernel", count("conv_kernel")),
        Key("ssm.state_size", count("ssm_state_size")),
        Key("ssm.group_count", count("n_groups")),
        Key("ssm.inner_size", lambda c: u32(_inner(c))),
        Key("ssm.time_step_rank", count("mamba_num_heads")),
        Key("rope.scaling.finetuned", lambda c: boolean(False)),
        Key("context_length", lambda c: u32(1 << 20)),  # a state has no length
    ),
    sibling=_with_experts,
    rename=lambda name, config: name.replace("model.", "backbone.", 1) if name.startswith("model.") else name,
    rules=(
        *INTERLEAVED_QK,
        Rule(r"mtp\..*", drop=True),
        Rule(r".*\.mixer\.A_log", chain(_column, decay)),
        Rule(r".*\.mixer\.D", _column),
        Rule(r"(.*\.mixer)\.dt_bias", rename=r"\1.dt_proj.bias"),
        Rule(r".*\.conv1d\.weight", squeeze),
        Rule(r".*\.mixer\.norm\.weight", _by_group),
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM,
        Expected("blk.{block}.attn_norm.weight", lambda c: (c.hidden,)),
        Expected("blk.{block}.ssm_out.weight", lambda c: (c.hidden, _inner(c)), _is("mamba")),
        Expected("blk.{block}.attn_q.weight", lambda c: (c.heads * c.head_dim, c.hidden), _is("attention")),
        Expected("blk.{block}.ffn_up.weight", lambda c: (c.integer("intermediate_size"), c.hidden), _is("mlp")),
    ),
    defaults={
        "layer_norm_epsilon": 1e-5, "max_position_embeddings": 4096, "num_key_value_heads": 8, "head_dim": 128,
        "ssm_state_size": 128, "mamba_num_heads": 128, "mamba_head_dim": 64, "n_groups": 8, "conv_kernel": 4,
    },
    refusals=_refusals,
    fixed={"mamba_hidden_act": "silu"},
    example="nvidia/NVIDIA-Nemotron-Nano-9B-v2",
)  # fmt: skip

NEMOTRON_H_MOE = NEMOTRON_H.override(
    name="nemotron_h_moe",
    title="Nemotron 3 Nano, Super",
    architectures=(),
    sibling_of=("NemotronHForCausalLM",),
    keys=(
        *NEMOTRON_H.keys, *(key for key in DECODER_KEYS if key.name.startswith("expert_")),
        EXPERT_FF, SHARED_COUNT, WEIGHTS_NORM, WEIGHTS_SCALE,
        Key("feed_forward_length", _per_block("moe", "moe_intermediate_size")),
        Key("expert_shared_feed_forward_length", count("moe_shared_expert_intermediate_size")),
        Key("moe_latent_size", count("moe_latent_size")),
    ),
    sibling=lambda config: None,
    rules=(
        *NEMOTRON_H.rules,
        Rule(r"(.*\.e_score_correction)_bias", rename=r"\1.bias"),
        Rule(
            r"backbone(?P<stem>\.layers\.\d+)\.mixer\.experts\.(?P<expert>\d+)\.(?P<part>(up|down)_proj)\.weight",
            stack=r"model\g<stem>.mlp.experts.\g<part>.weight",
        ),
        Rule(r"backbone(\.layers\.\d+)\.mixer\.experts\.((up|down)_proj)", rename=r"model\1.mlp.experts.\2.weight"),
    ),
    expected=(
        *NEMOTRON_H.expected,
        Expected("blk.{block}.ffn_gate_inp.weight", lambda c: (experts(c), c.hidden), _is("moe")),
        Expected("blk.{block}.ffn_up_exps.weight", lambda c: (experts(c), c.integer("moe_intermediate_size"), -1),
                 _is("moe")),
    ),
    defaults={
        **NEMOTRON_H.defaults, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1,
        "topk_group": 1, "norm_topk_prob": True, "routed_scaling_factor": 1.0,
    },
    example="nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
)  # fmt: skip
