"""Jamba: Mamba 1 blocks with norms inside, one in eight with attention and no rope, experts in every other."""

from __future__ import annotations

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import DECODER_KEYS, EMBEDDING, OUTPUT, OUTPUT_NORM, count, real
from llamacli.families.mamba import decay
from llamacli.families.moe import experts
from llamacli.families.transforms import split_gate_up, squeeze
from llamacli.formats.gguf_values import ValueType, array, u32


def _attends(config: Config, block: int) -> bool:
    offset, period = config.integer("attn_layer_offset"), config.integer("attn_layer_period")
    return block % period == offset


def _routed(config: Config, block: int) -> bool:
    offset, period = config.integer("expert_layer_offset"), config.integer("expert_layer_period")
    return experts(config) > 1 and block % period == offset


def _rank(config: Config) -> int:
    rank = config.get("mamba_dt_rank", default="auto")
    return -(-config.hidden // 16) if rank == "auto" else int(rank)


def _lone_expert(name: str, config: Config) -> str:
    """Blocks without routing may call their network the only expert; Mini-Jamba calls it moe."""
    name = name.replace(".moe.", ".feed_forward.").replace(".feed_forward.experts.", ".mlp.experts.")
    block = int(name.split(".")[2]) if name.startswith("model.layers.") else 0
    return name if _routed(config, block) else name.replace(".mlp.experts.0.", ".feed_forward.")


JAMBA = Family(
    name="jamba",
    title="Jamba",
    architectures=("JambaForCausalLM",),
    keys=(
        *(key for key in DECODER_KEYS if not key.name.startswith("rope.")),
        Key("attention.head_count_kv", lambda c: array(
            ValueType.INT32, [c.kv_heads if _attends(c, block) else 0 for block in range(c.blocks)])),
        Key("ssm.conv_kernel", count("mamba_d_conv")),
        Key("ssm.inner_size", lambda c: u32(2 * c.hidden)),
        Key("ssm.state_size", count("mamba_d_state")),
        Key("ssm.time_step_rank", lambda c: u32(_rank(c))),
        Key("attention.layer_norm_rms_epsilon", real("layer_norm_epsilon", "rms_norm_eps")),
    ),
    rename=_lone_expert,
    rules=(
        Rule(
            r"(?P<stem>.*\.mlp\.experts)\.(?P<expert>\d+)\.(?P<part>(gate|up|down)_proj)\.weight",
            stack=r"\g<stem>.\g<part>.weight",
        ),
        Rule(r".*\.mlp\.experts\.gate_up_proj(\.weight)?", split=split_gate_up),
        Rule(r"(?P<stem>.*\.mlp\.experts\.down_proj)(\.weight)?", rename=r"\g<stem>.weight"),
        Rule(r".*\.A_log", decay),
        Rule(r".*\.conv1d\.weight", squeeze),
    ),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM,
        Expected("blk.{block}.ssm_in.weight", lambda c: (4 * c.hidden, c.hidden), lambda c, b: not _attends(c, b)),
        Expected("blk.{block}.attn_q.weight", lambda c: (c.heads * c.head_dim, c.hidden), _attends),
        Expected("blk.{block}.ffn_gate_exps.weight",
                 lambda c: (experts(c), c.integer("intermediate_size"), c.hidden), _routed),
        Expected("blk.{block}.ffn_gate.weight", lambda c: (c.integer("intermediate_size"), c.hidden),
                 lambda c, block: not _routed(c, block)),
    ),
    defaults={
        "rms_norm_eps": 1e-6, "max_position_embeddings": 262144, "num_key_value_heads": 8, "num_experts": 16,
        "num_experts_per_tok": 2, "expert_layer_period": 2, "expert_layer_offset": 1, "attn_layer_period": 8,
        "attn_layer_offset": 4, "mamba_d_state": 16, "mamba_d_conv": 4,
    },
    fixed={"mamba_expand": 2},
    example="ai21labs/AI21-Jamba-Mini-1.7",
)  # fmt: skip
