"""Tiny checkpoints of any family, made from a list of names and shapes: the same bytes on every machine."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY = 320
"""Rows of the embedding: 256 bytes, a few merges and special tokens, and padding."""


SMALL = (("gemma4", "gemma3n"), 0.125)
"""Gemma 3n and 4 do not divide attention's scores by the root of the width: their key norms are as small as it asks for."""


def values_of(name: str, shape: tuple[int, ...], kind: str = "") -> np.ndarray:
    """float32 values that bf16 holds exactly, drawn from the tensor's name alone; `kind` is the model's type."""
    numbers = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if "norm" in name.lower() or "ln_" in name or name.endswith("layernorm.weight"):
        numbers = numbers * 0.1 + (0.9 if name.endswith("weight") else 0.0)
    elif len(shape) < 2:
        numbers *= 0.1
    else:
        numbers *= 1.5 / np.sqrt(shape[-1])
    if kind.startswith(SMALL[0]) and "k_norm" in name:
        numbers *= SMALL[1]
    bits = numbers.astype(np.float32).view(np.uint32)
    rounded: np.ndarray = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint32) << 16
    return rounded.view(np.float32)


def write_safetensors(path: Path, tensors: Mapping[str, tuple[int, ...]], kind: str = "") -> None:
    """All tensors of one file in bf16."""
    header: dict[str, Any] = {}
    data = b""
    for name, shape in tensors.items():
        raw = (values_of(name, tuple(shape), kind).view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_checkpoint(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> None:
    """A folder as from the Hub: configuration, weights and a byte-level tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", tensors, str(config.get("model_type", "")))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}')


def _tokenizer() -> dict[str, Any]:
    """GPT-2's way with words: all bytes, two merges, one special token."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]
    vocabulary = {text: number for number, text in enumerate([*letters, "th", "the"])}
    end = {
        "id": len(vocabulary), "content": "<|endoftext|>", "special": True, "single_word": False, "lstrip": False,
        "rstrip": False, "normalized": False,
    }  # fmt: skip
    cut = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "added_tokens": [end], "normalizer": None, "pre_tokenizer": cut, "decoder": cut,
        "post_processor": None,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["t h", "th e"]},
    }  # fmt: skip
