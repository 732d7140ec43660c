"""A conversation among the others, and the way out."""

from __future__ import annotations

import difflib
from itertools import islice
from typing import TYPE_CHECKING

from llamacli.cli.screen.slash.command import Slash
from llamacli.errors import UsageError

if TYPE_CHECKING:
    from llamacli.cli.screen.talk import Talk

_LISTED = 20


def _help(talk: Talk, argument: str) -> None:
    from llamacli.cli.screen.slash.table import SLASH, find

    if argument:
        command = find(argument.lstrip("/"))
        if command is None:
            raise UsageError(f"no command /{argument.lstrip('/')}", "/help lists them all")
        names = "".join(f", /{alias}" for alias in command.aliases)
        talk.say(f"/{command.name} {command.arguments}{names}\n  {command.help}")
        return
    usages = [f"/{command.name} {command.arguments}".rstrip() for command in SLASH]
    column = max(map(len, usages)) + 2
    narrow = talk.look.width() < column + 40
    for usage, command in zip(usages, SLASH, strict=True):
        talk.say(f"{usage}\n    {command.help}" if narrow else f"{usage:<{column}}{command.help}")
    talk.say('\n""" begins and ends a message of several lines. ' + KEYS)


KEYS = "Alt-Enter or Ctrl-J: new line. Ctrl-G: editor. Ctrl-R: search. Esc Esc: undo. Ctrl-C: stop. Ctrl-D: leave."


def _exit(talk: Talk, argument: str) -> None:
    talk.ended = True


def _new(talk: Talk, argument: str) -> None:
    talk.begin(argument)
    talk.say("a new conversation; the old one is kept" if talk.journal.path else "a new conversation")


def _title(talk: Talk, argument: str) -> None:
    if argument:
        talk.journal.record({"type": "title", "value": " ".join(argument.split())})
    talk.say(f"{talk.chat.id}  {talk.chat.label() or '(nothing said yet)'}")


def _sessions(talk: Talk, argument: str) -> None:
    shown = 0
    for chat in islice(talk.chats.all(), _LISTED):
        here = "*" if chat.id == talk.chat.id else " "
        talk.say(f"{here} {chat.id}  {chat.day:10}  {len(chat.path()):>3} messages  {chat.label()}")
        shown += 1
    talk.say("resume one: llamacli chat --resume ID" if shown else "no conversation is saved yet")


def nearest(name: str, names: list[str]) -> str:
    """A hint that names the command that was perhaps meant."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean /{close[0]}?" if close else "/help lists the commands; a leading space sends it as it is"


COMMANDS = (
    Slash("help", "[COMMAND]", "This list, or one command.", _help, ("?",), completes="commands"),
    Slash("exit", "", "Leave; the conversation is kept.", _exit, ("quit", "bye", "q")),
    Slash("new", "[TITLE]", "Begin another conversation.", _new),
    Slash("title", "[TEXT]", "Show or give this conversation's title.", _title),
    Slash("sessions", "", "The conversations saved on this computer.", _sessions, ("chats",)),
)
