"""What the headers of our model files say, remembered, so that a list of hundreds of models needs no header at all.

The index never lies: an entry counts only while the file's size, modification time and inode are those it was made with.
It is a cache; losing it costs time, and where it cannot be written it is not.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacli.errors import LlamacliError
from llamacli.formats.durable import write_whole

if TYPE_CHECKING:
    from llamacli.formats.gguf_reader import GGUF

VERSION = 3

Measure = Callable[["GGUF"], int]
"""How many bytes a model needs beside its weights."""


@dataclass(frozen=True)
class HeaderFacts:
    """The few facts of a header that a list shows."""

    architecture: str = ""
    quant: str = ""
    context: int = 0
    """Tokens the model was trained for; 0 if it does not say."""
    beside: int = 0
    """Bytes of cache and buffers at the usual context; 0 if nobody has measured."""
    error: str = ""
    """Why the file is no sound GGUF, if it is none."""


class Index:
    """A file of facts by path, read at once and written once."""

    def __init__(self, path: Path, measure: Measure | None = None) -> None:
        self.path, self.measure = path, measure
        self._entries: dict[str, Any] = _load(path)
        self._changed = False

    def facts(self, path: str | Path, status: os.stat_result) -> HeaderFacts:
        """The facts of the file at `path`, whose `stat` is `status`."""
        key, mark = str(path), [status.st_size, status.st_mtime_ns, status.st_ino]
        known = self._entries.get(key)
        if isinstance(known, dict) and known.get("mark") == mark:
            with contextlib.suppress(TypeError):
                facts = HeaderFacts(**known["facts"])
                if facts.beside or facts.error or self.measure is None:
                    return facts
        facts = read_facts(Path(path), self.measure)
        self._entries[key] = {"mark": mark, "facts": asdict(facts)}
        self._changed = True
        return facts

    def save(self) -> None:
        """Write what is new, without what no longer exists."""
        if not self._changed:
            return
        kept = {key: entry for key, entry in self._entries.items() if Path(key).exists()}
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps({"version": VERSION, "files": kept}))
        self._changed = False


def read_facts(path: Path, measure: Measure | None = None) -> HeaderFacts:
    """The facts, from the header itself."""
    from llamacli.formats.gguf_reader import read_part  # a list that knows all its files never needs it

    try:
        gguf = read_part(path, arrays="skip")
    except LlamacliError as error:
        return HeaderFacts(error=error.message)
    context = gguf.get("{arch}.context_length", 0)
    beside = 0
    if measure is not None:
        with contextlib.suppress(TypeError, ValueError, ArithmeticError):  # a stranger's metadata may be of any type
            beside = max(1, measure(gguf))
    return HeaderFacts(gguf.architecture, gguf.file_type_name, context if isinstance(context, int) else 0, beside)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        if content["version"] == VERSION and isinstance(content["files"], dict):
            return dict(content["files"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}
