"""Qwen 3's rerankers: causal models whose file gets the two rows of the output that decide."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from converting import convert, read_gguf
from engine_answers import Engine
from support import ROOT
from synthetic import write_checkpoint

TOKENS = [168, 201, 8, 202, 118, 130, 158]
YES, NO = 259, 260


def checkpoint(folder: Path, *, tied: bool, card: str = "") -> Path:
    """A tiny Qwen 3 whose tokenizer has the two answers."""
    case = json.loads((ROOT / "tests" / "data" / "families" / "qwen3.json").read_text())
    tensors = {name: tuple(shape) for name, shape in case["tensors"].items()}
    tensors.pop("lm_head.weight", None)
    if not tied:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_checkpoint(folder, {**case["config"], "tie_word_embeddings": tied}, tensors)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"].update({"yes": YES, "no": NO})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    if card:
        (folder / "README.md").write_text(f"---\nlicense: apache-2.0\n---\n{card}\n")
    return folder


@pytest.mark.parametrize("tied", [False, True])
def test_the_score_is_the_share_of_yes(tied: bool, tmp_path: Path) -> None:
    plain = convert(checkpoint(tmp_path / "plain", tied=tied), tmp_path / "plain.gguf")
    ranks = convert(checkpoint(tmp_path / "ranks", tied=tied, card="# Qwen3-Reranker-0.6B"), tmp_path / "ranks.gguf")
    with Engine(plain) as engine:
        answers = np.exp(engine.logits(TOKENS)[-1][[YES, NO]].astype(np.float64))
    with Engine(ranks) as engine:
        np.testing.assert_allclose(engine.ranked(TOKENS)[0], answers / answers.sum(), rtol=1e-5)
    found = read_gguf(ranks)
    assert found.get("tokenizer.chat_template.rerank").endswith("<think>\n\n</think>\n\n")
    assert found.get("qwen3.classifier.output_labels") == ("yes", "no")
    assert "output.weight" not in {info.name for info in found.tensors}


def test_the_name_of_the_folder_is_enough(tmp_path: Path) -> None:
    found = convert(checkpoint(tmp_path / "Qwen3-Reranker-0.6B", tied=True), tmp_path / "x.gguf")
    assert "cls.output.weight" in {info.name for info in read_gguf(found).tensors}


@pytest.mark.parametrize("card", ["", "# Qwen3-0.6B", "Better than Qwen3-Reranker-0.6B."])
def test_other_models_stay_what_they_are(card: str, tmp_path: Path) -> None:
    found = read_gguf(convert(checkpoint(tmp_path / "model", tied=True, card=card), tmp_path / "x.gguf"))
    assert found.get("qwen3.pooling_type") is None
    assert "cls.output.weight" not in {info.name for info in found.tensors}
