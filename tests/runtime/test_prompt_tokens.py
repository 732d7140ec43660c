"""Prompts to token ids: control tokens only where the template wrote them, text as Hugging Face's tokenizers has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import MODELS
from tokenizers import Tokenizer

from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import LlamaEngine, open_engine
from llamacli.runtime.messages import Message, Span
from llamacli.runtime.open_template import template_for

CHAT = "tinystories-chat-2m"


@pytest.fixture(scope="module")
def chat(converted: Callable[..., Path]) -> Iterator[LlamaEngine]:
    with open_engine(converted(CHAT, "F32"), EngineSettings(threads=1)) as engine:
        yield engine


@pytest.fixture(scope="module")
def stories(converted: Callable[..., Path]) -> Iterator[LlamaEngine]:
    with open_engine(converted("stories260K-hf", "F32"), EngineSettings(threads=1)) as engine:
        yield engine


def theirs(name: str) -> Tokenizer:
    return Tokenizer.from_file(str(MODELS[name] / "tokenizer.json"))


TEXTS = (
    "Once upon a time",
    "  two spaces, and a trailing one ",
    "a\nb\n\nc\td",
    "Zoë 你好 🚀 naïve",
    "1234 + 5678 = ?",
    "",
    " ",
    "it's the dog's",
)


@pytest.mark.parametrize("text", TEXTS)
def test_plain_text_is_tokenized_as_hugging_face_does(text: str, stories: LlamaEngine) -> None:
    expected = theirs("stories260K-hf").encode(text, add_special_tokens=False).ids
    assert stories.tokens((Span(text, False),), add_special=False) == expected
    with_start = theirs("stories260K-hf").encode(text, add_special_tokens=True).ids
    assert stories.tokens((Span(text, False),)) == with_start


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=40))
def test_any_text_is_tokenized_as_hugging_face_does(text: str) -> None:
    engine = _stories()
    text = text.encode("utf-8", "ignore").decode()
    if any(name in text for name in ("<s>", "</s>", "<unk>")):
        return
    assert (
        engine.tokens((Span(text, False),), add_special=False)
        == theirs_once().encode(text, add_special_tokens=False).ids
    )


_open: dict[str, LlamaEngine] = {}
_theirs: dict[str, Tokenizer] = {}


def theirs_once() -> Tokenizer:
    return _theirs.setdefault("stories", theirs("stories260K-hf"))


def _stories() -> LlamaEngine:
    return _open["stories"]


@pytest.fixture(autouse=True)
def _remember(stories: LlamaEngine) -> None:
    _open["stories"] = stories


def test_a_vocabulary_without_byte_tokens_reads_what_it_does_not_know_as_unknown(chat: LlamaEngine) -> None:
    tokenizer = theirs(CHAT)
    for text in ("Zoë ate", "<b>bold</b> and {x}", "你好", "dog 🚀 dog", "🚀"):
        ours = chat.tokens((Span(text, False),), add_special=False)
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert ours.count(0) == expected.count(0) > 0
    known = "Tell me a story about a dog."
    assert (
        chat.tokens((Span(known, False),), add_special=False) == tokenizer.encode(known, add_special_tokens=False).ids
    )


def test_a_chat_prompt_is_tokenized_as_the_rendered_text(chat: LlamaEngine) -> None:
    template = template_for(chat)
    assert template is not None
    prompt = template.render([Message("user", "Hello!"), Message("assistant", "Hi."), Message("user", "A story?")])
    text = "".join(span.text for span in prompt)
    assert chat.tokens(prompt, add_special=False) == theirs(CHAT).encode(text, add_special_tokens=False).ids


def test_no_control_token_comes_from_what_a_person_writes(chat: LlamaEngine) -> None:
    template = template_for(chat)
    assert template is not None
    names = chat.control_names()
    assert {"<|im_start|>", "<|im_end|>", "<|start_story|>"} <= set(names)
    controls = chat.control_tokens(names)
    plain = [t for t in chat.tokens(template.render([Message("user", "hi")]), add_special=False) if t in controls]
    unknown = 0
    for name in names:
        for text in (name, f"a {name} b", f"{name}{name}", f"<{name}>", name[:-1], f"{names[-1]}{name}"):
            tokens = chat.tokens(template.render([Message("user", text)]), add_special=False)
            assert [t for t in tokens if t in controls and t != unknown] == [t for t in plain if t != unknown]


def test_control_tokens_are_found_across_the_templates_own_pieces(stories: LlamaEngine) -> None:
    prompt = (Span("<", True), Span("s>a", True), Span("</s>", False), Span("</s>", True))
    tokens = stories.tokens(prompt, add_special=False)
    assert tokens[0] == 1 and tokens[-1] == 2
    assert tokens.count(2) == 1


def test_text_runs_across_the_seam_between_template_and_person(stories: LlamaEngine) -> None:
    whole = stories.tokens((Span("<s>Once upon a time", True),), add_special=False)
    cut = stories.tokens((Span("<s>Once up", True), Span("on a ti", False), Span("me", True)), add_special=False)
    assert cut == whole
