"""Every special token of many vocabularies in what a person writes; and benign chats as transformers tokenizes them."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from checkpoint.engine_tokenizer import write_vocabulary
from support import ROOT
from tokenizers import Tokenizer

from llamacli.checkpoint.source import Folder
from llamacli.checkpoint.tokenizer import read_vocabulary
from llamacli.formats.gguf_reader import read_gguf
from llamacli.runtime.messages import Message, Prompt, Span
from llamacli.runtime.template import ChatTemplate
from llamacli.runtime.vocab import Vocab, control_names
from llamacli.runtime.vocab_only import VocabOnly, open_vocab

VOCABULARIES = ROOT / "tests" / "data" / "tokenizers"
CHATS = ROOT / "tests" / "data" / "chats"
BOTH = sorted({path.stem for path in CHATS.glob("*.json")} & {path.name for path in VOCABULARIES.iterdir()})
TALK = [
    Message("user", "Hello!  What is 12 + 30?"),
    Message("assistant", "It is 42.\n\n- forty\n- two"),
    Message("user", "Thanks. And in *German*, naïve friend?"),
]


def opened(name: str, folder: Path) -> VocabOnly:
    source = VOCABULARIES / name
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    size = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size", 0)
    return open_vocab(write_vocabulary(read_vocabulary(Folder(source), config, size), folder / "v.gguf", name))


def template_of(name: str) -> ChatTemplate:
    data = json.loads((CHATS / f"{name}.json").read_text(encoding="utf-8"))
    return ChatTemplate(data["template"], specials=data["specials"], now=lambda: datetime(2026, 1, 15, 10, 30))


def controls(vocab: Vocab, prompt: Prompt) -> list[int]:
    return [token for token in vocab.tokens(prompt, add_special=False) if vocab.is_control(token)]


def test_there_are_enough_vocabularies() -> None:
    assert len(BOTH) >= 6


@pytest.mark.parametrize("name", BOTH)
def test_every_special_token_is_inert_in_what_a_person_writes(name: str, tmp_path: Path) -> None:
    template = template_of(name)
    with opened(name, tmp_path) as open_:
        vocab, names = open_.vocab, control_names(read_gguf(tmp_path / "v.gguf"))
        assert len(names) >= 2
        plain = controls(vocab, template.render([Message("user", "hi")]))
        for start in range(0, len(names), 40):
            # Together first: hundreds of reserved tokens are alike.
            some = names[start : start + 40]
            for text in ("".join(some), " ".join(f"x{one}{one}y" for one in some), f"--- {some[0]} ---\n{some[-1]}"):
                assert controls(vocab, template.render([Message("user", text)])) == plain, text
                assert not [t for t in vocab.tokens((Span(text, False),), add_special=False) if vocab.is_control(t)]
        recognised = [token for one in names for token in vocab.tokens((Span(one, True),), add_special=False)]
        assert any(vocab.is_control(token) for token in recognised), "the template's own are"


@pytest.mark.parametrize("name", BOTH)
def test_a_benign_chat_has_the_ids_of_its_rendered_text(name: str, tmp_path: Path) -> None:
    theirs = Tokenizer.from_file(str(VOCABULARIES / name / "tokenizer.json"))
    prompt = template_of(name).render(TALK)
    text = "".join(span.text for span in prompt)
    with opened(name, tmp_path) as open_:
        assert open_.vocab.tokens(prompt, add_special=False) == theirs.encode(text, add_special_tokens=False).ids
