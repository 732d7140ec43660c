"""Ministral 3 and Mistral Small 3.1 and later: yarn, and attention that grows warmer with the position."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llamacli.families.base import Key
from llamacli.families.config import Config
from llamacli.families.decoder import no_window_warning
from llamacli.families.llama import LLAMA
from llamacli.families.moe import W_EXPERT_RULES
from llamacli.formats.gguf_values import Value, f32


def _from_rope(name: str) -> Callable[[Config], Value | None]:
    def value(config: Config) -> Value | None:
        found = config.full_rope.get(name)
        return None if found is None else f32(found)

    return value


def _refusals(config: Config) -> Iterable[str]:
    if config.get("model_type") == "mistral4":
        yield "config.json: Mistral 4 is not supported"


MISTRAL3 = LLAMA.override(
    name="mistral3",
    title="Mistral Small 3.1, Ministral 3",
    architectures=("Mistral3ForConditionalGeneration", "Ministral3ForCausalLM"),
    keys=(
        *LLAMA.keys,
        Key("rope.scaling.yarn_log_multiplier", _from_rope("mscale_all_dim")),
        Key("attention.temperature_scale", _from_rope("llama_4_scaling_beta")),
    ),
    defaults={"rope_theta": 1e6, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072},
    refusals=_refusals,
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
