"""What the engine's graph of an architecture takes for granted: a file with other biases or widths is not loaded at all.

Facts from llama.cpp's `src/models/*.cpp`, `load_arch_tensors`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

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
    ("falcon-h1 granitehybrid", "+ attn_output ffn_down ffn_gate ffn_up ssm_conv1d ssm_dt"),
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


_AS_WIDE_AS_THE_MODEL = (
    *(
        "baichuan",
        "bert",
        "cohere2",
        "command-r",
        "deepseek",
        "eurobert",
        "internlm2",
        "jamba",
        "jina-bert-v3",
        "lfm2",
        "lfm2moe",
    ),
    *("nemotron", "nomic-bert", "olmo", "olmo2", "olmoe", "orion", "phi2", "phi3", "phimoe", "qwen2", "qwen2moe"),
    *("qwen2vl", "stablelm", "starcoder2", "xverse"),
)
"""Architectures whose queries are together as wide as the residual stream."""


def check_widths(architecture: str, config: Config) -> None:
    """Raises Unsupported for heads that are not together as wide as the model where the graph wants that."""
    if architecture in _AS_WIDE_AS_THE_MODEL and config.heads * config.head_dim != config.hidden:
        raise Unsupported(
            f"config.json: {config.heads} heads of head_dim {config.head_dim} are not as wide as hidden_size {config.hidden}, "
            f"which the engine's {architecture} takes for granted",
            "it would not load the file; nothing was written",
        )
