"""Beginnings of prompts that are kept on disk, so that no process reads a long text that another has read before.

One folder per model, engine build and settings; in it one file per prefix: the engine's state file, which starts with
the tokens, and behind it a seal of ours. The engine loads a damaged state without a word and dies of a truncated
one, so length and checksum are verified before it sees the file; whatever is wrong with an entry, it is only a miss.

A prompt is evaluated in steps at fixed distances from its start, and its last token alone. An entry is used up to the
end of such a step, and for the very same prompt up to its last token: what is computed after it is, to the bit, what
would have been computed without it. Only the state of a whole conversation (`chat-` entries) is used up to any token,
and only by the conversation that it belongs to: that goes on as if it had never been closed.

Files appear whole under their final names (rename), can be read by their owner only, and those used longest ago are
removed when there are too many.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import secrets
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

from llamacli.formats.durable import replace
from llamacli.formats.gguf_reader import GGUF
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.evaluator import Evaluator
from llamacli.runtime.prefix_files import (
    CHAT,
    NAMED,
    PART,
    SUFFIX,
    Entry,
    chat_file,
    entries_in,
    entry_at,
    make_folder,
    make_room,
    remove,
)
from llamacli.runtime.prefix_key import fingerprint
from llamacli.runtime.prefix_seal import Seal

MINIMUM = 256
"""Tokens from which on a prefix is kept; fewer are read again faster than a file is found."""

LIMIT = 4 << 30
"""Bytes that all entries may take together, unless told otherwise."""

TAKEN_UP = 500e6
"""Bytes of a state that are read from the disk, checked and handed to the engine in a second, at least."""

WORTH = 8
"""An entry is not loaded for less than this fraction (one in so many) of its tokens."""


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
                if self._load(evaluator, entry, tokens[:usable]):
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
        most = len(wanted) // 4 - 1
        shared = min(common_tokens(entry.tokens, wanted), most)
        own_chat = self.chat and entry.path.name == chat_file(self.chat)
        same_prompt = shared == most == entry.seal.but_last
        if not own_chat and not same_prompt:
            step = evaluator.step_size
            shared = min(shared, entry.seal.aligned) // step * step
        divisible = evaluator.drops_tail and not 0 < evaluator.window < entry.count
        return shared if divisible or shared == entry.count else 0

    def _load(self, evaluator: Evaluator, entry: Entry, wanted: Sequence[int]) -> bool:
        """Whether `wanted` is in the evaluator's cache now; if it is not, the cache is as it was or empty."""
        if not entry.seal.fits(entry.path, self._owner(evaluator)):
            remove(entry)
            return False
        seal = entry.seal
        if not evaluator.read_state(os.fsencode(entry.path), seal.aligned, seal.but_last):
            return False
        if evaluator.cut(len(wanted)) and evaluator.cells == list(wanted):
            return True
        evaluator.clear()  # another process has put another state there a moment ago
        return False

    # -- keeping -----------------------------------------------------------------------------------------------

    def keep(self, evaluator: Evaluator, token_seconds: float = math.inf) -> None:
        """Keep the prompt that was read, as far as others can use it; takes everything after it out of the cache.

        Not where a GPU reads so fast (`token_seconds`) that taking it up from the disk would take longer.
        """
        length = evaluator.reusable
        if not self._pays(evaluator, length, token_seconds):
            return
        if length - self._found < self.minimum or length > len(evaluator.cells):
            return
        digest = hashlib.sha256(struct.pack(f"={length}i", *evaluator.cells[:length])).hexdigest()[:24]
        name = f"{NAMED}{self.name}-{digest}" if self.name else digest
        self._write(evaluator, f"{name}{SUFFIX}", length)

    def keep_chat(self, evaluator: Evaluator, token_seconds: float = math.inf) -> None:
        """Keep the whole conversation as it stands, where that pays."""
        length = len(evaluator.cells)
        if self.chat and length >= self.minimum and self._pays(evaluator, length, token_seconds):
            self._write(evaluator, chat_file(self.chat), length)

    def _pays(self, evaluator: Evaluator, length: int, token_seconds: float) -> bool:
        return length * token_seconds >= evaluator.state_bytes() / TAKEN_UP

    def _write(self, evaluator: Evaluator, name: str, length: int) -> None:
        part = None
        with contextlib.suppress(OSError):
            folder = self._folder(evaluator, make=True)
            target = folder / name
            if not name.startswith(CHAT) and entry_at(target) is not None:
                os.utime(target)
                return
            if not self._room_for(evaluator.state_bytes() + 4 * length, folder):
                return
            part = folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}{PART}"
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            written = evaluator.write_state(os.fsencode(part), length)
            seal = Seal(written, min(evaluator.aligned, length), evaluator.but_last)
            if written and seal.put_on(part, self._owner(evaluator)):
                replace(part, target)
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _room_for(self, expected: int, folder: Path) -> bool:
        """Whether so many bytes may be written; old entries make place for them."""
        if 2 * expected > min(self.limit, shutil.disk_usage(folder).free // 2):
            return False
        make_room(self.root, self.limit - expected)
        return True

    # -- what an entry belongs to ------------------------------------------------------------------------------

    def _owner(self, evaluator: Evaluator) -> bytes:
        if self._key is None:
            self._key = fingerprint(evaluator, self._gguf, self._settings, self._threads)
        return self._key

    def _folder(self, evaluator: Evaluator, *, make: bool = False) -> Path:
        folder = self.root / self._owner(evaluator).hex()[:32]
        if make:
            make_folder(folder, self._gguf.path)
        return folder


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
