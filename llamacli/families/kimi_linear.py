"""Kimi Linear: delta attention with a short convolution on queries, keys and values; latent attention in every fourth block."""

from __future__ import annotations

from collections.abc import Callable

from llamacli.families.base import Expected, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import EMBEDDING, OUTPUT, OUTPUT_NORM, count
from llamacli.families.deepseek import DEEPSEEK2
from llamacli.families.mamba import decay
from llamacli.families.moe import expert_tensors, moe_width
from llamacli.formats.gguf_values import Value, ValueType, array, u32
from llamacli.formats.rows import Reshaped, Rows


def _full(config: Config, block: int) -> bool:
    """Blocks are counted from one in the published configuration; transformers 5 names each block's kind."""
    places = (config.get("linear_attn_config", default={}) or {}).get("full_attn_layers")
    if places is not None:
        return block + 1 in places
    return bool(config.get("layer_types")[block] == "full_attention")


def _linear(name: str, later: str) -> Callable[[Config], int]:
    return lambda config: int((config.get("linear_attn_config", default={}) or {}).get(name) or config.integer(later))


_HEAD_DIM = _linear("head_dim", "linear_head_dim")
_CONVOLUTION = _linear("short_conv_kernel_size", "linear_conv_kernel_dim")


def _routed(config: Config, block: int) -> bool:
    return block >= int(config.get("first_k_dense_replace", default=1))


def _groups(config: Config) -> Value | None:
    """Left out where all experts are one group."""
    groups = int(config.get("num_expert_group", "n_group", default=1))
    return u32(groups) if groups > 1 else None


def _convolution(rows: Rows, config: Config) -> Rows:
    return Reshaped(rows, (1, rows.shape[0], 1, rows.shape[-1]))


KIMI_LINEAR = DEEPSEEK2.override(
    name="kimi-linear",
    title="Kimi Linear",
    architectures=("KimiLinearForCausalLM", "KimiLinearModel"),
    keys=(
        *(key for key in DEEPSEEK2.keys if key.name not in ("attention.value_length", "expert_weights_norm")),
        Key("attention.value_length", count("head_dim")),
        Key("attention.head_count_kv", lambda c: array(ValueType.INT32, [int(_full(c, b)) for b in range(c.blocks)])),
        Key("ssm.conv_kernel", lambda c: u32(_CONVOLUTION(c))),
        Key("kda.head_dim", lambda c: u32(_HEAD_DIM(c))),
        Key("leading_dense_block_count", count("first_k_dense_replace")),
        Key("expert_shared_count", count("num_shared_experts", "n_shared_experts")),
        Key("expert_group_count", _groups),
    ),
    rules=(
        Rule(r".*\.[qkv]_conv1d\.weight", _convolution),
        Rule(r".*\.A_log", decay),
        Rule(r"(.*)\.dt_bias", rename=r"\1.dt_proj.bias"),
        Rule(r"(.*)\.block_sparse_moe\.((gate|up|down)_proj\.weight)", rename=r"\1.mlp.\2"),
        Rule(
            r"(?P<stem>.*\.block_sparse_moe\.experts)\.(?P<expert>\d+)\.(?P<part>w[123])\.weight",
            stack=r"\g<stem>.\g<part>.weight",
        ),
        *DEEPSEEK2.rules,
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM,
        Expected("blk.{block}.attn_k_b.weight", lambda c: (c.heads, c.integer("kv_lora_rank"), c.integer("qk_nope_head_dim")),
                 _full),
        Expected("blk.{block}.attn_q.weight", lambda c: (-1, c.hidden)),
        *expert_tensors(moe_width, _routed),
    ),
    defaults={
        "rms_norm_eps": 1e-5, "max_position_embeddings": 1048576, "num_shared_experts": 1, "first_k_dense_replace": 1,
        "routed_scaling_factor": 2.446, "scoring_func": "sigmoid", "kv_lora_rank": 512, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "v_head_dim": 128, "rope_theta": 10000.0,
    },
    warnings=lambda config: (),
    fixed={"norm_topk_prob": True, "moe_renormalize": True},
    example="moonshotai/Kimi-Linear-48B-A3B-Instruct",
)  # fmt: skip
