"""Saved conversations survive crashes, branches and damaged files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacli.errors import CannotWrite, NotFound
from llamacli.library.chats import Chat, Chats, Journal, read

user = {"role": "user", "content": "Hello"}
answer = {"role": "assistant", "content": "Hi!\nHow are you?"}

texts = st.text(max_size=30)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from(["user", "assistant"]), texts),
        st.tuples(st.just("move"), st.integers(0, 50), st.just("")),
        st.tuples(st.just("title"), texts, st.just("")),
        st.tuples(st.just("name"), st.integers(0, 50), texts),
    ),
    max_size=20,
)


def carry_out(journal: Journal, actions: list[tuple[str, object, str]]) -> None:
    for kind, first, second in actions:
        names = list(journal.chat.nodes)
        if kind == "say":
            journal.say({"role": first, "content": second})
        elif kind == "title":
            journal.record({"type": "title", "value": first})
        elif names and isinstance(first, int):
            chosen = names[first % len(names)]
            if kind == "move":
                journal.move(chosen)
            else:
                journal.record({"type": "branch", "id": chosen, "name": second})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chats")


@settings(deadline=None, max_examples=60)
@given(steps)
def test_a_chat_read_back_is_the_chat_that_was_held(folder: Path, actions: list[tuple[str, object, str]]) -> None:
    journal = Chats(folder).new("m", 12.0)
    carry_out(journal, actions)
    assert journal.path is not None
    if journal.chat.nodes:
        back = read(journal.path)
        assert without_surrogates(back) == without_surrogates(journal.chat)
    else:
        assert not journal.path.exists()


def without_surrogates(chat: Chat) -> str:
    return repr(chat).encode("utf-8", "replace").decode()


@settings(deadline=None, max_examples=60)
@given(steps, st.integers(0, 10_000))
def test_a_crash_while_writing_costs_at_most_the_last_line(
    folder: Path, actions: list[tuple[str, object, str]], cut: int
) -> None:
    journal = Chats(folder).new("m", 0.0)
    carry_out(journal, [("say", "user", "first"), *actions])
    assert journal.path is not None
    whole = journal.path.read_bytes()
    last_line = whole.rstrip(b"\n").rfind(b"\n") + 1
    torn = whole[: last_line + cut % (len(whole) - last_line)]
    before = Chat(journal.chat.id)
    for line in whole[:last_line].splitlines():
        before.apply(json.loads(line))
    journal.path.write_bytes(torn)
    survived = read(journal.path)
    assert survived.damaged <= 1
    assert repr(survived).replace("damaged=1", "damaged=0") in (repr(before), repr(read_text(whole, journal.path)))
    again = Journal(survived, journal.path)
    node = again.say({"role": "user", "content": "after the crash"})
    assert read(journal.path).nodes[node.id].text == "after the crash"
    assert read(journal.path).nodes[node.id].parent == survived.nodes[node.id].parent


def read_text(data: bytes, path: Path) -> Chat:
    path.write_bytes(data)
    return read(path)


@settings(deadline=None, max_examples=400)
@given(st.lists(st.one_of(st.binary(max_size=40), st.dictionaries(
    st.sampled_from(["type", "id", "parent", "role", "content", "value", "name"]),
    st.one_of(st.none(), st.text(max_size=5), st.integers(), st.lists(st.integers(), max_size=2),
              st.sampled_from(["message", "head", "branch", "title", "chat", "a", "b"])),
).map(lambda event: json.dumps(event).encode())), max_size=12))  # fmt: skip
def test_any_file_can_be_read_and_gone_on_with(folder: Path, lines: list[bytes]) -> None:
    path = folder / "any.jsonl"
    path.write_bytes(b"\n".join(lines))
    chat = read(path)
    chat.path()
    chat.leaves()
    chat.label()
    Journal(chat, path).say(user)
    assert read(path).path()[-1].text == "Hello"


def test_a_regenerated_answer_is_a_sibling_and_nothing_is_lost(tmp_path: Path) -> None:
    journal = Chats(tmp_path).new("m", 0.0)
    question = journal.say(user)
    first = journal.say(answer)
    journal.move(question.id)
    second = journal.say({"role": "assistant", "content": "Good day."})
    back = Chats(tmp_path).last().chat
    assert [node.text for node in back.path()] == ["Hello", "Good day."]
    assert [node.text for node in back.path(first.id)] == ["Hello", "Hi!\nHow are you?"]
    assert {node.id for node in back.leaves()} == {first.id, second.id}


def test_messages_are_stored_in_the_chat_format_with_parents(tmp_path: Path) -> None:
    journal = Chats(tmp_path).new("demo", 7.0)
    journal.say(user)
    journal.say(answer, stopped=True)
    assert journal.path is not None
    lines = [json.loads(line) for line in journal.path.read_text("utf-8").splitlines()]
    assert lines[0]["type"] == "chat" and lines[0]["model"] == "demo"
    assert lines[1]["role"] == "user" and lines[1]["parent"] is None
    assert lines[2]["content"] == answer["content"] and lines[2]["parent"] == lines[1]["id"] and lines[2]["stopped"]


@pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")
def test_a_conversation_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    journal = Chats(tmp_path / "new" / "chats").new("m", 0.0)
    journal.say(user)
    assert journal.path is not None
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700


def test_without_saving_no_file_appears(tmp_path: Path) -> None:
    journal = Chats(tmp_path).new("m", 0.0, save=False)
    journal.say(user)
    assert list(tmp_path.iterdir()) == []
    assert [node.text for node in journal.chat.path()] == ["Hello"]


def test_chats_are_found_by_id_title_and_words(tmp_path: Path) -> None:
    chats = Chats(tmp_path)
    tax = chats.new("m", 0.0, title="Tax letter")
    tax.say(user)
    poem = chats.new("m", 1.0)
    poem.say({"role": "user", "content": "Write a poem about a tax collector"})
    assert chats.find(tax.chat.id[:6]).chat.id == tax.chat.id
    assert chats.find("tax letter").chat.id == tax.chat.id
    assert chats.find("POEM").chat.id == poem.chat.id
    with pytest.raises(NotFound, match="several"):
        chats.find("tax")
    with pytest.raises(NotFound, match="no conversation"):
        chats.find("holiday")


def test_the_last_chat_is_the_one_used_last(tmp_path: Path) -> None:
    chats = Chats(tmp_path)
    with pytest.raises(NotFound):
        chats.last()
    first, second = chats.new("m", 0.0), chats.new("m", 0.0)
    for journal, stamp in ((first, 2_000_000_000), (second, 1_000_000_000)):
        journal.say(user)
        assert journal.path is not None
        os.utime(journal.path, (stamp, stamp))
    assert chats.last().chat.id == first.chat.id


def test_a_message_that_could_not_be_saved_is_saved_with_the_next(tmp_path: Path) -> None:
    blocked = tmp_path / "chats"
    blocked.write_text("a file where the folder should be")
    journal = Chats(blocked).new("m", 0.0)
    with pytest.raises(CannotWrite, match="not saved"):
        journal.say(user)
    blocked.unlink()
    journal.say(answer)
    assert [node.text for node in Chats(blocked).last().chat.path()] == ["Hello", answer["content"]]


def test_what_cannot_be_read_hides_no_other_conversation(tmp_path: Path) -> None:
    chats = Chats(tmp_path)
    chats.new("m.gguf", 1.0).say(user)
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nothing")
    assert len(list(chats.all())) == 1 and chats.last().chat.nodes


def test_a_file_name_of_any_bytes_comes_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"/models/caf\xe9.gguf")
    chats = Chats(tmp_path)
    chats.new(name, 1.0).say(user)
    assert chats.last().chat.model == name
