"""What a model sees of a saved conversation."""

from __future__ import annotations

from llamacli.cli.images import Gallery
from llamacli.library.chats import Chat
from llamacli.runtime.messages import Message

SUMMARY = "What was said before, in short:"


def unseen(chat: Chat, hidden: int = 0) -> int:
    """How many messages at the beginning it no longer sees: `hidden` were left out, others have a summary."""
    summarized = [place for place, node in enumerate(chat.path()) if node.id in chat.summaries]
    return max(hidden, *summarized, 0)


def seen(chat: Chat, gallery: Gallery, system: str, hidden: int = 0) -> list[Message]:
    """The system prompt, and with it the summary of what is no longer seen; then the messages."""
    path, start = chat.path(), unseen(chat, hidden)
    summary = chat.summaries.get(path[start].id, "") if start else ""
    text = "\n\n".join(part for part in (system, summary and f"{SUMMARY}\n{summary}") if part)
    return [*([Message("system", text)] if text else []), *gallery.messages(path[start:])]
