"""Going back, trying again, and the branches that come of it."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING

from llamacli.cli.screen.slash.command import Slash, count_of
from llamacli.errors import UsageError
from llamacli.library.chats import Node

if TYPE_CHECKING:
    from llamacli.cli.screen.talk import Talk

_PREVIEW = 40


def _undo(talk: Talk, argument: str) -> None:
    asked = _questions(talk)
    count = count_of(argument)
    if not asked:
        raise UsageError("there is nothing to undo")
    node = asked[-min(count, len(asked))]
    talk.go_back(node.parent)
    left = len(talk.path)
    talk.say(f"took back {_preview(node)}; {left} messages are left  (/redo brings it back)")


def _redo(talk: Talk, argument: str) -> None:
    if not talk.undone:
        raise UsageError("there is nothing to redo")
    talk.go_forward()
    talk.say(f"back at {_preview(talk.path[-1]) if talk.path else 'the beginning'}")


def _clear(talk: Talk, argument: str) -> None:
    talk.go_back(None)
    talk.say("forgotten; the system prompt stays  (/redo brings it back)")


def _regen(talk: Talk, argument: str) -> None:
    temp = _temperature(argument)
    path = talk.path
    if not path:
        raise UsageError("there is no answer to regenerate")
    if path[-1].role == "assistant":
        talk.go_to(path[-1].parent)
    talk.answer(temp=temp)


def _temperature(argument: str) -> float | None:
    if not argument:
        return None
    try:
        value = float(argument)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise UsageError(f"/regen {argument}: a temperature such as 0.3")
    return value


def _edit(talk: Talk, argument: str) -> None:
    asked = _questions(talk)
    count = count_of(argument)
    if count > len(asked):
        raise UsageError(f"there are {len(asked)} messages of yours to edit")
    node = asked[-count]
    text = talk.edited(node.text)
    if text.strip():
        talk.go_to(node.parent)
        for picture in node.pictures:
            talk.show(picture)
        talk.ask(text)


def _branch(talk: Talk, argument: str) -> None:
    head = talk.chat.head
    if head is None:
        raise UsageError("nothing was said yet")
    name = argument or f"branch {len(talk.chat.names) + 1}"
    talk.journal.record({"type": "branch", "id": head, "name": name})
    talk.say(f"this point is called {name!r}; go on, and come back with /switch {name}")


def _branches(talk: Talk, argument: str) -> None:
    for number, node in enumerate(_ends(talk), 1):
        here = "*" if node.id == talk.chat.head else " "
        name = talk.chat.names.get(node.id, "")
        turns = len(talk.chat.path(node.id))
        talk.say(f"{here} {number}  {turns} messages  {name + ': ' if name else ''}{_preview(node)}")


def _switch(talk: Talk, argument: str) -> None:
    node = _named(talk, argument)
    talk.go_to(node.id)
    talk.say(f"at {_preview(node)}; {len(talk.path)} messages")


def _diff(talk: Talk, argument: str) -> None:
    here, there = talk.path, talk.chat.path(_named(talk, argument).id)
    lines = difflib.unified_diff(_lines(there), _lines(here), argument or "there", "here", lineterm="", n=1)
    shown = False
    for line in lines:
        talk.say(line)
        shown = True
    if not shown:
        talk.say("no difference")


def _lines(path: list[Node]) -> list[str]:
    """Every line of a conversation, with whose it is."""
    out = []
    for node in path:
        shown = [f"[picture {picture.name}]" for picture in node.pictures]
        out += [f"{node.role}: {line}" for line in (*shown, *node.text.splitlines())]
    return out


def _questions(talk: Talk) -> list[Node]:
    return [node for node in talk.path if node.role == "user"]


def _ends(talk: Talk) -> list[Node]:
    """The ends of branches, and the points that were given a name."""
    chat = talk.chat
    leaves = {node.id for node in chat.leaves()}
    return [node for node in chat.nodes.values() if node.id in leaves or node.id in chat.names or node.id == chat.head]


def _named(talk: Talk, argument: str) -> Node:
    """The branch with this number or name. Raises UsageError."""
    ends = _ends(talk)
    for node in ends:
        if argument and talk.chat.names.get(node.id) == argument:
            return node
    if argument.isdecimal() and 1 <= int(argument) <= len(ends):
        return ends[int(argument) - 1]
    raise UsageError(f"no branch {argument!r}", "/branches lists them: /switch NUMBER or /switch NAME")


def _preview(node: Node) -> str:
    words = " ".join(node.text.split())
    return f"{node.role}: {words if len(words) <= _PREVIEW else words[: _PREVIEW - 1] + '…'}"


COMMANDS = (
    Slash("undo", "[N]", "Take back your last message (or the last N) and what followed.", _undo),
    Slash("redo", "", "Bring back what /undo or /clear took away.", _redo),
    Slash(
        "regen", "[TEMP]", "Another answer to the last message; the old one stays a branch.", _regen, ("regenerate",)
    ),
    Slash("edit", "[N]", "Change your last message (or the Nth last) and go on from there.", _edit),
    Slash("branch", "[NAME]", "Give this point of the conversation a name.", _branch),
    Slash("branches", "", "The ends of all branches.", _branches),
    Slash("switch", "N|NAME", "Go on with another branch.", _switch, completes="branches"),
    Slash("diff", "N|NAME", "What differs between another branch and this one.", _diff, completes="branches"),
    Slash("clear", "", "Forget what was said, keep the system prompt.", _clear),
)
