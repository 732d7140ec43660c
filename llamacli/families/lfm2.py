"""LFM2: short convolutions, with attention in some blocks; and its mixture."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Expected, Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import DECODER_KEYS, EMBEDDING, POOLING, QK_NORM, VOCAB_SIZE, always, count
from llamacli.families.moe import EXPERT_FF, W_EXPERT_RULES, expert_tensors, moe_width
from llamacli.families.transforms import squeeze
from llamacli.formats.gguf_values import ValueType, array, u32


def _attends(config: Config, block: int) -> bool:
    types = config.get("layer_types")
    if types is None:
        return block in config.get("full_attn_idxs", default=range(config.blocks))
    return bool(types[block] != "conv")


def _width(config: Config) -> int:
    """The feed-forward width after the adjustment that the model's own code makes."""
    width = int(config.get("block_ff_dim", "intermediate_size"))
    if not config.get("block_auto_adjust_ff_dim", default=True):
        return width
    width = int(2 * width / 3)
    if (factor := config.get("block_ffn_dim_multiplier", default=1.0)) is not None:
        width = int(factor * width)
    multiple = int(config.get("block_multiple_of", default=256))
    return multiple * -(-width // multiple)


KV_HEADS = Key(
    "attention.head_count_kv",
    lambda c: array(ValueType.INT32, [c.kv_heads if _attends(c, block) else 0 for block in range(c.blocks)]),
)
"""No key heads where a block convolves."""
CONVOLUTION = (Rule(r".*\.conv\.conv\.weight", squeeze),)


def _refusals(config: Config) -> Iterable[str]:
    if all(_attends(config, block) for block in range(config.blocks)):
        yield "config.json: no block convolves, for which the engine's graph of this family is made"


LFM2 = Family(
    name="lfm2",
    title="LFM2",
    architectures=("Lfm2ForCausalLM", "LFM2ForCausalLM"),
    keys=(
        *DECODER_KEYS, KV_HEADS, VOCAB_SIZE,
        Key("shortconv.l_cache", count("conv_L_cache")),
        Key("feed_forward_length", lambda c: u32(_width(c))),
        POOLING,
    ),
    rules=CONVOLUTION,
    expected=(
        EMBEDDING,
        Expected("token_embd_norm.weight", lambda c: (c.hidden,)),
        Expected("blk.{block}.attn_norm.weight", lambda c: (c.hidden,)),
        Expected("blk.{block}.ffn_norm.weight", lambda c: (c.hidden,)),
        Expected("blk.{block}.ffn_gate.weight", lambda c: (_width(c), c.hidden)),
        Expected("blk.{block}.ffn_up.weight", lambda c: (_width(c), c.hidden)),
        Expected("blk.{block}.ffn_down.weight", lambda c: (c.hidden, _width(c))),
        Expected("blk.{block}.shortconv.conv.weight", lambda c: (c.hidden, c.integer("conv_L_cache")),
                 lambda c, block: not _attends(c, block)),
        *(Expected(tensor.name, tensor.shape, _attends) for tensor in QK_NORM),
    ),
    defaults={"tie_word_embeddings": True, "rope_theta": 1e6, "norm_eps": 1e-5, "conv_L_cache": 3},
    refusals=_refusals,
    example="LiquidAI/LFM2-1.2B",
)  # fmt: skip


def _routed(config: Config, block: int) -> bool:
    return block >= int(config.get("num_dense_layers", default=0))


LFM2_MOE = LFM2.override(
    name="lfm2moe",
    title="LFM2 MoE",
    architectures=("Lfm2MoeForCausalLM",),
    keys=(
        *DECODER_KEYS, KV_HEADS, EXPERT_FF,
        Key("leading_dense_block_count", count("num_dense_layers")),
        Key("expert_gating_func", always(u32(2))),
        VOCAB_SIZE,
        Key("shortconv.l_cache", count("conv_L_cache")),
    ),
    rules=(*CONVOLUTION, *W_EXPERT_RULES, Rule(r"(.*\.expert_bias)", rename=r"\1.bias")),
    expected=(
        *LFM2.expected[:4], *expert_tensors(moe_width, _routed), *LFM2.expected[7:],
        Expected("blk.{block}.exp_probs_b.bias", lambda c: (-1,), _routed),
    ),
    fixed={"norm_topk_prob": True, "routed_scaling_factor": 1.0},
    example="LiquidAI/LFM2-8B-A1B",
)  # fmt: skip
