"""Mistral's own format: params.json and consolidated.safetensors, brought to the names of a config.json.

The tensors keep their names and their rows the order of the original code, in which ggml's rope wants them: that is why the
classes that are named here have families of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamacli.errors import Unsupported

PARAMS = "params.json"
PREFIX = "consolidated"

_NAMES = {
    "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads", "hidden_dim": "intermediate_size", "norm_eps": "rms_norm_eps",
    "head_dim": "head_dim", "rope_theta": "rope_theta", "vocab_size": "vocab_size", "sliding_window": "sliding_window",
    "tied_embeddings": "tie_word_embeddings", "max_seq_len": "max_position_embeddings",
    "max_position_embeddings": "max_position_embeddings",
}  # fmt: skip
DEFAULT_CONTEXT = 32768
"""Where params.json says nothing, as in the first models."""


def config_of_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """A params.json as a config.json. Raises Unsupported for the latent attention of Mistral Large 3."""
    text = params.get("text_config") or params.get("llm") or params
    if "q_lora_rank" in text:
        raise Unsupported(f"{PARAMS}: latent attention in Mistral's own format is not supported")
    config = {new: text[old] for old, new in _NAMES.items() if text.get(old) is not None}
    config.setdefault("max_position_embeddings", DEFAULT_CONTEXT)
    config["rope_parameters"] = _rope(text)
    scaled = "llama_4_scaling_beta" in config["rope_parameters"]
    config["architectures"] = ["MistralScaledConsolidated" if scaled else "MistralConsolidated"]
    if moe := text.get("moe"):
        config["num_local_experts"] = moe["num_experts"]
        config["num_experts_per_tok"] = moe["num_experts_per_tok"]
    if (kind := (text.get("quantization") or {}).get("qformat_weight")) is not None:
        config["quantization_config"] = {"quant_method": "fp8" if kind == "fp8_e4m3" else kind}
    return config


def _rope(text: Mapping[str, Any]) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_theta": text.get("rope_theta", 10000.0)}
    if yarn := text.get("yarn"):
        rope |= {
            "rope_type": "yarn", "factor": yarn["factor"], "beta_fast": yarn["beta"], "beta_slow": yarn["alpha"],
            "original_max_position_embeddings": yarn["original_max_position_embeddings"],
            "mscale_all_dim": 0.0 if yarn.get("apply_scale") else 1.0,
        }  # fmt: skip
    if scaling := text.get("llama_4_scaling"):
        rope["llama_4_scaling_beta"] = scaling["beta"]
    return rope
