"""What goes into a message from elsewhere, and what of a conversation goes out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llamacli.cli.context import located
from llamacli.cli.screen.attach import Attached, as_typed, block, blocks_of
from llamacli.cli.screen.clipboard import copy, pasted
from llamacli.cli.screen.sanitize import sanitize
from llamacli.cli.screen.slash.command import Slash
from llamacli.cli.transcript import as_markdown, as_object
from llamacli.errors import CannotWrite, UsageError

if TYPE_CHECKING:
    from llamacli.cli.screen.talk import Talk


def _file(talk: Talk, argument: str) -> None:
    if not argument:
        raise UsageError("/file PATH: which file?")
    if argument == "off":
        talk.say(f"dropped {talk.attached}" if talk.attached else "nothing was waiting")
        talk.attached = Attached()
        return
    for name, text in blocks_of(talk.context.cwd, as_typed(talk.context.cwd, argument)):
        talk.attach(name, block(name, text))


def _image(talk: Talk, argument: str) -> None:
    if not argument:
        raise UsageError("/image PATH: which picture?")
    talk.attach_picture(as_typed(talk.context.cwd, argument))


def _paste(talk: Talk, argument: str) -> None:
    found = pasted(talk.context.env)
    if isinstance(found, str):
        talk.attach("clipboard", block("clipboard", found))
        return
    name = f"{hashlib.sha256(found).hexdigest()[:16]}.png"
    path = talk.chats.folder / "pictures" / name
    picture = talk.model.gallery.add(found, path, "the picture on the clipboard")
    if talk.journal.path is not None and not path.exists():
        _keep(path, found)
    talk.show(picture)


def _keep(path: Path, data: bytes) -> None:
    """A pasted picture has no file of its own: keep it beside the conversations, for their owner only."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(data)
    except OSError as error:
        raise CannotWrite(f"cannot keep the picture: {path}: {error.strerror}") from error


def _run(talk: Talk, argument: str) -> None:
    if not argument:
        raise UsageError("/run COMMAND: which command?")
    if not talk.confirm(f"run {sanitize(argument)!r} and add its output?"):
        talk.say("not run")
        return
    done = subprocess.run(
        argument, shell=True, cwd=talk.context.cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    output = _printed(done.stdout + done.stderr)
    talk.say(output.rstrip("\n"), dim=True)
    talk.attach(f"$ {argument}", block(f"$ {argument}  (exit {done.returncode})", output))


def _printed(data: bytes) -> str:
    """What a program has printed: UTF-8, or on Windows, where it is none, the console's own character set."""
    if sys.platform == "win32":
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode("utf-8").replace("\r\n", "\n")
        return data.decode("oem", "replace").replace("\r\n", "\n")
    return data.decode("utf-8", "replace")


def _save(talk: Talk, argument: str) -> None:
    path = _target(talk, argument, ".md")
    _write(path, as_markdown(talk.chat))
    talk.say(f"saved {len(talk.path)} messages to {path}")


def _export(talk: Talk, argument: str) -> None:
    kind, _, name = argument.partition(" ")
    if kind != "json":
        raise UsageError("/export json [FILE]")
    found = as_object(talk.chat)
    text = json.dumps(found, ensure_ascii=False, indent=2) + "\n"
    if not name.strip():
        talk.console.write(text)
        return
    path = _target(talk, name.strip(), ".json")
    _write(path, text)
    talk.say(f"exported {len(found['messages'])} messages to {path}")


def _copy(talk: Talk, argument: str) -> None:
    answer = next((node.text for node in reversed(talk.path) if node.role == "assistant"), "")
    if not answer:
        raise UsageError("there is no answer to copy")
    if argument == "code":
        answer = last_code(answer)
    elif argument:
        raise UsageError("/copy, or /copy code")
    way = copy(answer, talk.context.env, talk.console.err if talk.look.redraw else None)
    talk.say(f"copied {len(answer)} characters ({way})")


def last_code(answer: str) -> str:
    """The last fenced code block of an answer. Raises UsageError if it has none."""
    parts = answer.split("```")
    if len(parts) < 3:
        raise UsageError("the last answer has no code")
    inner = parts[-2] if len(parts) % 2 else parts[-1]
    return inner.partition("\n")[2]


def _target(talk: Talk, argument: str, suffix: str) -> Path:
    """Where to write: never over a file that exists."""
    name = argument or f"chat-{talk.chat.id}{suffix}"
    path = located(talk.context.cwd, name)
    if path.exists():
        raise CannotWrite(f"{path} exists", "choose another name")
    return path


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}") from error


COMMANDS = (
    Slash(
        "file", "PATH|GLOB|off", "Add files to your next message, or drop what waits for it.", _file, completes="files"
    ),
    Slash("image", "PATH", "Show the model a picture with your next message.", _image, completes="files"),
    Slash("paste", "", "Add what is on the clipboard, a picture or text, to your next message.", _paste),
    Slash("run", "COMMAND", "Run a shell command (asks first) and add its output.", _run),
    Slash("save", "[FILE.md]", "Write this conversation as Markdown.", _save, completes="files"),
    Slash("export", "json [FILE]", "Write this conversation as JSON, in the chat format.", _export),
    Slash("copy", "[code]", "Copy the last answer, or its last code block.", _copy),
)
