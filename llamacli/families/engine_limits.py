"""What the engine's graph of an architecture takes for granted: biases and widths, the activation, an output of its own.

Facts from llama.cpp's `src/models/*.cpp`. A file with other biases or widths is not loaded at all; one with another
activation is, and computes nonsense.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llamacli.errors import Unsupported
from llamacli.families.config import Config

_QUERY_KEY_VALUE = "attn_q attn_k attn_v attn_qkv"

_LOADED: tuple[tuple[str, str], ...] = (
    ("pangu-embedded", "+ attn_output"),
    ("apertus", "+ attn_k_norm attn_output attn_q_norm"),
    ("jais2 nemotron starcoder2", "+ attn_norm attn_output ffn_down ffn_norm ffn_up output_norm"),
    ("phi2", "+ attn_norm attn_output ffn_down ffn_up output output_norm"),
    ("phimoe", "+ attn_norm attn_output ffn_norm output output_norm"),
    ("orion stablelm", "+ attn_norm ffn_norm output_norm"),
    ("bert", "+ attn_output attn_output_norm cls cls.output ffn_down ffn_up layer_output_norm token_embd_norm"),
    ("jina-bert-v3 nomic-bert", "+ attn_output attn_output_norm ffn_down ffn_up layer_output_norm token_embd_norm"),
    ("ernie4_5 ernie4_5-moe paddleocr", "+ attn_output exp_probs_b"),
    ("nemotron_h nemotron_h_moe", "+ attn_output exp_probs_b ffn_down ffn_up ssm_conv1d ssm_dt"),
    ("deci granite granitemoe llama llama-embed minicpm mistral3", "+ attn_output ffn_down ffn_gate ffn_up"),
    ("granitehybrid", "+ attn_output ffn_down ffn_gate ffn_up ssm_conv1d ssm_dt"),
    ("falcon-h1", "+ ffn_down ffn_gate ffn_up ssm_conv1d ssm_dt"),
    ("gpt-oss", "+ attn_output ffn_down_exps ffn_gate_exps ffn_gate_inp ffn_up_exps"),
    ("lfm2 lfm2moe", "+ dense_2 exp_probs_b"),
    ("afmoe dots1 exaone-moe glm4moe mimo2 minimax-m2", "+ exp_probs_b"),
    ("kimi-linear", "+ exp_probs_b ssm_dt"),
    ("qwen2 qwen2vl", "+ output"),
    ("jamba", "+ ssm_conv1d ssm_dt"),
    ("qwen35 qwen35moe qwen3next", "+ ssm_dt"),
    ("dbrx gemma4 minicpm3", ""),
    ("mpt", "attn_k_norm attn_norm attn_output attn_q_norm attn_qkv ffn_down ffn_norm ffn_up output_norm"),
    ("falcon", "attn_norm attn_norm_2 output_norm"),
    ("gpt2 gptneox starcoder", "attn_norm attn_output attn_qkv ffn_down ffn_norm ffn_up output_norm"),
    ("bloom", "attn_norm attn_output attn_qkv ffn_down ffn_norm ffn_up output_norm token_embd_norm"),
    ("qwen", "attn_qkv"),
    ("modern-bert", "cls.output"),
    ("bailingmoe2 deepseek2 mistral4", "exp_probs_b"),
    ("glm-dsa", "exp_probs_b indexer.k_norm"),
    ("mamba mamba2", "ssm_conv1d ssm_dt"),
)
"""Architectures, and their biases: `+` are those of queries, keys and values, which all others have and no more."""

_BIASES: Mapping[str, frozenset[str]] = {
    architecture: frozenset(biases.replace("+", _QUERY_KEY_VALUE).split())
    for architectures, biases in _LOADED
    for architecture in architectures.split()
}


def loads_bias(architecture: str, tensor: str) -> bool:
    """Whether the engine knows the bias `tensor` (GGUF's name) in this architecture."""
    stem = re.sub(r"^blk\.\d+\.", "", tensor).removesuffix(".bias")
    return stem in _BIASES.get(architecture, _QUERY_KEY_VALUE.split())


def _names(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_AS_WIDE_AS_THE_MODEL = _names(
    "baichuan bert chatglm cohere2 command-r deepseek eurobert exaone4 internlm2 jamba jina-bert-v3 lfm2 lfm2moe",
    "nemotron nomic-bert olmo olmo2 olmoe orion phi2 phi3 phimoe qwen2 qwen2moe qwen2vl stablelm starcoder2 xverse",
)
"""Architectures whose queries are together as wide as the residual stream."""


_AS_MANY_KEYS_AS_QUERIES = _names("dots1 olmoe")
"""Architectures with one head of keys and values for each of queries."""


def check_widths(architecture: str, config: Config) -> None:
    """Raises Unsupported for heads that are not together as wide as the model where the graph wants that."""
    if architecture in _AS_WIDE_AS_THE_MODEL and config.heads * config.head_dim != config.hidden:
        raise Unsupported(
            f"config.json: {config.heads} heads of head_dim {config.head_dim} are not as wide as hidden_size {config.hidden}, "
            f"which the engine's {architecture} takes for granted",
            "it would not load the file; nothing was written",
        )
    if architecture in _AS_MANY_KEYS_AS_QUERIES and config.kv_heads != config.heads:
        raise Unsupported(
            f"config.json: num_key_value_heads is {config.kv_heads}; the engine's {architecture} has one for each head",
            "it would not load the file; nothing was written",
        )


_COMPUTED: Mapping[str, str] = {
    architecture: activation
    for activation, architectures in {
        "gelu": "bert bloom falcon gemma gemma2 gemma3 gemma3n gemma4 gemma-embedding gpt2 gptneox jina-bert-v3 modern-bert "
        "mpt phi2 starcoder starcoder2",
        "relu2": "arcee jais2 nemotron nemotron_h nemotron_h_moe",
        "xielu": "apertus",
    }.items()
    for architecture in architectures.split()
}
"""Architectures whose feed-forward network has another activation than SiLU."""

_SAME_ACTIVATION: Mapping[str, tuple[str, ...]] = {
    "silu": ("silu", "swish", "swiglu"),
    "gelu": ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python", "gelu_accurate"),
    "relu2": ("relu2", "relu_squared"),
    "xielu": ("xielu",),
}
"""What configurations call them; the ways to compute GELU differ by less than the engine's table of it."""

_ACTIVATION_NAMES = ("mlp_hidden_act", "hidden_activation", "hidden_act", "activation_function", "activation")
"""Where configurations say it; Gemma's old ones have two of them."""


def check_settings(architecture: str, config: Config, fixed: Mapping[str, Any]) -> None:
    """Raises Unsupported for an activation or another setting that the graph does not compute."""
    computed = _COMPUTED.get(architecture, "silu")
    for name in _ACTIVATION_NAMES:
        if (found := config.get(name)) is not None and found not in _SAME_ACTIVATION[computed]:
            _refuse(name, found, computed, architecture)
    for name, value in fixed.items():
        if config.get(name, default=value) != value:
            _refuse(name, config.get(name), value, architecture)


def _refuse(name: str, found: Any, computed: Any, architecture: str) -> None:
    raise Unsupported(
        f"config.json: {name} {found!r} is not what the engine's {architecture} computes, which is {computed!r}",
        "the file would answer nonsense; nothing was written",
    )


_WITHOUT_TIES = _names(
    "apertus baichuan bailingmoe2 dbrx dots1 exaone-moe gpt-oss gptneox internlm2 kimi-linear mimo2 minimax-m2",
    "nemotron olmo2 olmoe orion phi2 phimoe qwen qwen2moe stablelm xverse",
)


def needs_output(architecture: str) -> bool:
    """Whether the graph takes an output matrix of its own, even where it is the embedding."""
    return architecture in _WITHOUT_TIES


_WITH_DIVISORS = _names(
    "apertus arcee deci exaone exaone-moe exaone4 falcon-h1 gemma4 granite granitehybrid granitemoe llama llama-embed",
    "llama4 minicpm minicpm3 mistral3 pangu-embedded phi3 phimoe",
)


def takes_divisors(architecture: str) -> bool:
    """Whether the graph takes one divisor for each pair of a head (`rope_freqs`, `rope_factors_long`)."""
    return architecture in _WITH_DIVISORS


_BIASES_NEEDED: Mapping[str, str] = {
    "ssm_conv1d": "falcon-h1 granitehybrid jamba mamba mamba2 nemotron_h nemotron_h_moe",
    "ffn_up": "jais2",
    "ffn_down": "jais2",
}


def needed_bias(architecture: str, weight: str) -> str | None:
    """The bias without which the graph is not built, for a weight by its name in GGUF; None where there is none."""
    stem = re.sub(r"^blk\.\d+\.", "", weight).removesuffix(".weight")
    needed = architecture in _BIASES_NEEDED.get(stem, "").split()
    return f"{weight.removesuffix('weight')}bias" if needed else None
