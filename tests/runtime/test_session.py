"""Conversations with the demo model: what is kept, what is taken back, and what the model is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llamacli.errors import ContextOverflow
from llamacli.runtime.builtin_templates import BUILTIN
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.llama import LlamaEngine, open_engine
from llamacli.runtime.messages import Message, Piece, Sampling
from llamacli.runtime.open_template import template_for
from llamacli.runtime.session import Session, Thinking
from llamacli.runtime.template import ChatTemplate

GREEDY = Sampling(temp=0, predict=60)


@pytest.fixture(scope="module")
def engine(converted: Callable[..., Path]) -> Iterator[LlamaEngine]:
    with open_engine(converted("tinystories-chat-2m", "F32"), EngineSettings(threads=1)) as opened:
        yield opened


@pytest.fixture
def session(engine: LlamaEngine) -> Session:
    template = template_for(engine)
    assert template is not None
    return Session(engine, template)


def said(pieces: Iterator[Piece]) -> str:
    return "".join(piece.text for piece in pieces if piece.kind == "answer")


def test_an_answer_is_streamed_kept_and_summed_up(session: Session) -> None:
    text = said(session.ask("Hello!", GREEDY))
    assert text == "Hello! Do you want to hear a story?"
    assert session.messages == [Message("user", "Hello!"), Message("assistant", text)]
    assert session.reply is not None and session.reply.text == text and session.reply.finish == "stop"
    assert session.usage().used == session.reply.usage.prompt + session.reply.usage.completion
    assert session.usage().size == session.engine.context_size


def test_the_next_turn_reads_only_what_is_new(session: Session) -> None:
    said(session.ask("Hello!", GREEDY))
    said(session.ask("Tell me a story about a dog.", GREEDY))
    assert session.reply is not None
    assert session.reply.usage.cached > 20


def test_an_earlier_turn_is_shown_to_the_model(session: Session) -> None:
    said(session.ask("Hello!", GREEDY))
    first = session.reply
    said(session.ask("Hello!", GREEDY))
    second = session.reply
    assert first is not None and second is not None
    assert second.usage.prompt > first.usage.prompt + first.usage.completion


def test_undo_takes_back_exchanges_and_gives_back_the_words(session: Session) -> None:
    said(session.ask("Hello!", GREEDY))
    said(session.ask("Tell me a story.", GREEDY))
    assert session.undo() == "Tell me a story."
    assert session.messages[0].content == "Hello!"
    assert len(session.messages) == 2
    assert session.undo(5) == "Hello!"
    assert session.messages == [] and session.undo() == ""


def test_regen_replaces_the_last_answer(session: Session) -> None:
    first = said(session.ask("Tell me a story.", Sampling(seed=1, predict=30)))
    second = said(session.regen(Sampling(seed=2, predict=30)))
    assert first != second
    assert session.messages == [Message("user", "Tell me a story."), Message("assistant", second)]
    assert said(Session(session.engine, session.template).regen(GREEDY)) == ""


def test_the_system_message_is_set_replaced_and_removed(session: Session) -> None:
    session.replace_system("Be kind.")
    session.replace_system("Be brief.")
    said(session.ask("Hello!", GREEDY))
    assert session.system == "Be brief." and session.messages[0] == Message("system", "Be brief.")
    session.clear()
    assert session.messages == [Message("system", "Be brief.")]
    session.replace_system("")
    assert session.messages == []


def test_an_interrupted_answer_stays_as_far_as_it_came(session: Session) -> None:
    pieces = []
    for piece in session.ask("Tell me a story.", replace(GREEDY, predict=-1)):
        pieces.append(piece.text)
        if len(pieces) == 6:
            session.engine.stop()
    assert session.reply is not None and session.reply.finish == "cancel"
    assert session.messages[-1] == Message("assistant", "".join(pieces))


def test_an_answer_that_nobody_reads_to_the_end_stays_too(session: Session) -> None:
    answer = session.ask("Tell me a story.", GREEDY)
    first = next(answer).text
    answer.close()  # type: ignore[attr-defined]
    assert session.messages[-1] == Message("assistant", first)


def test_a_question_that_does_not_fit_leaves_the_conversation_as_it_was(session: Session) -> None:
    said(session.ask("Hello!", GREEDY))
    before = list(session.messages)
    with pytest.raises(ContextOverflow):
        said(session.ask("the dog ran " * 400, GREEDY))
    assert session.messages == before


def test_tokens_are_counted_before_they_are_read(session: Session) -> None:
    assert session.count() == 0
    counted = session.count("Hello!")
    said(session.ask("Hello!", GREEDY))
    assert session.reply is not None and session.reply.usage.prompt == counted


def test_an_answer_can_be_begun_for_the_model(session: Session) -> None:
    text = said(session.ask("Tell me a story.", GREEDY, prefill="Once upon a time, a frog"))
    assert text.startswith("Once upon a time, a frog ") and len(text) > 40
    assert session.messages[-1].content == text


THINKING = BUILTIN["chatml"].replace("assistant\n' }}", "assistant\n<think>\n' }}")


def test_a_template_that_opens_a_thought_gets_one(engine: LlamaEngine) -> None:
    session = Session(engine, ChatTemplate(THINKING))
    pieces = list(session.ask("Hello!", replace(GREEDY, predict=8)))
    assert {piece.kind for piece in pieces} == {"reasoning"}
    assert session.messages[-1].content == "" and session.messages[-1].reasoning


def test_a_budget_ends_a_thought_and_the_answer_follows(engine: LlamaEngine) -> None:
    session = Session(engine, ChatTemplate(THINKING), thinking=Thinking(on=True, budget=3))
    pieces = list(session.ask("Hello!", replace(GREEDY, predict=12)))
    kinds = [piece.kind for piece in pieces if piece.text]
    assert kinds[:3] == ["reasoning"] * 3 and set(kinds[3:]) == {"answer"}
    assert pieces[-1].usage is not None and pieces[-1].usage.completion == 12
    assert "</think>" not in "".join(piece.text for piece in pieces)


def test_what_the_template_asks_for_is_handed_to_it(engine: LlamaEngine) -> None:
    source = "{{ 'THINK' if enable_thinking else 'DO NOT' }} {{ colour }}{{ messages[0].content }}"
    session = Session(engine, ChatTemplate(source), thinking=Thinking(on=False), arguments={"colour": "red"})
    assert "".join(span.text for span in session._render([Message("user", "!")])) == "DO NOT red!"
