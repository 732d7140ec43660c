"""Phi-3.5-MoE: Phi-3's long rope on separate matrices with biases, layer norms, and experts."""

from __future__ import annotations

from collections.abc import Iterable

from llamacli.families.base import Key
from llamacli.families.config import Config
from llamacli.families.decoder import ATTENTION, EMBEDDING, OUTPUT, OUTPUT_NORM, count
from llamacli.families.moe import EXPERT_RULES, W_EXPERT_RULES, expert_tensors, moe_width
from llamacli.families.phi3 import PHI3


def _warnings(config: Config) -> Iterable[str]:
    yield "the engine weighs this model's experts by a plain softmax, the model itself by a sparse mixer: logits differ"


PHIMOE = PHI3.override(
    name="phimoe",
    title="Phi-3.5 MoE",
    architectures=("PhiMoEForCausalLM", "PhimoeForCausalLM"),
    keys=(
        *PHI3.keys,
        Key("expert_used_count", count("num_experts_per_tok", "num_experts_per_token")),
        Key("expert_count", count("num_local_experts", "num_experts")),
    ),
    rules=(*W_EXPERT_RULES, *EXPERT_RULES),
    expected=(EMBEDDING, OUTPUT, OUTPUT_NORM, *ATTENTION, *expert_tensors(moe_width)),
    warnings=_warnings,
    example="microsoft/Phi-3.5-MoE-instruct",
)
