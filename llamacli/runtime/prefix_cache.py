"""Beginnings of prompts that are kept on disk, so that no process reads a long text that another has read before.

One folder per model, engine build and settings; in it one file per prefix: the engine's state file, which starts with
the tokens, and behind it a footer of ours. The engine loads a damaged state without a word and dies of a truncated
one, so length and SHA-256 are checked before it sees the file; whatever is wrong with an entry, it is only a miss.

A prompt is evaluated in steps at fixed distances from its start, and an entry is used up to the end of such a step:
what is computed after it is, to the bit, what would have been computed without it. Only the state of a whole
conversation (`chat-` entries) is used up to any token, and only by the conversation that it belongs to: that goes on
as if it had never been closed.

Files appear whole under their final names (rename), can be read by their owner only, and those used longest ago are
removed when there are too many.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llamacli.formats.gguf_reader import GGUF
from llamacli.runtime import bindings
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.evaluator import Evaluator

MINIMUM = 256
"""Tokens from which on a prefix is kept; fewer are read again faster than a file is found."""

LIMIT = 4 << 30
"""Bytes that all entries may take together, unless told otherwise."""

TAKEN_UP = 500e6
"""Bytes of a state that are read from the disk, checked and handed to the engine in a second, at least."""

WORTH = 8
"""An entry is not loaded for less than this fraction (one in so many) of its tokens."""

SUFFIX = ".kv"
CHAT, NAMED = "chat-", "name-"
_ABOUT = "about.json"
_STATE_HEAD = struct.Struct("<III")
"""The engine's state file: magic, version, number of tokens, then the tokens as int32."""
_FOOTER = struct.Struct("<8sQQ32s")
"""Magic, bytes before the footer, tokens evaluated in whole steps, SHA-256."""
_MAGIC = b"LLCPREF1"
_BLOCK = 1 << 20
_STALE = 3600.0
"""Seconds after which a file that somebody was writing counts as left behind."""


@dataclass(frozen=True)
class Entry:
    """One kept prefix. `tokens` are int32 in the machine's order."""

    path: Path
    tokens: bytes
    aligned: int
    size: int
    used: float
    """When it was last of use, in seconds since 1970."""
    model: str = ""

    @property
    def count(self) -> int:
        """How many tokens it holds."""
        return len(self.tokens) // 4

    @property
    def label(self) -> str:
        """`chat` or the user's name for it; nothing for what was kept by itself."""
        name = self.path.name.removesuffix(SUFFIX)
        if name.startswith(CHAT):
            return "chat"
        return name.removeprefix(NAMED).rpartition("-")[0] if name.startswith(NAMED) else ""


class PrefixCache:
    """The prefixes for one loaded model.

    `name` keeps what this process reads under a name of the user's, which exempts it from the limit. `chat` is the
    conversation that is going on. Nothing here raises: a cache that cannot be read or written is an empty one.
    """

    def __init__(
        self,
        root: Path,
        gguf: GGUF,
        settings: EngineSettings,
        threads: tuple[int, int],
        *,
        name: str = "",
        limit: int = LIMIT,
        minimum: int = MINIMUM,
    ) -> None:
        self.root, self.name, self.limit, self.minimum = root, name, limit, minimum
        self.chat = ""
        self._gguf, self._settings, self._threads = gguf, settings, threads
        self._key: bytes | None = None
        self._found = 0

    # -- use ---------------------------------------------------------------------------------------------------

    def restore(self, evaluator: Evaluator, tokens: Sequence[int], cached: int) -> int:
        """Load the longest kept prefix of `tokens` if it is longer than the `cached` that stand in the cache already.

        Returns how many are in the cache then. The last token is always left to be evaluated.
        """
        self._found = 0
        if len(tokens) <= self.minimum:
            return cached
        with contextlib.suppress(OSError):
            for entry, usable in self._candidates(evaluator, tokens):
                if usable <= max(cached, self.minimum - 1):
                    break
                if self._load(evaluator, entry, usable):
                    with contextlib.suppress(OSError):
                        os.utime(entry.path)
                    self._found = usable
                    return usable
                cached = len(evaluator.cells)
        return cached

    def _candidates(self, evaluator: Evaluator, tokens: Sequence[int]) -> list[tuple[Entry, int]]:
        """Entries that begin as `tokens` do, with the number of tokens that may be used, best first."""
        wanted = struct.pack(f"={len(tokens)}i", *tokens)
        found = []
        for entry in entries_in(self._folder(evaluator)):
            usable = self._usable(evaluator, entry, wanted)
            if usable * WORTH >= entry.count and entry.count <= evaluator.size:
                found.append((entry, usable))
        return sorted(found, key=lambda pair: (-pair[1], pair[0].size))

    def _usable(self, evaluator: Evaluator, entry: Entry, wanted: bytes) -> int:
        shared = min(common_tokens(entry.tokens, wanted), len(wanted) // 4 - 1)
        if not (self.chat and entry.path.name == f"{CHAT}{self.chat}{SUFFIX}"):
            step = evaluator.step_size
            shared = min(shared, entry.aligned) // step * step
        divisible = evaluator.drops_tail and not 0 < evaluator.window < entry.count
        return shared if divisible or shared == entry.count else 0

    def _load(self, evaluator: Evaluator, entry: Entry, usable: int) -> bool:
        if not self._intact(entry):
            with contextlib.suppress(OSError):
                entry.path.unlink()
            return False
        return evaluator.read_state(os.fsencode(entry.path), entry.aligned) and evaluator.cut(usable)

    def _intact(self, entry: Entry) -> bool:
        with contextlib.suppress(OSError), entry.path.open("rb") as file:
            length, aligned, digest = _footer(file)
            return digest == self._digest(file, length, aligned)
        return False

    # -- keeping -----------------------------------------------------------------------------------------------

    def keep(self, evaluator: Evaluator, token_seconds: float = math.inf) -> None:
        """Keep the prompt that was read, up to its last whole step; takes everything after it out of the cache.

        Not where a GPU reads so fast (`token_seconds`) that taking it up from the disk would take longer.
        """
        length = evaluator.aligned
        if not self._pays(evaluator, length, token_seconds):
            return
        if length - self._found < self.minimum or length > len(evaluator.cells):
            return
        digest = hashlib.sha256(struct.pack(f"={length}i", *evaluator.cells[:length])).hexdigest()[:24]
        name = f"{NAMED}{self.name}-{digest}" if self.name else digest
        self._write(evaluator, name, length)

    def keep_chat(self, evaluator: Evaluator, token_seconds: float = math.inf) -> None:
        """Keep the whole conversation as it stands, where that pays."""
        length = len(evaluator.cells)
        if self.chat and length >= self.minimum and self._pays(evaluator, length, token_seconds):
            self._write(evaluator, f"{CHAT}{self.chat}", len(evaluator.cells))

    def _pays(self, evaluator: Evaluator, length: int, token_seconds: float) -> bool:
        return length * token_seconds >= evaluator.state_bytes() / TAKEN_UP

    def _write(self, evaluator: Evaluator, name: str, length: int) -> None:
        part = None
        with contextlib.suppress(OSError):
            folder = self._folder(evaluator, make=True)
            target = folder / f"{name}{SUFFIX}"
            if target.exists() and not name.startswith(CHAT):
                os.utime(target)
                return
            expected = evaluator.state_bytes() + 4 * length
            room = min(self.limit, shutil.disk_usage(folder).free // 2)
            if 2 * expected > room:
                return
            make_room(self.root, self.limit - expected)
            part = folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}.part"
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            aligned = evaluator.aligned
            written = evaluator.write_state(os.fsencode(part), length)
            if written and self._seal(part, written, min(aligned, length)):
                part.replace(target)
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _seal(self, part: Path, written: int, aligned: int) -> bool:
        """Add the footer; False if the file is not as long as the engine said (a full disk)."""
        with part.open("r+b") as file:
            if file.seek(0, os.SEEK_END) != written:
                return False
            digest = self._digest(file, written, aligned)
            file.seek(written)
            file.write(_FOOTER.pack(_MAGIC, written, aligned, digest))
        return True

    # -- what an entry belongs to ------------------------------------------------------------------------------

    def _digest(self, file: BinaryIO, length: int, aligned: int) -> bytes:
        """SHA-256 of the first `length` bytes, of what they belong to and of the footer's numbers."""
        digest = hashlib.sha256(self._key or b"")
        digest.update(struct.pack("<QQ", length, aligned))
        file.seek(0)
        block = bytearray(_BLOCK)
        view = memoryview(block)
        while length > 0:
            count = file.readinto(view[: min(_BLOCK, length)])  # type: ignore[attr-defined]
            if not count:
                return b""
            digest.update(view[:count])
            length -= count
        return digest.digest()

    def _folder(self, evaluator: Evaluator, *, make: bool = False) -> Path:
        if self._key is None:
            self._key = self._fingerprint(evaluator)
        folder = self.root / self._key.hex()[:32]
        if make:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            about = folder / _ABOUT
            if not about.exists():
                about.write_text(json.dumps({"model": str(self._gguf.path.absolute())}), encoding="utf-8")
        return folder

    def _fingerprint(self, evaluator: Evaluator) -> bytes:
        """Everything that the keys and values of a token depend on. Raises OSError."""
        s, gguf = self._settings, self._gguf
        settings = (s.gpu_layers, s.cpu_moe, s.devices, s.flash_attn, s.cache_type_k, s.cache_type_v, s.sequences)
        digest = hashlib.sha256()
        digest.update(repr((bindings.build(), settings, self._threads, evaluator.step_size, s.batch)).encode())
        if any(tensor.name.startswith("rope_factors_long") for tensor in gguf.tensors):
            digest.update(f"context {evaluator.size}".encode())  # chooses between two sets of frequencies
        for path, head in zip(gguf.paths, gguf.data_offsets, strict=True):
            digest.update(_identity(path).encode())
            with path.open("rb") as file:
                while head > 0 and (block := file.read(min(_BLOCK, head))):
                    digest.update(block)
                    head -= len(block)
        for name, scale in s.loras:
            digest.update(f"{_identity(Path(name))} {scale}".encode())
        return digest.digest()


def _identity(path: Path) -> str:
    """What changes when a file is replaced or written to."""
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino} {stat.st_dev}"


# -- the files -----------------------------------------------------------------------------------------------------


def entries_in(folder: Path, model: str = "") -> Iterator[Entry]:
    """What lies in one folder, as far as it can be read; contents are not checked here."""
    try:
        files = [entry for entry in os.scandir(folder) if entry.name.endswith(SUFFIX)]
    except OSError:
        return
    for item in files:
        with contextlib.suppress(OSError, struct.error, ValueError), open(item.path, "rb") as file:
            stat = os.fstat(file.fileno())
            length, aligned, _ = _footer(file)
            file.seek(0)
            count = _STATE_HEAD.unpack(file.read(_STATE_HEAD.size))[2]
            if _STATE_HEAD.size + 4 * count > length:
                continue
            tokens = file.read(4 * count)
            yield Entry(Path(item.path), tokens, min(aligned, count), stat.st_size, stat.st_mtime, model)


def all_entries(root: Path) -> list[Entry]:
    """Every kept prefix under `root`, the last used first."""
    found: list[Entry] = []
    for folder in _folders(root):
        found += entries_in(folder, _model(folder))
    return sorted(found, key=lambda entry: -entry.used)


def _folders(root: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _model(folder: Path) -> str:
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        return str(about["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def remove(entry: Entry) -> bool:
    """Remove one entry, and its folder when that is empty; False if it cannot be removed now."""
    try:
        entry.path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def forget_chat(root: Path, chat: str) -> None:
    """Remove what is kept of a conversation."""
    for entry in all_entries(root):
        if entry.path.name == f"{CHAT}{chat}{SUFFIX}":
            remove(entry)
    sweep(root)


def sweep(root: Path) -> None:
    """Remove what killed processes have left, and folders without entries."""
    for folder in _folders(root):
        with contextlib.suppress(OSError):
            names = os.listdir(folder)  # noqa: PTH208
            for name in names:
                path = folder / name
                if name.endswith(".part") and time.time() - path.stat().st_mtime > _STALE:
                    path.unlink(missing_ok=True)
            if not any(name.endswith((SUFFIX, ".part")) for name in names):
                (folder / _ABOUT).unlink(missing_ok=True)
                folder.rmdir()


def make_room(root: Path, limit: int) -> None:
    """Remove the entries used longest ago until the rest takes at most `limit` bytes; named ones stay."""
    found = all_entries(root)
    total = sum(entry.size for entry in found)
    if total <= limit:
        return
    for entry in reversed(found):
        if total <= limit:
            break
        if not entry.path.name.startswith(NAMED) and remove(entry):
            total -= entry.size
    sweep(root)


def common_tokens(a: bytes, b: bytes) -> int:
    """How many int32 two arrays share from the start; found by halving, because comparing bytes is fast."""
    low, high = 0, min(len(a), len(b)) // 4
    while low < high:
        middle = (low + high + 1) // 2
        if a[4 * low : 4 * middle] == b[4 * low : 4 * middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _footer(file: BinaryIO) -> tuple[int, int, bytes]:
    """(bytes before the footer, aligned tokens, SHA-256). Raises ValueError or OSError for a file that has none."""
    end = file.seek(0, os.SEEK_END)
    if end < _FOOTER.size:
        raise ValueError("too short")
    file.seek(end - _FOOTER.size)
    magic, length, aligned, digest = _FOOTER.unpack(file.read(_FOOTER.size))
    if magic != _MAGIC or length != end - _FOOTER.size:
        raise ValueError("not an entry")
    return length, aligned, digest
