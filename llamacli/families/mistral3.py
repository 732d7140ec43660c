"""Ministral 3 and Mistral Small 3.1 and later: yarn, and attention that grows warmer with the position."""

from __future__ import annotations

from collections.abc import Callable

from llamacli.families.base import Family, Key, Rule
from llamacli.families.config import Config
from llamacli.families.decoder import no_window_warning
from llamacli.families.deepseek import DEEPSEEK2
from llamacli.families.llama import LLAMA
from llamacli.families.moe import W_EXPERT_RULES
from llamacli.families.rope import OWN_ATTENTION_FACTOR, ROPE_KEYS, llama3_rope_factors
from llamacli.formats.gguf_values import Value, f32, u32


def _from_rope(name: str) -> Callable[[Config], Value | None]:
    def value(config: Config) -> Value | None:
        found = config.full_rope.get(name)
        return None if found is None else f32(found)

    return value


def _fourth(config: Config) -> Family | None:
    return MISTRAL4 if config.get("model_type") == "mistral4" else None


MISTRAL3 = LLAMA.override(
    name="mistral3",
    title="Mistral Small 3.1, Ministral 3",
    architectures=("Mistral3ForConditionalGeneration", "Ministral3ForCausalLM"),
    keys=(
        *LLAMA.keys,
        *ROPE_KEYS,
        Key("rope.scaling.yarn_log_multiplier", _from_rope("mscale_all_dim")),
        OWN_ATTENTION_FACTOR,
        Key("attention.temperature_scale", _from_rope("llama_4_scaling_beta")),
    ),
    defaults={"rope_theta": 1e6, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072},
    extra=llama3_rope_factors,
    sibling=_fourth,
    example="mistralai/Ministral-3-8B-Instruct-2512",
)

CONSOLIDATED = MISTRAL3.override(
    name="llama",
    title="Mistral's own format (params.json)",
    architectures=("MistralConsolidated",),
    rules=(*W_EXPERT_RULES,),
    expected=tuple(tensor for tensor in LLAMA.expected if ".ffn_" not in tensor.name),
    warnings=no_window_warning,
    example="mistralai/Mistral-7B-Instruct-v0.3",
)
"""Rows of queries and keys stand as ggml wants them already."""

CONSOLIDATED_SCALED = CONSOLIDATED.override(
    name="mistral3",
    title="Mistral's own format, warmer with the position",
    architectures=("MistralScaledConsolidated",),
    example="mistralai/Ministral-3-8B-Instruct-2512",
)


def _step(config: Config) -> Value | None:
    """After how many tokens attention grows warmer; the engine demands it with the scale."""
    length = config.full_rope.get("original_max_position_embeddings")
    return None if config.full_rope.get("llama_4_scaling_beta") is None or length is None else u32(length)


MISTRAL4 = DEEPSEEK2.override(
    name="mistral4",
    title="Mistral 4",
    architectures=("Mistral4ForCausalLM",),
    keys=(
        *DEEPSEEK2.keys,
        Key("attention.temperature_scale", _from_rope("llama_4_scaling_beta")),
        Key("attention.temperature_length", _step),
    ),
    rules=(Rule(r"(.*\.mlp\.experts\.gate_up_proj)(\.weight)?", rename=r"\1.weight"), *DEEPSEEK2.rules),
    expected=tuple(t for t in DEEPSEEK2.expected if not t.name.endswith(("gate_exps.weight", "up_exps.weight"))),
    defaults={
        **DEEPSEEK2.defaults,
        "max_position_embeddings": 1048576,
        "first_k_dense_replace": 0,
        "n_shared_experts": 1,
        "scoring_func": "softmax",
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
    },
    example="mistralai/Mistral-Small-4-119B-2603",
)
