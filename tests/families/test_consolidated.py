"""Mistral's own format: the same weights in both formats give the same file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from converting import architecture_keys, convert, digests, read_gguf
from support import MODELS, Result

from llamacli.checkpoint.checkpoint import Checkpoint
from llamacli.checkpoint.consolidated import config_of_params
from llamacli.checkpoint.source import Folder
from llamacli.errors import Unsupported
from llamacli.formats.rows import Arena, row_count

SOURCE = MODELS["tinystories-656k-wide256"]
PARTS = {
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
WHOLE = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}


def original_order(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows as the model's own code has them: the two halves of a head interleaved."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_consolidated(folder: Path, **changes: Any) -> None:
    """The source in Mistral's format."""
    folder.mkdir()
    found = Checkpoint.open(Folder(SOURCE))
    heads = {"q_proj": found.config["num_attention_heads"], "k_proj": found.config["num_key_value_heads"]}
    header, data = {}, b""
    for name, tensor in found.tensors.items():
        stem = name.removesuffix(".weight")
        values = tensor.read_raw(0, row_count(tensor.shape), Arena()).copy().reshape(tensor.shape)
        if (kind := stem.rpartition(".")[2]) in heads:
            values = original_order(values, heads[kind])
        match = re.match(r"model\.layers\.(\d+)\.(.*)", stem)
        raw = values.tobytes()
        header[f"layers.{match[1]}.{PARTS[match[2]]}.weight" if match else f"{WHOLE[stem]}.weight"] = {
            "dtype": tensor.stored, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)],
        }  # fmt: skip
        data += raw
    text = json.dumps(header).encode()
    (folder / "consolidated.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    config = found.config
    params = {
        "dim": config["hidden_size"], "n_layers": config["num_hidden_layers"], "n_heads": config["num_attention_heads"],
        "n_kv_heads": config["num_key_value_heads"], "hidden_dim": config["intermediate_size"],
        "head_dim": config["hidden_size"] // config["num_attention_heads"], "norm_eps": config["rms_norm_eps"],
        "vocab_size": config["vocab_size"], "rope_theta": config["rope_theta"],
        "max_seq_len": config["max_position_embeddings"], **changes,
    }  # fmt: skip
    (folder / "params.json").write_text(json.dumps(params))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (folder / name).write_bytes((SOURCE / name).read_bytes())


def test_both_formats_give_the_same_tensors_and_keys(tmp_path: Path) -> None:
    write_consolidated(tmp_path / "own")
    own = read_gguf(convert(tmp_path / "own", tmp_path / "own.gguf"))
    usual = read_gguf(convert(SOURCE, tmp_path / "usual.gguf"))
    assert digests(own) == digests(usual)
    assert architecture_keys(own.metadata) == architecture_keys(usual.metadata)


def test_the_usual_format_wins_where_both_are(tmp_path: Path, invoke: Any) -> None:
    write_consolidated(tmp_path / "both")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "both" / name).write_bytes((SOURCE / name).read_bytes())
    done: Result = invoke("quantize", tmp_path / "both", "--dry-run", "--json", "-q", "F32")
    assert done.code == 0, done.err
    assert "LlamaForCausalLM" in done.err


def test_yarn_and_temperature_are_read_from_params() -> None:
    params = {
        "dim": 64, "yarn": {"factor": 16, "beta": 32, "alpha": 1, "original_max_position_embeddings": 256,
                            "apply_scale": False}, "llama_4_scaling": {"beta": 0.1},
    }  # fmt: skip
    config = config_of_params(params)
    assert config["architectures"] == ["MistralScaledConsolidated"]
    assert config["rope_parameters"]["beta_fast"] == 32
    assert config["rope_parameters"]["mscale_all_dim"] == 1.0
    assert config["rope_parameters"]["llama_4_scaling_beta"] == 0.1


def test_latent_attention_in_this_format_is_refused() -> None:
    with pytest.raises(Unsupported, match="latent attention"):
        config_of_params({"dim": 64, "q_lora_rank": 8})
