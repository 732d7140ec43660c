"""What the headers of our model files say, remembered, so that a list of hundreds of models needs no header at all.

The index never lies: an entry counts only while the file's size, modification time and inode are those it was made with.
It is a cache; losing it costs time, and where it cannot be written it is not.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llamacli.errors import LlamacliError

VERSION = 1


@dataclass(frozen=True)
class HeaderFacts:
    """The few facts of a header that a list shows."""

    architecture: str = ""
    quant: str = ""
    context: int = 0
    """Tokens the model was trained for; 0 if it does not say."""
    error: str = ""
    """Why the file is no sound GGUF, if it is none."""


class Index:
    """A file of facts by path, read at once and written once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, Any] = _load(path)
        self._changed = False

    def facts(self, path: Path, status: os.stat_result) -> HeaderFacts:
        """The facts of the file at `path`, whose `stat` is `status`."""
        key, mark = str(path), [status.st_size, status.st_mtime_ns, status.st_ino]
        known = self._entries.get(key)
        if isinstance(known, dict) and known.get("mark") == mark:
            with contextlib.suppress(TypeError):
                return HeaderFacts(**known["facts"])
        facts = read_facts(path)
        self._entries[key] = {"mark": mark, "facts": asdict(facts)}
        self._changed = True
        return facts

    def save(self) -> None:
        """Write what is new, without what no longer exists."""
        if not self._changed:
            return
        kept = {key: entry for key, entry in self._entries.items() if Path(key).exists()}
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"version": VERSION, "files": kept}), encoding="utf-8")
            temporary.replace(self.path)
        self._changed = False


def read_facts(path: Path) -> HeaderFacts:
    """The facts, from the header itself."""
    from llamacli.formats.gguf_reader import read_part  # a list that knows all its files never needs it

    try:
        gguf = read_part(path, arrays="skip")
    except LlamacliError as error:
        return HeaderFacts(error=error.message)
    context = gguf.get("{arch}.context_length", 0)
    return HeaderFacts(gguf.architecture, gguf.file_type_name, context if isinstance(context, int) else 0)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        if content["version"] == VERSION and isinstance(content["files"], dict):
            return dict(content["files"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}
