"""What goes into a message from elsewhere, and what of a conversation goes out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacli.cli.screen.attach import block, blocks_of
from llamacli.cli.screen.clipboard import copy
from llamacli.cli.screen.sanitize import sanitize
from llamacli.cli.screen.slash.command import Slash
from llamacli.errors import CannotWrite, UsageError

if TYPE_CHECKING:
    from llamacli.cli.screen.talk import Talk


def _file(talk: Talk, argument: str) -> None:
    if not argument:
        raise UsageError("/file PATH: which file?")
    for name, text in blocks_of(talk.context.cwd, argument):
        talk.attach(name, block(name, text))


def _run(talk: Talk, argument: str) -> None:
    if not argument:
        raise UsageError("/run COMMAND: which command?")
    if not talk.confirm(f"run {sanitize(argument)!r} and add its output?"):
        talk.say("not run")
        return
    done = subprocess.run(
        argument, shell=True, cwd=talk.context.cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    output = (done.stdout + done.stderr).decode("utf-8", "replace")
    talk.say(output.rstrip("\n"), dim=True)
    talk.attach(f"$ {argument}", block(f"$ {argument}  (exit {done.returncode})", output))


def _save(talk: Talk, argument: str) -> None:
    path = _target(talk, argument, ".md")
    parts = [f"# {talk.chat.label()}\n"]
    if talk.chat.system:
        parts.append(f"> {talk.chat.system}\n".replace("\n", "\n> ").removesuffix("> ") + "\n")
    parts.extend(f"**{node.role}**\n\n{node.text.rstrip()}\n" for node in talk.path)
    _write(path, "\n".join(parts))
    talk.say(f"saved {len(talk.path)} messages to {path}")


def _export(talk: Talk, argument: str) -> None:
    kind, _, name = argument.partition(" ")
    if kind != "json":
        raise UsageError("/export json [FILE]")
    messages: list[dict[str, Any]] = [{"role": "system", "content": talk.chat.system}] if talk.chat.system else []
    messages.extend(dict(node.message) for node in talk.path)
    text = json.dumps({"model": talk.chat.model, "messages": messages}, ensure_ascii=False, indent=2) + "\n"
    if not name.strip():
        talk.console.write(text)
        return
    path = _target(talk, name.strip(), ".json")
    _write(path, text)
    talk.say(f"exported {len(messages)} messages to {path}")


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
    path = talk.context.cwd / Path(name).expanduser()
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
    Slash("file", "PATH|GLOB", "Add files to your next message.", _file, completes="files"),
    Slash("run", "COMMAND", "Run a shell command (asks first) and add its output.", _run),
    Slash("save", "[FILE.md]", "Write this conversation as Markdown.", _save, completes="files"),
    Slash("export", "json [FILE]", "Write this conversation as JSON, in the chat format.", _export),
    Slash("copy", "[code]", "Copy the last answer, or its last code block.", _copy),
)
