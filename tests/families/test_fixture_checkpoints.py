"""Whole tiny checkpoints as the Hub ships them, with what transformers computed and what llama.cpp's converter wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from converting import convert, digests, plain, read_gguf
from engine_answers import Engine, nmse
from support import SHARED

from llamacli.checkpoint.adapter import read_adapter
from llamacli.checkpoint.source import Folder

FOLDER = SHARED / "families"
CASES = sorted(path.parent.name for path in FOLDER.glob("*/expected.npz"))
pytestmark = pytest.mark.skipif(not CASES, reason="the larger fixtures are not here")

BASES = {"lora-llama3.1": "llama3.1"}
"""Adapters, merged into their base."""

LIMITS = {"gpt_oss-mxfp4": 1e-3}
"""The engine's MXFP4 kernel rounds activations to eight bits, and it rounds yarn's corners whatever gpt-oss says."""

WINDOWS = {"phi3": 128}
"""Positions up to which the engine is right: its graph has no sliding window."""

INTENDED_TENSORS = {
    ("exaone4", "rope_freqs.weight"): "powers are rounded correctly; torch's are off by one unit in the last place",
}

INTENDED_KEYS: dict[str, str] = {
    "tokenizer.ggml.scores": "pieces without tokenizer.model get minus the merge rank, not -1000 for all",
    "tokenizer.ggml.tokens": "Gemma's runs of spaces as the pieces that they are, not as added tokens of plain spaces",
    "tokenizer.ggml.token_type": "Gemma's runs of spaces are ordinary pieces",
    "tokenizer.ggml.pre": "recognised by its expression; another name of the same expression",
    "tokenizer.ggml.add_bos_token": "written as the post-processor says instead of left to the engine",
    "tokenizer.ggml.add_eos_token": "written as the post-processor says instead of left to the engine",
    "tokenizer.ggml.add_sep_token": "written as the post-processor says instead of left to the engine",
    "tokenizer.ggml.add_space_prefix": "left to the engine where the tokenizer has no such step",
    "tokenizer.ggml.eot_token_id": "the token that ends a turn, by the template and generation_config.json",
    "tokenizer.ggml.unknown_token_id": "none, where the vocabulary has none",
    "tokenizer.llamacli.*": "what the engine's tokenizer leaves out, for our runtime",
    "gemma2.rope.freq_base": "written instead of left to the engine's default",
    "general.name": "Phi-3's name with its hyphen, by which the engine knows how its tokens strip",
}
"""Keys in which our files may differ from llama.cpp's converter's, and why."""


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`converted(name)`: the fixture as an F32 GGUF, made once."""
    out = tmp_path_factory.mktemp("fixtures")

    def make(name: str) -> Path:
        path = out / f"{name}.gguf"
        if not path.exists():
            base = BASES.get(name)
            adapters = [read_adapter(Folder(FOLDER / name))] if base else []
            convert(FOLDER / (base or name), path, adapters=adapters)
        return path

    return make


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(name: str, converted: Any) -> None:
    answers = np.load(FOLDER / name / "expected.npz")
    with Engine(converted(name)) as engine:
        for number, length in enumerate(answers["lengths"]):
            tokens = answers["tokens"][number, :length]
            if "embeddings" in answers:
                found = engine.pooled(tokens)
                found, expected = found / np.linalg.norm(found), answers["embeddings"][number][None]
            else:
                chosen = answers["logit_seq"] == number
                chosen &= answers["logit_pos"] < WINDOWS.get(name, 1 << 30)
                expected = answers["logits"][chosen]
                found = engine.logits(tokens)[answers["logit_pos"][chosen], : expected.shape[1]]
            assert nmse(found, expected) < LIMITS.get(name, 1e-6), f"sequence {number}"


@pytest.mark.parametrize("name", [name for name in CASES if (FOLDER / name / "peer_tensors.json").exists()])
def test_tensors_are_those_of_llama_cpp(name: str, converted: Any) -> None:
    theirs = {entry["name"]: entry for entry in json.loads((FOLDER / name / "peer_tensors.json").read_text())}
    ours = digests(read_gguf(converted(name)))
    assert set(ours) == set(theirs)
    for tensor, (shape, kind, digest) in ours.items():
        if (name, tensor) not in INTENDED_TENSORS:
            entry = theirs[tensor]
            assert (list(shape), kind, digest) == (entry["shape_ggml"], entry["dtype"], entry["sha256"]), tensor


@pytest.mark.parametrize("name", [name for name in CASES if (FOLDER / name / "peer_kv.json").exists()])
def test_keys_are_those_of_llama_cpp(name: str, converted: Any) -> None:
    theirs = json.loads((FOLDER / name / "peer_kv.json").read_text())
    ours = read_gguf(converted(name)).metadata
    different = {key for key in ours.keys() | theirs.keys() if not _equal(ours.get(key), theirs.get(key))}
    assert {key for key in different if not _intended(key)} == set()


def _intended(key: str) -> bool:
    return key in INTENDED_KEYS or any(key.startswith(wide[:-1]) for wide in INTENDED_KEYS if wide.endswith("*"))


def _equal(ours: Any, theirs: Any) -> bool:
    """Type and value; long arrays stand as the digest of their JSON."""
    if ours is None or theirs is None:
        return False
    kinds = [ours.type.name, *([ours.element.name] if ours.element is not None else [])]
    value = plain(ours)
    if "sha256_json" in theirs:
        found = hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()
        return kinds == theirs["type"] and found == theirs["sha256_json"]
    return kinds == theirs["type"] and json.dumps(value) == json.dumps(theirs["value"])
