"""All slash commands, in the order of /help, and what Tab offers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llamacli.cli.context import located
from llamacli.cli.screen.slash import files, saved, settings, turns, view
from llamacli.cli.screen.slash.command import Slash
from llamacli.errors import UsageError

if TYPE_CHECKING:
    from llamacli.cli.screen.talk import Talk

SLASH: tuple[Slash, ...] = (
    *saved.COMMANDS,
    *turns.COMMANDS,
    *settings.COMMANDS,
    *files.COMMANDS,
    *view.COMMANDS,
)

_WORD = re.compile(r"/([a-z?]+)(?:\s+(.*))?", re.DOTALL)


def find(name: str) -> Slash | None:
    """The command with this name or alias."""
    return next((command for command in SLASH if name == command.name or name in command.aliases), None)


def parse(text: str) -> tuple[Slash, str] | None:
    """Command and argument of a message that is one, or None. `/etc/hosts ...` is a message, `/unknown` an error."""
    match = _WORD.fullmatch(text)
    if match is None:
        return None
    command = find(match[1])
    if command is None:
        raise UsageError(f"no command /{match[1]}", saved.nearest(match[1], [command.name for command in SLASH]))
    return command, (match[2] or "").strip()


def complete(talk: Talk, before: str) -> Iterator[tuple[str, int]]:
    """Candidates for what stands before the cursor: text to insert, and how many typed characters it replaces."""
    if not before.startswith("/") or "\n" in before:
        return
    word, space, rest = before[1:].partition(" ")
    if not space:
        yield from ((f"/{command.name}", len(before)) for command in SLASH if command.name.startswith(word))
        return
    command = find(word)
    for candidate in _candidates(talk, command.completes if command else "", rest):
        if candidate.startswith(rest):
            yield candidate, len(rest)


def _candidates(talk: Talk, kind: str, typed: str) -> Iterator[str]:
    if kind == "files":
        yield from _paths(talk.context.cwd, typed)
    elif kind == "commands":
        yield from (command.name for command in SLASH)
    elif kind == "settings":
        yield from settings.settable()
    elif kind == "branches":
        yield from talk.chat.names.values()
    elif kind == "models":
        yield from _paths(talk.context.cwd, typed)


def _paths(folder: Path, typed: str) -> Iterator[str]:
    """Files and folders that begin with what was typed, hidden ones only when asked for."""
    cut = max(typed.rfind("/"), typed.rfind(os.sep)) + 1
    head, start = typed[:cut], typed[cut:]
    where = located(folder, head)
    try:
        entries = sorted(where.iterdir(), key=lambda path: path.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(start) and (start or not entry.name.startswith(".")):
            yield head + entry.name + ("/" if entry.is_dir() else "")
