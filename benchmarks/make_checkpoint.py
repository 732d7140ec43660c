"""Make a random checkpoint of a real model's shape: the weights mean nothing, sizes and speeds are those of the real one.

    python benchmarks/make_checkpoint.py FOLDER --tokenizer FOLDER [--shape llama-3.2-1b] [--layers N] [--shards N] [--quick]

With --quick the same few million weights are written again and again. The tokenizer comes from a folder
that has one (tokenizer.json, tokenizer_config.json); the vocabulary is padded to the shape's size by the converter.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

SHAPES = {
    "llama-3.2-1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
                     "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True},
    "llama-3.1-8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
                     "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "tie_word_embeddings": False},
    "mixtral-8x7b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
                     "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 32000, "tie_word_embeddings": False,
                     "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 8,
                     "num_experts_per_tok": 2, "rope_scaling": None, "bos_token_id": 1, "eos_token_id": 2},
}  # fmt: skip
COMMON = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072, "rope_theta": 500000.0, "bos_token_id": 128000, "eos_token_id": 128001,
    "torch_dtype": "bfloat16", "attention_bias": False, "mlp_bias": False,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
}  # fmt: skip


def tensors(config: dict) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order of the Hub's files."""
    hidden, ff, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    found = [("model.embed_tokens.weight", (config["vocab_size"], hidden))]
    for block in range(config["num_hidden_layers"]):
        found += [
            (f"model.layers.{block}.{name}.weight", shape)
            for name, shape in (
                ("input_layernorm", (hidden,)), *feed_forward(config, hidden, ff), ("post_attention_layernorm", (hidden,)),
                ("self_attn.k_proj", (kv, hidden)), ("self_attn.o_proj", (hidden, q)), ("self_attn.q_proj", (q, hidden)),
                ("self_attn.v_proj", (kv, hidden)),
            )
        ]  # fmt: skip
    found.append(("model.norm.weight", (hidden,)))
    if not config["tie_word_embeddings"]:
        found.append(("lm_head.weight", (config["vocab_size"], hidden)))
    return found


def feed_forward(config: dict, hidden: int, ff: int) -> list[tuple[str, tuple[int, ...]]]:
    """A block's dense matrices, or its router and experts."""
    shapes = {"down_proj": (hidden, ff), "gate_proj": (ff, hidden), "up_proj": (ff, hidden)}
    experts = config.get("num_local_experts", 0)
    if not experts:
        return [(f"mlp.{name}", shape) for name, shape in shapes.items()]
    names = {"down_proj": "w2", "gate_proj": "w1", "up_proj": "w3"}
    return [("block_sparse_moe.gate", (experts, hidden))] + [
        (f"block_sparse_moe.experts.{expert}.{names[name]}", shape)
        for expert in range(experts)
        for name, shape in shapes.items()
    ]


def write_shard(
    path: Path, entries: list[tuple[str, tuple[int, ...]]], random: np.random.Generator, *, quick: bool
) -> None:
    """One safetensors file of normal bf16 weights, written in pieces."""
    drawn = random.standard_normal(1 << 22, np.float32) * np.float32(0.02)
    header, end = {}, 0
    for name, shape in entries:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for _, shape in entries:
            left = int(np.prod(shape))
            while left:
                count = min(left, 1 << 22)
                if not quick:
                    drawn = random.standard_normal(1 << 22, np.float32) * np.float32(0.02)
                values = drawn[:count] + (len(shape) == 1)
                file.write((values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes())
                left -= count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tokenizer", type=Path, required=True)
    arguments = parser.parse_args()
    config = {**COMMON, **SHAPES[arguments.shape]}
    config["num_hidden_layers"] = arguments.layers or config["num_hidden_layers"]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "config.json").write_text(json.dumps(config, indent=1))
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        if (arguments.tokenizer / name).exists():
            shutil.copy(arguments.tokenizer / name, arguments.folder / name)
    random = np.random.default_rng(1)
    entries = tensors(config)
    if arguments.shards == 1:
        write_shard(arguments.folder / "model.safetensors", entries, random, quick=arguments.quick)
        return
    per_shard = -(-len(entries) // arguments.shards)
    weight_map = {}
    for number in range(arguments.shards):
        name = f"model-{number + 1:05}-of-{arguments.shards:05}.safetensors"
        part = entries[number * per_shard : (number + 1) * per_shard]
        write_shard(arguments.folder / name, part, random, quick=arguments.quick)
        weight_map.update({tensor: name for tensor, _ in part})
    index = {"metadata": {}, "weight_map": weight_map}
    (arguments.folder / "model.safetensors.index.json").write_text(json.dumps(index))


if __name__ == "__main__":
    main()
