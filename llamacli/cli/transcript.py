"""A saved conversation as text for people and as JSON in the chat format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamacli.library.chats import Chat, Node


def as_markdown(chat: Chat) -> str:
    """Title, system prompt and messages."""
    parts = [f"# {chat.label()}\n"]
    if chat.system:
        parts.append(f"> {chat.system}\n".replace("\n", "\n> ").removesuffix("> ") + "\n")
    for node in chat.path():
        shown = "".join(f"![{picture.name}]({picture.path})\n\n" for picture in node.pictures)
        parts.append(f"**{node.role}**\n\n{shown}{node.text.rstrip()}\n")
    return "\n".join(parts)


def as_object(chat: Chat) -> dict[str, Any]:
    """The model and the messages, the system prompt first."""
    system = [{"role": "system", "content": chat.system}] if chat.system else []
    return {"model": chat.model, "messages": [*system, *map(_message, chat.path())]}


def _message(node: Node) -> dict[str, Any]:
    """A message in the chat format, which has pictures as parts of the content."""
    message = {key: value for key, value in node.message.items() if key != "pictures"}
    if node.pictures:
        paths = [Path(picture.path) for picture in node.pictures]
        urls = [path.as_uri() if path.is_absolute() else str(path) for path in paths]
        shown = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        message["content"] = [*shown, {"type": "text", "text": node.text}]
    return message
