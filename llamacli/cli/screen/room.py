"""What a full context does to a chat: end it, leave out the oldest turns, or put a summary in their place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llamacli.cli.conversation import SUMMARY
from llamacli.errors import ContextOverflow
from llamacli.library.chats import Node
from llamacli.runtime.messages import Message

if TYPE_CHECKING:
    from llamacli.cli.screen.talk import Talk

OVERFLOWS = ("stop", "drop", "compact")
"""`stop` asks a person whether to drop, and ends a chat without one."""

_ASKED = "Summarize this conversation in a few sentences. Keep names, numbers and what was decided."

_KEPT = 0.7
"""Share of the text that stays when old turns go: room for some turns, so that not every turn costs one."""

_SUMMARY_SHARE = 8
"""A summary may take one in so many of the context's tokens."""


def make_room(talk: Talk, error: ContextOverflow) -> None:
    """Take the oldest turns out of the model's sight if that is what the user wants; else raise `error`."""
    keep = _after_oldest_turns(talk)
    if keep is None:
        raise error
    if talk.overflow == "stop":
        if not talk.person or _last_turn_is_too_long(talk):
            raise error
        talk.say(f"the context is full: {error.message}")
        if not talk.confirm("go on without the oldest turns? They stay saved."):
            raise error
    gone, first = talk.path[talk.unseen : keep], talk.path[keep]
    summary = _summary(talk, gone, error) if talk.overflow == "compact" else ""
    if summary:
        talk.summarize(first.id, summary)
        talk.say(f"{SUMMARY} {summary}", dim=True)
    talk.hidden = keep
    instead = "a summary stands for them" if summary else "the system prompt stays"
    talk.console.warn(f"the model no longer sees the {len(gone)} oldest messages; {instead}")


def _summary(talk: Talk, nodes: list[Node], error: ContextOverflow) -> str:
    """The model's own summary of messages and of what an earlier summary stands for; nothing if it cannot make one.

    Raises `error` when the user stops it.
    """
    first = nodes[0].id if nodes else ""
    before = talk.chat.summaries.get(first, "")
    lines = [f"{node.role}: {node.text}" for node in nodes]
    asked = "\n\n".join([_ASKED, *([before] if before else []), *lines])
    talk.say("the context is full: summarizing the oldest messages", dim=True)
    limit = max(32, talk.model.size // _SUMMARY_SHARE)
    sampling = replace(talk.sampling, predict=limit, grammar="", logprobs=None)
    try:
        pieces = list(talk.silently([Message("user", asked)], sampling))
    except ContextOverflow:
        return ""
    if any(piece.finish == "cancel" for piece in pieces):
        raise error
    return "".join(piece.text for piece in pieces if piece.kind == "answer").strip()


def _last_turn_is_too_long(talk: Talk) -> bool:
    """Whether it would not help to leave out all others."""
    seen = talk.seen()
    last = [message for message in seen[:-1] if message.role == "system"] + seen[-1:]
    return talk.model.count(last) >= talk.model.size


def _after_oldest_turns(talk: Talk) -> int | None:
    """From which message on enough is left out, or None if only the last turn is left."""
    path, start = talk.path, talk.unseen
    starts = [i for i in range(start + 1, len(path)) if path[i].role == "user"]
    if not starts:
        return None
    total = sum(len(node.text) for node in path[start:])
    for place in starts:
        if sum(len(node.text) for node in path[place:]) <= _KEPT * total:
            return place
    return starts[-1]
