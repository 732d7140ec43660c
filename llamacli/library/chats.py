r"""Saved conversations: a tree of messages per file, written one line at a time.

A file `<id>.jsonl` is a journal of events, each one JSON object on its line:

    {"type": "chat", "id": "3f2a91c0", "version": 1, "created": 1790000000, "model": "..."}
    {"type": "message", "id": "9b1c44d2", "parent": null, "role": "user", "content": "Hello"}   OpenAI's message format
    {..., "content": "What is it?", "pictures": [{"path": "/home/me/cat.png", "sha256": "..."}]}   files, not copied
    {"type": "head", "id": "9b1c44d2"}        the conversation goes on from here (undo, switch)
    {"type": "summary", "id": "9b1c44d2", "value": "..."}    stands for what came before that message: the context was full
    {"type": "branch", "id": "9b1c44d2", "name": "short version"}
    {"type": "system" | "title" | "model", "value": "..."}                                     the last one counts

Messages name their parent, so that a regenerated or edited turn is a sibling and nothing is ever overwritten. A line
is appended with one write and synced before the conversation goes on: a crash costs at most the line being written,
and a reader skips a line that is not whole. Files are readable by their owner only.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamacli.errors import CannotWrite, NotFound
from llamacli.formats.durable import to_disk

VERSION = 1
_TITLE_LENGTH = 48


@dataclass(frozen=True)
class PictureFile:
    """A picture that goes with a message: where its file lay, and the SHA-256 that it had."""

    path: str
    sha256: str

    @property
    def name(self) -> str:
        """What it is called on the screen."""
        return Path(self.path).name


@dataclass(frozen=True)
class Node:
    """One message in the tree; `message` is in OpenAI's chat format, `extra` what else is known about it."""

    id: str
    parent: str | None
    message: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def role(self) -> str:
        """Whose turn it is."""
        return str(self.message.get("role", ""))

    @property
    def text(self) -> str:
        """What was said."""
        return str(self.message.get("content") or "")

    @property
    def pictures(self) -> tuple[PictureFile, ...]:
        """The pictures that were shown with it."""
        given = self.message.get("pictures")
        entries = [entry for entry in given if isinstance(entry, dict)] if isinstance(given, list) else []
        return tuple(PictureFile(str(entry.get("path", "")), str(entry.get("sha256", ""))) for entry in entries)


@dataclass
class Chat:
    """A conversation in memory: what its events, applied in order, amount to."""

    id: str
    created: float = 0.0
    model: str = ""
    title: str = ""
    system: str = ""
    nodes: dict[str, Node] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    """By message: what stands for all that came before it."""
    head: str | None = None
    damaged: int = 0

    def path(self, to: str | None = None) -> list[Node]:
        """The messages from the beginning to the node `to` (default: where the conversation stands)."""
        out: list[Node] = []
        at = to if to is not None else self.head
        while at is not None:
            node = self.nodes[at]
            out.append(node)
            at = node.parent
        return out[::-1]

    def leaves(self) -> list[Node]:
        """The ends of all branches, oldest first."""
        parents = {node.parent for node in self.nodes.values()}
        return [node for node in self.nodes.values() if node.id not in parents]

    def label(self) -> str:
        """The title given, or the first words that were said."""
        if self.title:
            return self.title
        first = next((node.text for node in self.path() if node.role == "user"), "")
        words = " ".join(first.split())
        return words if len(words) <= _TITLE_LENGTH else words[: _TITLE_LENGTH - 1].rstrip() + "…"

    @property
    def day(self) -> str:
        """When it began, as 2026-01-31; empty for a time that no calendar here has."""
        try:
            return time.strftime("%Y-%m-%d", time.localtime(self.created))
        except (OSError, OverflowError, ValueError):
            return ""

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take in one event. Unknown kinds are skipped: a newer version may have written them."""
        kind, value, place = event.get("type"), event.get("value"), event.get("id")
        known = isinstance(place, str) and place in self.nodes
        if kind == "chat":
            self.created, self.model = _number(event.get("created")), str(event.get("model") or "")
        elif kind == "message":
            self._add(event)
        elif kind == "head" and (known or place is None):
            self.head = place
        elif kind == "branch" and known:
            self.names[str(place)] = str(event.get("name") or "")
        elif kind == "summary" and known and isinstance(value, str):
            self.summaries[str(place)] = value
        elif kind in ("system", "title", "model") and isinstance(value, str):
            setattr(self, str(kind), value)

    def _add(self, event: Mapping[str, Any]) -> None:
        parent = event.get("parent")
        if parent is not None and str(parent) not in self.nodes:
            parent = self.head  # its line was damaged: stay with what came before
        message = {key: value for key, value in event.items() if key not in _OURS}
        extra = {key: event[key] for key in _EXTRA if key in event}
        node = Node(str(event.get("id") or new_id(self.nodes)), None if parent is None else str(parent), message, extra)
        if node.id not in self.nodes:
            self.nodes[node.id] = node
            self.head = node.id


_EXTRA = ("created", "stopped", "finish", "usage", "probabilities")
_OURS = ("type", "id", "parent", *_EXTRA)


def with_pictures(message: Mapping[str, Any], pictures: Sequence[PictureFile]) -> dict[str, Any]:
    """A message as it is saved together with `pictures`."""
    shown = [{"path": picture.path, "sha256": picture.sha256} for picture in pictures]
    return {**message, **({"pictures": shown} if shown else {})}


def new_id(taken: Iterable[str] = ()) -> str:
    """Eight random hexadecimal digits that are not in `taken`."""
    used = set(taken)
    while (name := secrets.token_hex(4)) in used:
        continue
    return name


class Journal:
    """A chat and its file. Without a file (`path` None) nothing is saved."""

    def __init__(self, chat: Chat, path: Path | None) -> None:
        self.chat, self.path = chat, path
        self._unsaved: list[Mapping[str, Any]] = []

    def record(self, event: Mapping[str, Any]) -> None:
        """Apply `event` and save it; when this returns, it is on the disk. Raises CannotWrite.

        The file begins with the first message: a conversation in which nothing was said leaves nothing behind. What
        could not be written is tried again with the next event.
        """
        self.chat.apply(event)
        if self.path is None:
            return
        self._unsaved.append(event)
        if self.chat.nodes:
            _append(self.path, self._unsaved)
            self._unsaved.clear()

    def say(self, message: Mapping[str, Any], **extra: Any) -> Node:
        """Add a message after the head and save it. `extra` may hold created, stopped, finish, usage."""
        name = new_id(self.chat.nodes)
        self.record({"type": "message", "id": name, "parent": self.chat.head, **message, **extra})
        return self.chat.nodes[name]

    def move(self, head: str | None) -> None:
        """Go on from the node `head` (None: from the beginning)."""
        if head != self.chat.head:
            self.record({"type": "head", "id": head})


class Chats:
    """The folder of saved conversations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new(self, model: str, now: float, *, title: str = "", save: bool = True) -> Journal:
        """A conversation that begins now."""
        name = new_id(path.stem for path in self._files())
        journal = Journal(Chat(name), self.folder / f"{name}.jsonl" if save else None)
        journal.record({"type": "chat", "id": name, "version": VERSION, "created": now, "model": model})
        if title:
            journal.record({"type": "title", "value": title})
        return journal

    def all(self) -> Iterator[Chat]:
        """Every readable conversation, the one used last first."""
        for path in self._files():
            with contextlib.suppress(NotFound):  # one that cannot be read hides no other
                chat = read(path)
                if chat.nodes:
                    yield chat

    def last(self) -> Journal:
        """The conversation used last. Raises NotFound when there is none."""
        for chat in self.all():
            return self._journal(chat)
        raise NotFound("no saved conversation yet", "begin one: llamacli chat MODEL")

    def find(self, wanted: str) -> Journal:
        """By the beginning of an id, a title, or words of a title. Raises NotFound, also when several fit."""
        chats = list(self.all())
        key = wanted.casefold()
        for fits in (
            lambda chat: chat.id == key,
            lambda chat: chat.label().casefold() == key,
            lambda chat: chat.id.startswith(key),
            lambda chat: key in chat.label().casefold(),
        ):
            found = [chat for chat in chats if fits(chat)]
            if len(found) == 1:
                return self._journal(found[0])
            if found:
                names = ", ".join(f"{chat.id} ({chat.label()})" for chat in found[:5])
                raise NotFound(f"several conversations fit {wanted!r}", f"name one by its id: {names}")
        raise NotFound(f"no conversation {wanted!r}", "llamacli sessions lists them")

    def remove(self, chat: Chat) -> None:
        """Delete a conversation, and the pasted pictures that no other one shows. Raises OSError."""
        (self.folder / f"{chat.id}.jsonl").unlink()
        pasted = {node.path for node in _pictures_of(chat) if Path(node.path).parent == self.folder / "pictures"}
        if pasted:
            for path in pasted - {picture.path for other in self.all() for picture in _pictures_of(other)}:
                Path(path).unlink(missing_ok=True)

    def _journal(self, chat: Chat) -> Journal:
        return Journal(chat, self.folder / f"{chat.id}.jsonl")

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        stamped = []
        for path in self.folder.glob("*.jsonl"):
            try:
                if path.is_file():
                    stamped.append((path.stat().st_mtime_ns, path.name, path))
            except OSError:  # removed meanwhile
                continue
        return [path for *_, path in sorted(stamped, reverse=True)]


def _pictures_of(chat: Chat) -> Iterator[PictureFile]:
    return (picture for node in chat.nodes.values() for picture in node.pictures)


def read(path: Path) -> Chat:
    """The conversation in a file; lines that are not whole are counted in `damaged` and skipped.

    Raises NotFound when the file cannot be read.
    """
    chat = Chat(path.stem)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise NotFound(f"cannot read the conversation {path}: {error.strerror}") from error
    for line in lines:
        event = _event(line)
        if event is not None:
            chat.apply(event)
        elif line.strip():
            chat.damaged += 1
    return chat


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _append(path: Path, events: Iterable[Mapping[str, Any]]) -> None:
    """One write at the end of the file, synced. A torn line before it is closed, so that only that line is lost."""
    lines = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events)
    data = lines.encode("utf-8", "backslashreplace")  # a lone surrogate becomes an escape of JSON
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(path, flags, 0o600)
        try:
            _write_all(handle, data if _ends_whole(handle) else b"\n" + data)
            to_disk(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise CannotWrite(
            f"the conversation is not saved: {path}: {error.strerror}", "go on without saving: --no-save"
        ) from error


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _ends_whole(handle: int) -> bool:
    if os.fstat(handle).st_size == 0:
        return True
    os.lseek(handle, -1, os.SEEK_END)
    return os.read(handle, 1) == b"\n"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
