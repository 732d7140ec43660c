"""Real tokenizers of published models, where they stand beside the project: exact against Hugging Face's library."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import sentencepiece
from engine_tokenizer import EngineTokenizer
from random_text import random_text
from tokenizers import Tokenizer

from llamacli.checkpoint.source import Folder
from llamacli.checkpoint.tokenizer import read_vocabulary

DATA = Path(__file__).parent.parent / "data" / "tokenizers"
REAL = Path(__file__).parents[3] / "shared" / "fixtures" / "tokenizers"
ROWS = {"llama-3.1": 128_256, "phi3-merge": 32_064, "pythia-410m": 50_304, "qwen2.5": 152_064}

needs_real = pytest.mark.skipif(not REAL.exists(), reason="the published tokenizers are not here")


@needs_real
@pytest.mark.parametrize("name", sorted(ROWS))
def test_published_tokenizers_give_the_expected_ids(name: str, tmp_path: Path) -> None:
    folder = REAL / name
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = json.loads((folder / "expected_ids.json").read_text(encoding="utf-8"))
    generator = random.Random(name)
    with EngineTokenizer(read_vocabulary(Folder(folder), {}, ROWS[name]), tmp_path, name=name) as engine:
        for case in expected["texts"]:
            assert engine.encode_mended(case["text"]) == case["ids"], case["text"]
            assert engine.encode_mended(case["text"], add_special=True) == case["ids_special"], case["text"]
        for _ in range(300):
            text = random_text(generator)
            assert engine.encode_mended(text) == theirs.encode(text, add_special_tokens=False).ids, text


@needs_real
def test_llama_3_gives_the_ids_of_llama_cpp_s_own_cases(tmp_path: Path) -> None:
    vocabulary = read_vocabulary(Folder(REAL / "llama-3.1"), {}, 128_256)
    with EngineTokenizer(vocabulary, tmp_path) as engine:
        for case in json.loads((DATA / "llama-bpe-cases.json").read_text(encoding="utf-8")):
            assert engine.encode(case["text"]) == case["ids"], case["text"]


@needs_real
@pytest.mark.parametrize("path", sorted((REAL / "mistral").glob("*.model*")), ids=lambda path: path.name)
def test_sentencepiece_models_give_sentencepiece_s_ids(path: Path, tmp_path: Path) -> None:
    theirs = sentencepiece.SentencePieceProcessor()
    theirs.LoadFromFile(str(path))
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(path.read_bytes())
    vocabulary = read_vocabulary(Folder(folder), {}, theirs.GetPieceSize())
    generator = random.Random(path.name)
    with EngineTokenizer(vocabulary, tmp_path) as engine:
        for _ in range(200):
            text = random_text(generator)
            assert engine.encode(text, parse_special=False) == theirs.Encode(text), text
