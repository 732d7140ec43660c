"""DeepSeek V2, V3 and R1: latent attention in its absorbed form, experts in groups; and the first DeepSeek MoE."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Expected, Family, Key, Named, Rule
from llamacli.families.cohere import NO_SCALING
from llamacli.families.config import Config
from llamacli.families.decoder import (
    ATTENTION,
    DECODER_KEYS,
    EMBEDDING,
    GATED_FFN,
    OUTPUT,
    OUTPUT_NORM,
    ROPE_DIMENSIONS,
    VOCAB_SIZE,
    always,
    count,
)
from llamacli.families.llama import INTERLEAVED_QK
from llamacli.families.moe import (
    EXPERT_FF,
    EXPERT_RULES,
    SHARED_COUNT,
    WEIGHTS_SCALE,
    expert_tensors,
    experts,
    moe_width,
)
from llamacli.families.rope import OWN_ATTENTION_FACTOR, partial_factor, rope_type
from llamacli.families.transforms import rows_of, transpose
from llamacli.formats.gguf_values import Value, ValueType, array, boolean, f32, u32
from llamacli.formats.rows import Reshaped, Rows


def _dense_blocks(config: Config) -> int:
    """Blocks in front that have no experts; all of them in a dense model."""
    first = config.get("first_k_dense_replace")
    return int(first) if first is not None else (0 if experts(config) else config.blocks)


def _routed(config: Config, block: int) -> bool:
    return block >= _dense_blocks(config)


def _split_kv_b(name: str, rows: Rows, config: Config) -> Iterable[Named]:
    """The matrix from the latent to keys and values of each head; the keys' part is transposed, as queries absorb it."""
    nope, value = config.integer("qk_nope_head_dim"), config.integer("v_head_dim")
    stack = Reshaped(rows, (config.heads, nope + value, rows.shape[-1]))
    yield name.replace("kv_b_proj", "k_b_proj"), transpose(rows_of(stack, 0, nope), config)
    yield name.replace("kv_b_proj", "v_b_proj"), rows_of(stack, nope, nope + value)


def _log_multiplier(config: Config) -> Value | None:
    """A tenth of `mscale_all_dim`: the engine's files have it so for this architecture."""
    scale = config.full_rope.get("mscale_all_dim")
    return None if scale is None else f32(0.1 * scale)


def _weights_norm(config: Config) -> Value | None:
    return boolean(True) if config.get("norm_topk_prob") else None


def key_width(config: Config) -> int:
    """Width of a head's keys: with positions and without."""
    return config.integer("qk_nope_head_dim") + config.integer("qk_rope_head_dim")


def _latent(config: Config) -> int:
    return int(config.get("kv_lora_rank", default=512))


MOST_EPSILON = 1e-5
"""Below it the difference cannot be seen."""


def _warnings(config: Config) -> Iterable[str]:
    """Without `q_lora_rank` the engine knows a model only by its size."""
    lite = config.blocks in (26, 27) or (config.blocks == 48 and config.get("vocab_size") == 128256)
    if config.get("q_lora_rank") is None and not lite:
        yield "the engine reads a DeepSeek 2 without q_lora_rank only with 26 or 27 blocks; it will not load this one"
    if (small := config.get("rms_norm_eps", default=0)) > MOST_EPSILON:
        yield f"the norms inside the attention have an epsilon of 1e-6, the engine takes rms_norm_eps {small} for them too"


def _refusals(config: Config) -> Iterable[str]:
    """The engine makes attention warmer with every stretched rope, by what `mscale_all_dim` says."""
    rope = config.full_rope
    stretched = rope_type(config) in ("linear", "yarn") and rope.get("factor") not in (None, 1.0)
    if stretched and (rope_type(config) == "linear" or not rope.get("mscale_all_dim")):
        yield f"config.json: a rope of type {rope_type(config)!r} without mscale_all_dim is not what the engine computes"
    if stretched and rope.get("mscale") not in (None, rope.get("mscale_all_dim")):
        yield f"config.json: mscale {rope['mscale']} that is not mscale_all_dim is not what the engine computes"


LATENT_ATTENTION = (
    Expected("blk.{block}.attn_norm.weight", lambda c: (c.hidden,)),
    Expected("blk.{block}.attn_kv_a_mqa.weight", lambda c: (_latent(c) + c.integer("qk_rope_head_dim"), c.hidden)),
    Expected("blk.{block}.attn_kv_a_norm.weight", lambda c: (_latent(c),)),
    Expected("blk.{block}.attn_k_b.weight", lambda c: (c.heads, _latent(c), c.integer("qk_nope_head_dim"))),
    Expected("blk.{block}.attn_v_b.weight", lambda c: (c.heads, c.integer("v_head_dim"), _latent(c))),
    Expected("blk.{block}.attn_output.weight", lambda c: (c.hidden, c.heads * c.integer("v_head_dim"))),
)

DEEPSEEK2 = Family(
    name="deepseek2",
    title="DeepSeek V2, V3, R1, Kimi K2, Moonlight",
    architectures=(
        "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "KimiVLForConditionalGeneration", "KimiK25ForConditionalGeneration",
    ),
    keys=(
        *DECODER_KEYS,
        Key("attention.head_count_kv", always(u32(1))),  # absorbed, all heads share one latent
        Key("leading_dense_block_count", lambda c: u32(_dense_blocks(c))),
        VOCAB_SIZE,
        Key("attention.q_lora_rank", count("q_lora_rank")),
        Key("attention.kv_lora_rank", lambda c: u32(_latent(c))),
        Key("attention.key_length", lambda c: u32(_latent(c) + c.integer("qk_rope_head_dim"))),
        Key("attention.value_length", lambda c: u32(_latent(c))),
        Key("attention.key_length_mla", lambda c: u32(key_width(c))),
        Key("attention.value_length_mla", count("v_head_dim")),
        Key("expert_feed_forward_length", lambda c: u32(moe_width(c))),
        Key("expert_shared_count", lambda c: u32(c.get("n_shared_experts", default=0))),
        WEIGHTS_SCALE,
        Key("expert_weights_norm", _weights_norm),
        Key("rope.dimension_count", count("qk_rope_head_dim")),
        Key("rope.scaling.yarn_log_multiplier", _log_multiplier),
        OWN_ATTENTION_FACTOR,
    ),
    rules=(*EXPERT_RULES, Rule(r".*\.kv_b_proj\.weight", split=_split_kv_b)),
    expected=(
        EMBEDDING, OUTPUT, OUTPUT_NORM, *LATENT_ATTENTION, GATED_FFN[0],
        *expert_tensors(moe_width, _routed),
        Expected("blk.{block}.ffn_gate.weight", lambda c: (c.integer("intermediate_size"), c.hidden),
                 lambda c, block: not _routed(c, block)),
    ),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    warnings=_warnings,
    refusals=_refusals,
    fixed={"rope_interleave": True},
    example="deepseek-ai/DeepSeek-V3",
)  # fmt: skip

DEEPSEEK = Family(
    name="deepseek",
    title="DeepSeek MoE",
    architectures=("DeepseekForCausalLM",),
    keys=(
        *DECODER_KEYS, ROPE_DIMENSIONS, NO_SCALING, Key("leading_dense_block_count", lambda c: u32(_dense_blocks(c))),
        VOCAB_SIZE, EXPERT_FF, Key("expert_weights_scale", always(f32(1.0))), SHARED_COUNT,
    ),
    rules=(*INTERLEAVED_QK, *EXPERT_RULES),
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, GATED_FFN[0], *expert_tensors(moe_width, _routed)),
    defaults={"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    example="deepseek-ai/deepseek-moe-16b-chat",
)  # fmt: skip

GLM4_MOE_LITE = DEEPSEEK2.override(
    title="GLM-4.7-Flash",
    architectures=("Glm4MoeLiteForCausalLM",),
    defaults={
        **DEEPSEEK2.defaults,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 202752,
        "first_k_dense_replace": 1,
        "n_shared_experts": 1,
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.8,
        "n_group": 1,
        "topk_group": 1,
    },
    example="zai-org/GLM-4.7-Flash",
)

YOUTU = DEEPSEEK2.override(
    title="Youtu-LLM",
    architectures=("YoutuForCausalLM", "YoutuVLForConditionalGeneration"),
    defaults={
        "rope_theta": 1600000.0,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
    example="tencent/Youtu-LLM-2B",
)


def _indexers(config: Config) -> Value | None:
    """Which blocks choose tokens themselves; the others take the choice of an earlier one."""
    kinds = config.get("indexer_types")
    return None if kinds is None else array(ValueType.BOOL, [kind == "full" for kind in kinds])


GLM_DSA = DEEPSEEK2.override(
    name="glm-dsa",
    title="GLM-5",
    architectures=("GlmMoeDsaForCausalLM",),
    keys=(
        *DEEPSEEK2.keys,
        Key("rope.dimension_count", lambda c: u32(int(c.integer("qk_rope_head_dim") * partial_factor(c)))),
        Key("attention.indexer.head_count", count("index_n_heads")),
        Key("attention.indexer.key_length", count("index_head_dim")),
        Key("attention.indexer.top_k", count("index_topk")),
        Key("attention.indexer.types", _indexers),
    ),
    defaults={
        **DEEPSEEK2.defaults, "rms_norm_eps": 1e-5, "max_position_embeddings": 202752, "first_k_dense_replace": 3,
        "n_shared_experts": 1, "scoring_func": "sigmoid", "norm_topk_prob": True, "routed_scaling_factor": 2.5,
    },
    example="zai-org/GLM-5",
)  # fmt: skip
