"""What most decoders share: metadata keys, the tensors of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from llamacli.errors import CorruptFile, Unsupported
from llamacli.families.base import Expected, Key, expert_count
from llamacli.families.config import CONTEXT_NAMES, Config
from llamacli.families.rope import ROPE_KEYS, partial_factor
from llamacli.formats.gguf_values import Value, ValueType, array, boolean, f32, u32


def count(*names: str) -> Callable[[Config], Value | None]:
    """An unsigned number under the first of these names; left out when config.json has none."""
    return _typed(u32, names)


def real(*names: str) -> Callable[[Config], Value | None]:
    """A float under the first of these names; left out when config.json has none."""
    return _typed(f32, names)


def flag(*names: str) -> Callable[[Config], Value | None]:
    """A boolean under the first of these names; left out when config.json has none."""
    return _typed(boolean, names)


def always(value: Value) -> Callable[[Config], Value | None]:
    """The same for every model of the family."""
    return lambda config: value


def _typed(make: Callable[[Any], Value], names: tuple[str, ...]) -> Callable[[Config], Value | None]:
    def value(config: Config) -> Value | None:
        found = config.get(*names)
        return None if found is None else make(found)

    return value


# -- keys ----------------------------------------------------------------------------------------------------------


def _gating(config: Config) -> Value | None:
    """`expert_gating_func` as ggml numbers it."""
    name = config.get(
        "score_function", "scoring_func", "score_func", "moe_router_activation", "moe_router_activation_func",
        "expert_selection_fn",
    )  # fmt: skip
    numbers = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}
    if name is None:
        return None
    if name not in numbers:
        raise Unsupported(f"config.json: experts chosen by {name!r} are not supported")
    return u32(numbers[name])


def _causal(config: Config) -> Value | None:
    return boolean(False) if config.get("is_causal") is False else None


FEED_FORWARD_NAMES = (
    "prefix_dense_intermediate_size", "dense_intermediate_size", "intermediate_size", "n_inner", "hidden_dim",
)  # fmt: skip


def _experts_used(config: Config) -> Value | None:
    """How many experts see a token. Raises CorruptFile for more than there are."""
    used, experts = config.get("num_experts_per_tok", "num_experts_per_token", "top_k_experts"), expert_count(config)
    if used is not None and experts and not 0 < int(used) <= experts:
        raise CorruptFile(f"config.json: every token goes to {used} experts, the model has {experts}")
    return None if used is None else u32(used)


def _expert_groups(config: Config) -> Value | None:
    """How many groups experts are chosen in. Raises CorruptFile for groups that are no division of them."""
    groups, used, experts = config.get("n_group"), config.get("topk_group"), expert_count(config)
    if groups is None:
        return None
    if used == groups:
        return u32(1)  # all of them are chosen, which the engine cannot say otherwise
    if experts and int(groups) > 1 and (experts % int(groups) or experts < 2 * int(groups)):
        raise CorruptFile(f"config.json: {experts} experts cannot be chosen in {groups} groups")
    if used is not None and int(used) > int(groups):
        raise CorruptFile(f"config.json: experts of {used} groups are chosen, there are {groups}")
    return u32(groups)


def _groups_used(config: Config) -> Value | None:
    used = config.get("topk_group")
    return None if used is None else u32(1 if used == config.get("n_group") else used)


DECODER_KEYS = (
    Key("block_count", lambda config: u32(config.blocks)),
    Key("context_length", count(*CONTEXT_NAMES)),
    Key("embedding_length", count("hidden_size", "n_embd", "dim")),
    Key("feed_forward_length", count(*FEED_FORWARD_NAMES)),
    Key("attention.head_count", count("num_attention_heads", "n_head", "n_heads")),
    Key("attention.head_count_kv", count("num_key_value_heads", "n_kv_heads")),
    Key("attention.causal", _causal),
    *ROPE_KEYS,
    Key("attention.layer_norm_rms_epsilon", real("rms_norm_eps", "norm_eps")),
    Key("attention.layer_norm_epsilon", real("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")),
    Key("expert_count", count("num_local_experts", "num_experts", "n_routed_experts")),
    Key("expert_used_count", _experts_used),
    Key("expert_group_count", _expert_groups),
    Key("expert_group_used_count", _groups_used),
    Key("expert_gating_func", _gating),
    Key("attention.key_length", count("head_dim")),
    Key("attention.value_length", count("head_dim")),
)  # fmt: skip
"""The keys that every decoder writes when its configuration has them."""

HEAD_WIDTHS = (
    Key("attention.key_length", lambda config: u32(config.head_dim)),
    Key("attention.value_length", lambda config: u32(config.head_dim)),
)
"""For families whose configuration always has a head width, written or not."""
VOCAB_SIZE = Key("vocab_size", count("vocab_size"))
ROPE_DIMENSIONS = Key("rope.dimension_count", lambda config: u32(config.head_dim))
SLIDING_WINDOW = Key("attention.sliding_window", count("sliding_window"))
_WINDOW_STEPS = ("sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers")


def windowed(config: Config, step: int) -> list[bool]:
    """Which blocks have a window: as `layer_types` says, else all but every so manieth, `step` where nothing is said."""
    types = config.get("layer_types")
    if types is None:
        every = int(config.get(*_WINDOW_STEPS, default=step))
        return [every == 0 or (block + 1) % every != 0 for block in range(config.blocks)]
    if len(types) != config.blocks:
        raise CorruptFile(f"config.json: layer_types has {len(types)} entries for {config.blocks} blocks")
    return [kind == "sliding_attention" for kind in types]


def windows(step: int, *, always_some: bool = True) -> tuple[Key, Key]:
    """The window, and the blocks that have it where these are others than all but every `step`-th, as the engine has it.

    `always_some`: the graph has both kinds of blocks.
    """

    def window(config: Config) -> Value | None:
        found = SLIDING_WINDOW.value(config)
        if found is None or any(windowed(config, step)):
            return found
        if always_some:
            raise Unsupported("config.json: no block has a window, for which the engine's graph of this family is made")
        return None

    def pattern(config: Config) -> Value | None:
        if config.get("sliding_window") is None:
            return None
        found = windowed(config, step)
        usual = [(block + 1) % step != 0 for block in range(config.blocks)]
        return None if found == usual or not any(found) else array(ValueType.BOOL, found)

    return Key(SLIDING_WINDOW.name, window), Key("attention.sliding_window_pattern", pattern)


def partial_rope(default: float = 1.0) -> Key:
    """`rope.dimension_count` where only a part of each head is rotated."""
    return Key("rope.dimension_count", lambda config: u32(int(config.head_dim * partial_factor(config, default))))


def layer_pattern(kind: str) -> Callable[[Config], Value | None]:
    """A boolean for each block: whether `layer_types` calls it `kind`. Left out without `layer_types`."""

    def value(config: Config) -> Value | None:
        types = config.get("layer_types")
        if types is None:
            return None
        if len(types) != config.blocks:
            raise CorruptFile(f"config.json: layer_types has {len(types)} entries for {config.blocks} blocks")
        return array(ValueType.BOOL, [name == kind for name in types])

    return value


def no_window_warning(config: Config) -> Iterable[str]:
    """For families whose graph in the engine attends to everything."""
    window = config.get("sliding_window")
    if window and config.get("use_sliding_window", default=True) and window < config.get(*CONTEXT_NAMES, default=0):
        yield f"the engine ignores this model's sliding window: exact only up to {window:,} tokens"


def _pooling(config: Config) -> Value | None:
    """`pooling_type` as ggml numbers it, for models of the sentence-transformers library."""
    mode = config.get("sentence_pooling")
    return None if mode is None else u32({"mean": 1, "cls": 2, "lasttoken": 3}[mode])


POOLING = Key("pooling_type", _pooling)


# -- shapes --------------------------------------------------------------------------------------------------------


def _q_width(config: Config) -> int:
    return config.heads * config.head_dim


def _kv_width(config: Config) -> int:
    return config.kv_heads * config.head_dim


def _ff(config: Config) -> int:
    return int(config.get("intermediate_size", "n_inner", "hidden_dim", default=-1))


EMBEDDING = Expected("token_embd.weight", lambda c: (-1, c.hidden))
OUTPUT = Expected("output.weight", lambda c: (-1, c.hidden), lambda c, block: not c.tied)
OUTPUT_NORM = Expected("output_norm.weight", lambda c: (c.hidden,))
ATTENTION = (
    Expected("blk.{block}.attn_norm.weight", lambda c: (c.hidden,)),
    Expected("blk.{block}.attn_q.weight", lambda c: (_q_width(c), c.hidden)),
    Expected("blk.{block}.attn_k.weight", lambda c: (_kv_width(c), c.hidden)),
    Expected("blk.{block}.attn_v.weight", lambda c: (_kv_width(c), c.hidden)),
    Expected("blk.{block}.attn_output.weight", lambda c: (c.hidden, _q_width(c))),
)
GATED_FFN = (
    Expected("blk.{block}.ffn_norm.weight", lambda c: (c.hidden,)),
    Expected("blk.{block}.ffn_gate.weight", lambda c: (_ff(c), c.hidden)),
    Expected("blk.{block}.ffn_up.weight", lambda c: (_ff(c), c.hidden)),
    Expected("blk.{block}.ffn_down.weight", lambda c: (c.hidden, _ff(c))),
)
QKV_BIAS = (
    Expected("blk.{block}.attn_q.bias", lambda c: (_q_width(c),)),
    Expected("blk.{block}.attn_k.bias", lambda c: (_kv_width(c),)),
    Expected("blk.{block}.attn_v.bias", lambda c: (_kv_width(c),)),
)
QK_NORM = (
    Expected("blk.{block}.attn_q_norm.weight", lambda c: (c.head_dim,)),
    Expected("blk.{block}.attn_k_norm.weight", lambda c: (c.head_dim,)),
)
"""Queries and keys normalised head by head."""
POST_NORMS = (
    Expected("blk.{block}.post_attention_norm.weight", lambda c: (c.hidden,)),
    Expected("blk.{block}.post_ffw_norm.weight", lambda c: (c.hidden,)),
)
FFN_UP_DOWN = (
    Expected("blk.{block}.ffn_up.weight", lambda c: (_ff(c), c.hidden)),
    Expected("blk.{block}.ffn_down.weight", lambda c: (c.hidden, _ff(c))),
)
FUSED_GATE_UP = (
    Expected("blk.{block}.ffn_up.weight", lambda c: (2 * _ff(c), c.hidden)),
    Expected("blk.{block}.ffn_down.weight", lambda c: (c.hidden, _ff(c))),
)
"""Gate and up in one matrix, which the engine takes as it is."""
DECODER_TENSORS = (EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *GATED_FFN)
"""A plain pre-norm decoder with a gated feed-forward network."""
