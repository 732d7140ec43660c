"""What mixtures of experts share: stacks of experts, their keys and their shapes."""

from __future__ import annotations

from collections.abc import Callable

from llamacli.families.base import EXPERT_COUNT_NAMES, Expected, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import count, flag, real
from llamacli.families.transforms import split_gate_up

EXPERT_RULES = (
    Rule(
        r"(?P<stem>.*\.mlp\.experts)\.(?P<expert>\d+)\.(?P<part>(gate|up|down)_proj)\.weight",
        stack=r"\g<stem>.\g<part>.weight",
    ),
    Rule(r".*\.mlp\.experts\.gate_up_proj(\.weight)?", split=split_gate_up),
    Rule(r"(?P<stem>.*\.mlp\.experts\.down_proj)(\.weight)?", rename=r"\g<stem>.weight"),
    Rule(r"(.*\.e_score_correction)_bias", rename=r"\1.bias"),
)
"""Experts one by one, as checkpoints have shipped them, and stacked with gate and up fused, as transformers 5 saves them."""

W_EXPERT_RULES = (
    Rule(
        r"(model\.)?(?P<block>layers\.\d+)\.(block_sparse_moe|feed_forward)\.experts\.(?P<expert>\d+)\.(?P<part>w[123])\.weight",
        stack=r"\g<block>.feed_forward.experts.\g<part>.weight",
    ),
)
"""Mixtral's names: w1 is the gate, w3 up, w2 down."""


def experts(config: Config) -> int:
    """Routed experts of a block; 0 for a dense model."""
    return int(config.get(*EXPERT_COUNT_NAMES, default=0))


EXPERT_FF = Key("expert_feed_forward_length", count("moe_intermediate_size"))
SHARED_FF = Key("expert_shared_feed_forward_length", count("shared_expert_intermediate_size"))
SHARED_COUNT = Key("expert_shared_count", count("n_shared_experts", "num_shared_experts"))
WEIGHTS_SCALE = Key("expert_weights_scale", real("routed_scaling_factor"))
WEIGHTS_NORM = Key("expert_weights_norm", flag("norm_topk_prob"))


def expert_tensors(
    width: Callable[[Config], int], when: Callable[[Config, int], bool] = lambda config, block: True
) -> tuple[Expected, ...]:
    """Router and three stacks of experts of `width`."""
    return (
        Expected("blk.{block}.ffn_gate_inp.weight", lambda c: (experts(c), c.hidden), when),
        Expected("blk.{block}.ffn_gate_exps.weight", lambda c: (experts(c), width(c), c.hidden), when),
        Expected("blk.{block}.ffn_up_exps.weight", lambda c: (experts(c), width(c), c.hidden), when),
        Expected("blk.{block}.ffn_down_exps.weight", lambda c: (experts(c), c.hidden, width(c)), when),
    )


def behind_dense(config: Config, block: int) -> bool:
    """Whether a block has experts where the first `first_k_dense_replace` have none."""
    return block >= int(config.get("first_k_dense_replace", default=0))


def moe_width(config: Config) -> int:
    """Hidden width of a routed expert."""
    return int(config.get("moe_intermediate_size", "intermediate_size", default=-1))
