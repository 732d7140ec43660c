"""Chat line by line, with the real engine on a tiny trained model: slash commands, branches, saving, a full context."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import Result

from llamacli.cli.app import invoke as invoke_app
from llamacli.cli.context import Context
from llamacli.cli.screen.attach import blocks_of
from llamacli.cli.screen.slash.table import SLASH, find, parse
from llamacli.errors import UsageError
from llamacli.library.chats import Chats

Chat = Callable[..., Result]

GREETING = "Hello! Do you want to hear a story?\n"


@pytest.fixture(scope="module")
def model(converted: Callable[..., Path]) -> Path:
    return converted("tinystories-chat-2m", "F16")


@pytest.fixture
def chat(context: Callable[..., Context], model: Path) -> Chat:
    """Say these lines to the model: `chat("Hello", "/undo")`, with `flags=(...)`."""

    def run(*lines: str, flags: tuple[str, ...] = (), name: str | None = str(model)) -> Result:
        here = replace(context(), stdin=io.StringIO("".join(line + "\n" for line in lines)))
        arguments = ["chat", *([name] if name else []), "--temp", "0", "-t", "1", *flags]
        code = invoke_app(arguments, here)
        out, err = here.console.out, here.console.err
        assert isinstance(out, io.StringIO) and isinstance(err, io.StringIO)
        return Result(code, out.getvalue(), err.getvalue())

    return run


def saved(home: Path) -> Chats:
    return Chats(home / "home" / "data" / "chats")


def test_answers_go_to_stdout_and_nothing_else_does(chat: Chat) -> None:
    done = chat("Hello", "/stats", "/exit", "never read")
    assert (done.code, done.out) == (0, GREETING)
    assert "answer    8 tokens" in done.err


def test_the_end_of_the_input_leaves(chat: Chat) -> None:
    assert chat("Hello").out == GREETING
    assert chat().out == ""


def test_a_message_of_several_lines(chat: Chat, tmp_path: Path) -> None:
    chat('"""', "Hello", "", 'there"""', '"""one line"""')
    texts = [node.text for node in saved(tmp_path).last().chat.path() if node.role == "user"]
    assert texts == ["Hello\n\nthere", "one line"]


def test_undo_takes_the_exchange_out_of_the_conversation_and_redo_brings_it_back(chat: Chat, tmp_path: Path) -> None:
    done = chat("Hello", "Tell me a story", "/undo", "Hello", "/undo 2", "/redo")
    stories = done.out.removeprefix(GREETING)
    assert stories.startswith("Once upon a time")
    path = saved(tmp_path).last().chat.path()
    assert [node.text for node in path if node.role == "user"] == ["Hello", "Hello"]


def test_a_second_answer_is_a_branch_and_the_first_is_not_lost(chat: Chat, tmp_path: Path) -> None:
    done = chat("Hello", "/regen 1.5", "/branches", "/switch 1", "/diff 2")
    assert done.out.startswith(GREETING) and done.code == 0
    tree = saved(tmp_path).last().chat
    assert len(tree.leaves()) == 2
    assert [node.text for node in tree.path()] == ["Hello", GREETING.strip()]
    assert "* 2  2 messages" in done.err


def test_a_fixed_seed_still_gives_another_answer_and_the_same_two_each_time(chat: Chat) -> None:
    flags = ("--temp", "1", "-s", "3", "-n", "20", "--no-save")
    first, second = (chat("Tell me a story", "/regen", flags=flags).out.splitlines() for _ in range(2))
    assert first == second and len(set(first)) == 2


def test_a_named_branch_is_found_again(chat: Chat, tmp_path: Path) -> None:
    done = chat("Hello", "/branch start", "Tell me a story", "/switch start", "/title Two ways", "/branches")
    assert done.code == 0 and "start: assistant: Hello! Do you want" in done.err
    tree = saved(tmp_path).last().chat
    assert tree.label() == "Two ways" and len(tree.path()) == 2 and len(tree.nodes) == 4


def test_an_edited_message_begins_a_branch(chat: Chat, tmp_path: Path) -> None:
    chat("Tell me a story", "/edit", "Hello")
    tree = saved(tmp_path).last().chat
    assert [node.text for node in tree.path()] == ["Hello", GREETING.strip()]
    assert len(tree.leaves()) == 2


def test_the_system_prompt_reaches_the_model_and_can_be_removed(chat: Chat) -> None:
    plain = chat("Hello", "/stats").err
    longer = chat("Hello", "/stats", flags=("-sys", "You tell stories about birds.")).err
    removed = chat("/system You tell stories.", '/system ""', "Hello", "/stats").err
    tokens = [int(text.split("prompt   ")[1].split()[0]) for text in (plain, longer, removed)]
    assert tokens[1] > tokens[0] == tokens[2]


def test_settings_are_shown_changed_and_checked(chat: Chat) -> None:
    done = chat("/set temp 0.5", "/set predict 3", "/set", "/set temp")
    assert done.code == 0
    assert "* temp 0.5" in done.err and "* predict 3" in done.err and done.err.endswith("temp 0.5\n")
    cut = chat("/set predict 3", "Tell me a story")
    assert len(cut.out) < 20 and cut.out.startswith("Once") and "[cut after 3 tokens" in cut.err


@pytest.mark.parametrize(
    "line",
    ["/set temp warm", "/set temp -1", "/set temp nan", "/set nothing 1", "/set top_p 2", "/set ignore_eos maybe",
     "/nothing", "/undo", "/undo x", "/redo", "/regen", "/regen hot", "/edit", "/branch", "/switch 9", "/stats", "/copy",
     "/heat", "/file", "/file nowhere.txt", "/export xml", "/run", "/think perhaps", "/template nowhere",
     "/model nowhere.gguf", "/help nothing"],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_exit_code(chat: Chat, line: str) -> None:
    done = chat(line, "Hello")
    assert done.code in (2, 3) and done.out == ""
    assert done.err.splitlines()[-2:][0].startswith("error: ") or done.err.splitlines()[-1].startswith("error: ")


def test_every_command_is_in_the_help(chat: Chat) -> None:
    text = chat("/help", "/help undo").err
    assert all(f"/{command.name}" in text for command in SLASH)


def test_paths_are_messages_and_unknown_words_are_not() -> None:
    assert parse("/etc/hosts is what?") is None
    assert parse("hello /undo") is None
    assert parse(" /undo") is None
    command, argument = parse("/set temp 0.3") or (None, "")
    assert command is find("set") and argument == "temp 0.3"
    assert parse("/quit") == (find("exit"), "")
    with pytest.raises(UsageError) as caught:
        parse("/und")
    assert "/undo" in caught.value.hint


def test_names_of_commands_are_unique() -> None:
    names = [name for command in SLASH for name in (command.name, *command.aliases)]
    assert len(names) == len(set(names))


def test_files_go_with_the_next_message(chat: Chat, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"text of {name}\n")
    chat("/file *.txt", "Hello", "again", flags=("-f", "a.txt"))
    questions = [node.text for node in saved(tmp_path).last().chat.path() if node.role == "user"]
    assert questions[0].count("--- a.txt ---\ntext of a.txt\n") == 2 and "--- b.txt ---" in questions[0]
    assert questions[1] == "again"


@pytest.mark.parametrize(
    "typed", ["my notes.txt", "'my notes.txt'", '"my notes.txt"', "my\\ notes.txt", "my?notes.txt"]
)
def test_a_file_dropped_on_the_terminal_is_found(chat: Chat, tmp_path: Path, typed: str) -> None:
    (tmp_path / "my notes.txt").write_text("text\n")
    assert chat(f"/file {typed}").code == 0
    assert chat("/file it's").code == 3


def test_a_pattern_is_one_within_a_folder_whose_name_looks_like_one(tmp_path: Path) -> None:
    folder = tmp_path / "[draft] a*"
    folder.mkdir()
    (folder / "x.txt").write_bytes(b"one\r\ntwo\n")
    (folder / "y.txt").write_text("three", encoding="utf-16")
    assert list(blocks_of(folder, "?.txt")) == [("x.txt", "one\ntwo\n"), ("y.txt", "three")]
    assert next(blocks_of(tmp_path, f"{folder}/x.txt"))[1] == "one\ntwo\n"


@pytest.mark.parametrize(("data", "says"), [(b"\xff\xfeabc", "not UTF-8"), (b"a\0b", "NUL byte at offset 1")])
def test_what_is_no_text_is_refused(chat: Chat, tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "x.bin").write_bytes(data)
    done = chat("/file x.bin")
    assert done.code == 2 and says in done.err


def test_commands_of_the_shell_need_a_person(chat: Chat, tmp_path: Path) -> None:
    done = chat("/run touch made", "Hello")
    assert "not run" in done.err and not (tmp_path / "made").exists() and done.out == GREETING


def test_a_conversation_is_written_as_markdown_and_json_and_never_over_a_file(chat: Chat, tmp_path: Path) -> None:
    done = chat("Hello", "/save notes.md", "/export json notes.json", "/export json", "/save notes.md", "Hello")
    assert done.code == 12 and "exists" in done.err
    assert (tmp_path / "notes.md").read_text() == f"# Hello\n\n**user**\n\nHello\n\n**assistant**\n\n{GREETING}"
    exported = json.loads((tmp_path / "notes.json").read_text())
    assert [message["role"] for message in exported["messages"]] == ["user", "assistant"]
    assert json.loads(done.out.removeprefix(GREETING)) == exported


def test_a_conversation_goes_on_where_it_was_left(chat: Chat, tmp_path: Path) -> None:
    chat("Hello", flags=("--new", "Birds"))
    again = chat("Tell me a story", flags=("-C",), name=None)
    assert again.code == 0 and again.out.startswith("Once upon a time")
    whole = chat("Hello", "Tell me a story", flags=("--no-save",))
    assert whole.out == GREETING + again.out, "a resumed conversation answers as an unbroken one"
    assert len(list(saved(tmp_path).all())) == 1
    assert len(saved(tmp_path).find("birds").chat.path()) == 4
    meter = chat("/ctx", flags=("--resume", "birds"), name=None)
    assert meter.code == 0 and " of 512 tokens" in meter.err and " 0 of 512 tokens" not in meter.err
    assert chat(flags=("--resume", "planes"), name=None).code == 3


def test_a_question_without_an_answer_can_be_asked_again(chat: Chat, tmp_path: Path) -> None:
    chat("Hello")
    journal = saved(tmp_path).last()
    journal.say({"role": "user", "content": "Tell me a story"})
    assert chat("/regen", flags=("-C",)).out.startswith("Once upon a time")


def test_nothing_is_saved_when_nothing_is_to_be(chat: Chat, tmp_path: Path) -> None:
    assert chat("Hello", "/new", "Hello", flags=("--no-save",)).out == GREETING * 2
    assert not (tmp_path / "home" / "data").exists()


def test_new_begins_another_conversation_and_keeps_the_old(chat: Chat, tmp_path: Path) -> None:
    done = chat("Hello", "/new Other", "Hello", "/sessions")
    assert done.out == GREETING * 2 and "Other" in done.err
    assert len(list(saved(tmp_path).all())) == 2


def test_clear_forgets_for_the_model_and_not_for_the_file(chat: Chat, tmp_path: Path) -> None:
    done = chat("Tell me a story", "/clear", "Hello", "/stats")
    assert done.out.endswith(GREETING) and "prompt    17 tokens" in done.err
    assert len(saved(tmp_path).last().chat.nodes) == 4


def test_a_conversation_that_cannot_be_saved_goes_on(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "data").write_text("a file where the folder should be")
    done = chat("Hello", "Hello")
    assert done.code == 0 and done.out.startswith(GREETING) and "not saved" in done.err


FULL = ("-c", "256", "-n", "40", "--ignore-eos")


def test_a_full_context_ends_a_script_with_exit_5_and_loses_nothing(chat: Chat, tmp_path: Path) -> None:
    done = chat(*["Tell me a story about a bird"] * 12, flags=FULL)
    assert done.code == 5 and "the context of 256 tokens is full" in done.err
    tree = saved(tmp_path).last().chat
    assert tree.path()[-1].role == "assistant" and len(tree.path()) > 4
    assert list(tree.nodes.values())[-1].role == "user", "the question is kept beside"


def test_the_oldest_turns_are_left_out_only_when_asked_and_never_silently(chat: Chat, tmp_path: Path) -> None:
    done = chat(*["Tell me a story about a bird"] * 12, "/ctx", flags=(*FULL, "--overflow", "drop"))
    assert done.code == 0 and "no longer sees the" in done.err
    assert len(saved(tmp_path).last().chat.path()) == 24


def test_a_summary_takes_the_place_of_the_oldest_turns_and_is_saved(
    chat: Chat, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    done = chat(*["Tell me a story about a bird"] * 8, "/ctx", flags=(*FULL, "--overflow", "compact"))
    assert done.code == 0 and "a summary stands for them" in done.err
    tree = saved(tmp_path).last().chat
    assert len(tree.path()) == 16 and tree.summaries
    last = [node.id for node in tree.path() if node.id in tree.summaries][-1]
    assert " ".join(tree.summaries[last].split()) in " ".join(done.err.split())
    again = chat("/ctx", flags=("-C", "-c", "256"), name=None)
    assert again.code == 0 and "the model no longer sees the first" in again.err
    everything = sum(len(node.text) for node in tree.path())
    prompt = invoke("run", "-C", "-n", "4", "-t", "1", "--allow-truncated", "--json", "Hi").json["usage"]["prompt"]
    assert prompt < everything / 5, "neither does run -C read what a summary stands for"


def test_what_a_full_context_does_can_be_configured(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "llamacli.toml").write_text('chat-overflow = "drop"\n')
    assert chat(*["Tell me a story about a bird"] * 8, flags=FULL).code == 0
    (tmp_path / "llamacli.toml").write_text('chat-overflow = "explode"\n')
    assert chat("Hello").code == 2


def test_a_message_longer_than_the_context_is_refused_with_numbers(chat: Chat) -> None:
    done = chat("bird " * 400, flags=("-c", "256", "--overflow", "drop"))
    assert done.code == 5 and "the context holds 256" in done.err and done.out == ""


def test_the_model_can_be_changed_in_the_middle(chat: Chat, converted: Callable[..., Path], tmp_path: Path) -> None:
    other = converted("tinystories-chat-2m", "Q8_0")
    done = chat("Hello", f"/model {other}", "Tell me a story", "/model")
    assert done.code == 0 and "Q8_0" in done.err and "Once upon a time" in done.out
    assert saved(tmp_path).last().chat.model == str(other)


def test_a_base_model_writes_a_dialogue_and_says_so(chat: Chat, converted: Callable[..., Path]) -> None:
    done = chat("Once upon a time", flags=("-n", "5"), name=str(converted("tinystories-656k-bf16", "F16")))
    assert done.code == 0 and "no chat template" in done.err and done.out.strip()


def test_what_waits_for_the_next_message_can_be_dropped(chat: Chat, tmp_path: Path) -> None:
    """A file that is too long stays attached after the error: without this, every message would fail."""
    (tmp_path / "long.txt").write_text("dog cat " * 2000)
    assert chat("/file long.txt", "Hello").code == 5
    done = chat("/file long.txt", "/file off", "/file off", "Hello", "/file long.txt", "/new", "Hello")
    assert (done.code, done.out) == (0, 2 * GREETING)
    assert "dropped 1 text\n" in done.err and "nothing was waiting" in done.err
