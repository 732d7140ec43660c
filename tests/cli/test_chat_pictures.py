"""Pictures in conversations, through a real tiny projector: shown, saved by name, found again or missed, taken back."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import Result

from llamacli.cli.app import invoke as invoke_app
from llamacli.cli.context import Context
from llamacli.cli.screen.clipboard import pasted
from llamacli.errors import UsageError
from llamacli.library.chats import Chats

sys.path.insert(0, str(Path(__file__).parent.parent / "runtime"))
from projectors import png, write_projector

RED = png(40, 30, lambda x, y: (250, 10, 10))
WAVES = png(24, 48, lambda x, y: (x * 10 % 256, y * 5 % 256, 128))

Chat = Callable[..., Result]


@pytest.fixture
def model(converted: Callable[..., Path], tmp_path: Path) -> Path:
    """A model with its projector beside it, and two pictures where the chat runs."""
    path = tmp_path / "models" / "chat.gguf"
    path.parent.mkdir()
    shutil.copyfile(converted("stories260K-hf", "F32"), path)
    write_projector(path.with_name("mmproj-chat.gguf"), "mlp", 64)
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "waves.png").write_bytes(WAVES)
    return path


@pytest.fixture
def chat(context: Callable[..., Context], model: Path) -> Chat:
    """Say these lines to the model."""

    def run(*lines: str, flags: tuple[str, ...] = (), **env: str) -> Result:
        here = replace(context(**env), stdin=io.StringIO("".join(line + "\n" for line in lines)))
        arguments = ["chat", *(() if "-C" in flags else (str(model),)), "--temp", "0", "-t", "1", "-n", "12", *flags]
        code = invoke_app(arguments, here)
        out, err = here.console.out, here.console.err
        assert isinstance(out, io.StringIO) and isinstance(err, io.StringIO)
        return Result(code, out.getvalue(), err.getvalue())

    return run


def saved(home: Path) -> Chats:
    return Chats(home / "home" / "data" / "chats")


def prompt_tokens(done: Result) -> list[int]:
    """Of every /stats."""
    return [int(part.split()[0]) for part in done.err.split("prompt   ")[1:]]


def test_a_picture_goes_with_the_next_message_only(chat: Chat, tmp_path: Path) -> None:
    plain = chat("Hello", "/stats")
    shown = chat("/image red.png", "Hello", "/stats", "Hello", "/stats")
    assert shown.code == 0 and "red.png: the picture goes with your next message" in shown.err
    assert prompt_tokens(shown)[0] >= prompt_tokens(plain)[0] + 16
    first, _, second, _ = saved(tmp_path).last().chat.path()
    assert [picture.path for picture in first.pictures] == [str(tmp_path / "red.png")]
    assert first.text == "Hello" and second.pictures == ()
    assert chat("Hello", "/stats", flags=("--image", "red.png")).out.startswith(shown.out.splitlines()[0])


def test_a_resumed_conversation_sees_its_pictures(chat: Chat, tmp_path: Path) -> None:
    """To the same answer as one that was never left."""
    chat("/image waves.png", "Hello")
    again = chat("Tell me a story", "/stats", flags=("-C",))
    whole = chat("/image waves.png", "Hello", "Tell me a story", "/stats", flags=("--no-save",))
    assert again.code == 0 and whole.out.endswith(again.out) and len(again.out) > 10
    assert prompt_tokens(again) == prompt_tokens(whole)


@pytest.mark.parametrize("change", ["gone", "another", "no projector"])
def test_a_picture_that_cannot_be_seen_any_more_is_told(chat: Chat, tmp_path: Path, change: str) -> None:
    chat("/image red.png", "Hello")
    if change == "gone":
        (tmp_path / "red.png").unlink()
    elif change == "another":
        (tmp_path / "red.png").write_bytes(WAVES)
    else:
        (tmp_path / "models" / "mmproj-chat.gguf").unlink()
    again = chat("Hello", "/regen", flags=("-C",))
    says = {"gone": "cannot read", "another": "another picture than it was", "no projector": "no projector beside it"}
    assert again.code == 0 and again.err.count("the model does not see red.png") == 1 and says[change] in again.err


def test_taken_back_and_shown_again_a_picture_is_not_mistaken_for_another(chat: Chat) -> None:
    """What stands in the KV cache after undo, branches and another picture gives what a fresh chat gives."""
    fresh = {name: chat(f"/image {name}", "Hello").out for name in ("red.png", "waves.png")}
    assert fresh["red.png"] != fresh["waves.png"], "or this shows nothing"
    red, waves = ("/image red.png", "Hello"), ("/image waves.png", "Hello")
    done = chat(*red, "/undo", *waves, "/undo", *red, "/regen", "/stats")
    assert done.out == fresh["red.png"] + fresh["waves.png"] + 2 * fresh["red.png"]
    assert " 0 already read" not in done.err
    told = chat(*red, "Go on", "/branch far", "/undo 2", *waves, "/switch far", "/undo", "Go on")
    lines = told.out.splitlines()
    assert lines[-1] == lines[1], "back on a branch the same question has the same answer"


def test_a_changed_message_keeps_its_picture(chat: Chat, tmp_path: Path) -> None:
    chat("/image red.png", "Hello", "/edit", "Tell me a story")
    question, _ = saved(tmp_path).last().chat.path()
    assert question.text == "Tell me a story" and [picture.name for picture in question.pictures] == ["red.png"]


def test_what_is_written_of_a_conversation_names_its_pictures(chat: Chat, tmp_path: Path) -> None:
    done = chat("/image red.png", "Hello", "/save notes.md", "/export json")
    assert f"![red.png]({tmp_path / 'red.png'})\n\nHello" in (tmp_path / "notes.md").read_text()
    content = json.loads(done.out.partition("\n")[2])["messages"][0]["content"]
    url = (tmp_path / "red.png").as_uri()
    assert content == [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Hello"}]
    assert "[picture red.png]" in chat("/image red.png", "Hello", "/regen 1.5", "/undo", "Hi", "/diff 1").err


@pytest.mark.parametrize(
    ("line", "code"), [("/image", 2), ("/image none.png", 3), ("/image models/chat.gguf", 2), ("/paste", 2)]
)
def test_a_mistake_is_one_line_with_its_exit_code(chat: Chat, line: str, code: int) -> None:
    done = chat(line, "Hello", PATH="")
    assert done.code == code and done.out == "" and "error: " in done.err


def test_run_goes_on_with_a_conversation_of_pictures(chat: Chat, invoke: Callable[..., Result], tmp_path: Path) -> None:
    chat("/image red.png", "Hello")
    flags = ("-C", "--temp", "0", "-n", "8", "-t", "1", "--allow-truncated", "--json")
    first = invoke("run", *flags, "Hello").json
    second = invoke("run", *flags, "--image", "waves.png", "Hello").json
    assert second["usage"]["prompt"] > first["usage"]["prompt"] + 16
    pictures = [node.pictures for node in saved(tmp_path).last().chat.path() if node.role == "user"]
    assert [[picture.name for picture in shown] for shown in pictures] == [["red.png"], [], ["waves.png"]]


@pytest.fixture
def clipboard(tmp_path: Path) -> Iterator[Callable[[bytes, str], dict[str, str]]]:
    """A real clipboard on a screen of its own."""
    if not (shutil.which("Xvfb") and shutil.which("xclip")):
        pytest.skip("needs Xvfb and xclip")
    display = f":{90 + int(tmp_path.stat().st_ino) % 400}"
    server = subprocess.Popen(["Xvfb", display, "-screen", "0", "64x64x8"], stderr=subprocess.DEVNULL)

    def put(data: bytes, kind: str) -> dict[str, str]:
        words = ["xclip", "-selection", "clipboard", "-target", kind, "-in"]
        for _ in range(50):
            done = subprocess.run(words, input=data, env={"DISPLAY": display}, stderr=subprocess.DEVNULL, check=False)
            if done.returncode == 0:
                return {"DISPLAY": display}
            time.sleep(0.1)
        raise AssertionError("no clipboard")

    yield put
    server.kill()
    server.wait()


def test_the_clipboards_picture_and_text_go_with_the_next_message(
    chat: Chat, clipboard: Callable[[bytes, str], dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    display = clipboard(RED, "image/png")
    monkeypatch.setenv("DISPLAY", display["DISPLAY"])
    chat("/paste", "Hello", **display)
    (picture,) = saved(tmp_path).last().chat.path()[0].pictures
    assert Path(picture.path).read_bytes() == RED and Path(picture.path).stat().st_mode & 0o777 == 0o600
    clipboard("Größe\n".encode(), "UTF8_STRING")
    chat("/paste", "Hello", **display)
    assert saved(tmp_path).last().chat.path()[0].text == "Hello\n--- clipboard ---\nGröße\n"
    clipboard(b"", "UTF8_STRING")
    with pytest.raises(UsageError, match="neither text nor a PNG"):
        pasted(display)
