"""The table of pre-tokenizers: each of the engine's cuts against that of Hugging Face's `tokenizers`."""

from __future__ import annotations

import json
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from engine_tokenizer import EngineTokenizer
from random_text import random_text
from tokenizers import Tokenizer, pre_tokenizers, trainers

from llamacli.checkpoint.pretokenizers import (
    TABLE,
    Cut,
    Name,
    canonical,
    engine_name,
    read_cut,
)
from llamacli.checkpoint.tokenizer_json import read_tokenizer_json
from llamacli.checkpoint.tokenizer_parts import Hints
from llamacli.checkpoint.vocabulary import Mends, Vocabulary
from llamacli.errors import CorruptFile, Unsupported
from llamacli.formats.expressions import GPT4O, LLAMA3, QWEN2

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
SENTENCE = "नमस्ते हिन्दी भाषा विश्व ภาษาไทย สวัสดี Việt đẹp বাংলা ভাষা தமிழ் e\u0301te\u0301 XÉa ÉÀ Ankara'da d'accord"
MARKED = SENTENCE.split()


@lru_cache(maxsize=1)
def corpus() -> list[str]:
    generator = random.Random(5)
    return [random_text(generator, 40) for _ in range(1500)] + [
        " ".join(generator.choices(MARKED, k=20)) for _ in range(200)
    ]


def declared(steps: tuple[str, ...]) -> dict[str, Any]:
    """The pre-tokenizer of a tokenizer.json whose steps are these."""
    parts: list[dict[str, Any]] = []
    for step in steps:
        if step in ("digit", "digits"):
            parts.append({"type": "Digits", "individual_digits": step == "digit"})
        elif step == "gpt2":
            parts.append({**BYTES, "use_regex": True})
        elif step.startswith("punctuation:"):
            parts.append({"type": "Punctuation", "behavior": step.split(":")[1]})
        else:
            behaviour = "MergedWithNext" if step.startswith("next:") else "Isolated"
            expression = step.removeprefix("next:")
            parts.append({"type": "Split", "pattern": {"Regex": expression}, "behavior": behaviour, "invert": False})
    return {"type": "Sequence", "pretokenizers": parts if "gpt2" in steps else [*parts, BYTES]}


@lru_cache(maxsize=4)
def trained(steps: tuple[str, ...]) -> dict[str, Any]:
    """A tokenizer.json with this cut, its merges learnt under it."""
    document = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": declared(steps), "post_processor": None, "decoder": None,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }  # fmt: skip
    tokenizer = Tokenizer.from_str(json.dumps(document))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2500, show_progress=False, special_tokens=["<|bos|>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    value: dict[str, Any] = json.loads(tokenizer.to_str())
    return value


ROWS = [(steps, name) for steps, names in TABLE.items() for name in names]


@pytest.mark.parametrize(("steps", "name"), ROWS, ids=[name.cut or name.pre for _, name in ROWS])
def test_the_engine_cuts_text_as_the_expression_does(steps: tuple[str, ...], name: Name, tmp_path: Path) -> None:
    document = trained(steps)
    document["model"]["ignore_merges"] = name.ignore_merges
    theirs = Tokenizer.from_str(json.dumps(document))
    draft = read_tokenizer_json(document, 4000, Hints(has_bos=True))
    vocabulary = Vocabulary(
        "gpt2", name.pre, tuple(t or "" for t in draft.tokens), tuple(draft.types), merges=draft.merges,
        special={"bos": 0, "eos": 0}, add_bos=False, mends=Mends(cut=name.cut),
    )  # fmt: skip
    generator = random.Random(name.pre)
    different = []
    with EngineTokenizer(vocabulary, tmp_path) as engine:
        for turn in range(120):
            text = random_text(generator) if turn % 3 else " ".join(generator.choices(MARKED, k=5))
            if engine.encode_mended(text) != theirs.encode(text, add_special_tokens=False).ids:
                different.append(text)
    assert not different


def test_equal_expressions_in_other_spellings_are_one() -> None:
    assert canonical(QWEN2.replace(r"\p{N}|", r"\p{N}{1}|")) == QWEN2
    assert canonical(LLAMA3.replace(r"\r", "\r").replace(r"\n", "\n")) == LLAMA3
    lowered = LLAMA3.replace(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    )
    assert canonical(lowered) == LLAMA3


def test_keeping_only_the_matches_is_isolating_them() -> None:
    part = {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Removed", "invert": True}
    assert read_cut({"type": "Sequence", "pretokenizers": [part, BYTES]}) == Cut((LLAMA3,))


@pytest.mark.parametrize(
    ("ignore_merges", "has_bos", "model_type", "pre"),
    [
        (True, True, "llama", "llama-bpe"),
        (True, False, "", "glm4"),
        (True, True, "lfm2", "lfm2"),
        (False, True, "llama", "smaug-bpe"),
        (False, True, "olmo2", "dbrx"),
        (False, False, "chatglm", "chatglm-bpe"),
    ],
)
def test_names_that_share_an_expression_are_told_apart(
    ignore_merges: bool, has_bos: bool, model_type: str, pre: str
) -> None:
    name = engine_name(
        Cut((LLAMA3,)), ignore_merges=ignore_merges, has_bos=has_bos, cleans_spaces=None, model_type=model_type
    )
    assert name.pre == pre


def test_words_with_marks_stay_whole_for_the_newer_tokenizers() -> None:
    name = engine_name(Cut((GPT4O,)), ignore_merges=False, has_bos=True, cleans_spaces=None, model_type="gpt_oss")
    assert name.pre == "granite-embed-multi-97m"


def test_an_unknown_expression_is_shown_and_refused() -> None:
    cut = read_cut({"type": "Split", "pattern": {"Regex": "x+\x1b[31m"}, "behavior": "Isolated", "invert": False})
    with pytest.raises(Unsupported) as error:
        engine_name(cut, ignore_merges=False, has_bos=True, cleans_spaces=None, model_type="")
    assert "x+" in error.value.message and "\x1b" not in error.value.message and error.value.hint


@pytest.mark.parametrize(
    "value",
    ["text", [1], {"type": "Split"}, {"type": "Split", "pattern": {}}, {"type": "Split", "pattern": {"Regex": 1}}],
)
def test_a_damaged_pre_tokenizer_is_a_corrupt_file(value: Any) -> None:
    with pytest.raises(CorruptFile):
        read_cut(value)


def test_a_chain_without_end_is_refused() -> None:
    deep: dict[str, Any] = {"type": "Sequence", "pretokenizers": [{"type": "Digits"}] * 1000}
    with pytest.raises(Unsupported):
        read_cut(deep)
