"""A checkpoint's shards as they pass by: fetched ahead in pieces, hashed in order, kept only while somebody needs them.

    fetchers   take the next pieces in file order and keep a bounded number of bytes ahead of the readers
    hasher     follows in file order; at the end of a shard its SHA-256 is the one the Hub promises, or all is refused
    readers    take rows out of pieces that are here, and wait for those that are not

All bytes of a shard that is used are fetched, also of tensors that nobody wants: without them there is no hash to compare.
A shard of which nothing is wanted is not fetched at all. Memory is the bytes ahead and what unfinished needs hold.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamacli.errors import CorruptFile, NetworkError
from llamacli.formats.file_access import Extent
from llamacli.library.http import Session
from llamacli.library.hub import Hub, RemoteFile, RemoteRepo
from llamacli.library.remote_bytes import RemoteBytes
from llamacli.library.resumable_hash import Sha256, can_resume

PIECE = 4 << 20
AHEAD = 64 << 20
"""Bytes that are fetched before anybody asks for them."""
CONNECTIONS = 8
HEADER = 64 << 10
"""Bytes of a shard that are fetched at once when its header is wanted; most headers are shorter."""
MAX_BEFORE = 128 << 20
"""Bytes of headers, which are read before the stream begins and compared with it when it passes."""

Place = tuple[int, int]
"""(number of the shard, number of the piece in it)."""


@dataclass(eq=False)
class Shard:
    """One large file. It is read directly until the stream begins, through the stream afterwards."""

    stream: CheckpointStream
    number: int
    source: RemoteBytes
    before: list[tuple[int, bytes]] = field(default_factory=list)
    """(offset, bytes) of everything that was read before the stream began."""
    hashing: Sha256 = field(default_factory=Sha256)
    start: int = 0
    """The first piece that this run fetches."""
    hashed: int = 0
    """Pieces that have been hashed, counted from the first of the file."""
    states: dict[int, bytes | None] = field(default_factory=dict)
    """The hash's state before a piece."""
    verified: bool = False

    @property
    def size(self) -> int:
        """Bytes."""
        return self.source.file.size

    @property
    def pieces(self) -> int:
        """How many there are."""
        return -(-self.size // PIECE)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See `RandomAccess`."""
        if offset + len(buffer) > self.size:
            raise CorruptFile(f"{self.source.label} ends at byte {self.size:,}", "the file is truncated")
        self.stream.fill(self, offset, buffer)


class CheckpointStream:
    """The shards of one commit, for `formats.file_access.Stream`."""

    def __init__(self, hub: Hub, repo: RemoteRepo) -> None:
        self.hub, self.repo = hub, repo
        self.shards: list[Shard] = []
        self._changed = threading.Condition()
        self._begun = self._stopped = False
        self._error: BaseException | None = None
        self._pieces: dict[Place, bytearray] = {}
        self._wanted_by: dict[Place, int] = {}
        self._needs: list[list[Place]] = []
        self._order: list[Place] = []
        self._next = 0
        self._asked = -1
        self._flying = 0
        self._threads: list[threading.Thread] = []
        self._sessions: list[Session] = []

    def open(self, file: RemoteFile) -> Shard:
        """The shard `file`, for reading."""
        known = next((shard for shard in self.shards if shard.source.file is file), None)
        if known is None:
            known = Shard(self, len(self.shards), RemoteBytes(self.hub, self.repo, file))
            self.shards.append(known)
        return known

    # -- what a quantizer asks for (see `Stream`) ----------------------------------------------------------------

    def identity(self) -> str:
        """See `Stream`: the commit, the digests, and every byte that has been read so far."""
        check = hashlib.sha256(f"{self.repo.name}@{self.repo.commit}".encode())
        for shard in self.shards:
            check.update(f"\n{shard.source.file.name} {shard.size} {shard.source.file.digest}\n".encode())
            for offset, data in shard.before:
                check.update(b"%d:" % offset + data)
        return check.hexdigest()

    def begin(self, needs: Sequence[Sequence[Extent]], done: Collection[int], saved: Any) -> None:
        """See `Stream`."""
        self._needs = [list(_places(need)) for need in needs]
        used = sorted({place[0] for need in self._needs for place in need})
        for number, need in enumerate(self._needs):
            for place in need if number not in done else ():
                self._wanted_by[place] = self._wanted_by.get(place, 0) + 1
        for number in used:
            _restore(self.shards[number], saved)
        self._used = [self.shards[number] for number in used]
        self._order = [(s.number, piece) for s in self._used for piece in range(s.start, s.pieces)]
        self._place_in_order = {place: number for number, place in enumerate(self._order)}
        self._begun = True
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True, name=f"stream {work.__name__}")
            for work in (self._hash, *[self._fetch] * CONNECTIONS)
        ]
        for thread in self._threads:
            thread.start()

    def release(self, number: int) -> None:
        """See `Stream`."""
        with self._changed:
            for place in self._needs[number]:
                self._wanted_by[place] -= 1
                self._drop_if_done(place)
            self._changed.notify_all()

    def state(self) -> dict[str, list[Any]]:
        """See `Stream`: by shard, the bytes that need not come again and the hash of them."""
        found: dict[str, list[Any]] = {}
        with self._changed:
            for shard in self._used:
                if shard.verified and not any(self._wanted_by.get((shard.number, p)) for p in range(shard.pieces)):
                    found[shard.source.file.name] = [shard.pieces, ""]
                    continue
                piece = next(
                    (p for p in range(shard.start, shard.hashed) if self._wanted_by.get((shard.number, p))),
                    shard.hashed,
                )
                state = shard.states.get(piece)
                for old in [p for p in shard.states if p < piece]:
                    del shard.states[old]
                if state is not None and piece < shard.pieces:
                    found[shard.source.file.name] = [piece, state.hex()]
        return found

    def finish(self) -> None:
        """See `Stream`."""
        with self._changed:
            while not self._changed.wait_for(self._at_its_end, 0.2):
                continue  # Windows hears no Ctrl-C while somebody waits without a limit
        self._raise()

    def _at_its_end(self) -> bool:
        return self._error is not None or all(shard.verified for shard in self._used)

    def stop(self) -> None:
        """See `Stream`."""
        with self._changed:
            self._stopped = True
            sessions = list(self._sessions)
            self._changed.notify_all()
        for session in sessions:
            session.abort()
        for thread in self._threads:
            thread.join(3)

    # -- readers -------------------------------------------------------------------------------------------------

    def fill(self, shard: Shard, offset: int, buffer: memoryview) -> None:
        """`buffer` with the bytes of `shard` from `offset` on."""
        if not self._begun:
            buffer[:] = self._before(shard, offset, len(buffer))
            return
        at = 0
        while at < len(buffer):
            piece, inside = divmod(offset + at, PIECE)
            data = self._wait_for((shard.number, piece))
            count = min(len(data) - inside, len(buffer) - at)
            buffer[at : at + count] = memoryview(data)[inside : inside + count]
            at += count

    def _before(self, shard: Shard, offset: int, count: int) -> bytes:
        """Bytes of a header, some more of which are fetched in the same request."""
        for start, data in shard.before:
            if start <= offset and offset + count <= start + len(data):
                return data[offset - start : offset - start + count]
        if sum(len(kept) for _, kept in shard.before) + count > MAX_BEFORE:
            raise CorruptFile(f"{shard.source.label} has a header larger than any of its kind")
        session = Session(self.hub.client)
        try:
            data = bytes(shard.source.read(session, offset, min(shard.size, offset + max(count, HEADER))))
        finally:
            session.close()
        shard.before.append((offset, data))
        return data[:count]

    def _wait_for(self, place: Place) -> bytearray:
        with self._changed:
            if place not in self._pieces:
                if self._place_in_order.get(place, -1) < 0 or not self._wanted_by.get(place):
                    raise RuntimeError(f"piece {place} was not announced")
                self._asked = max(self._asked, self._place_in_order[place])
                self._changed.notify_all()
                self._changed.wait_for(lambda: place in self._pieces or self._error or self._stopped)
            if self._error or self._stopped:
                self._raise()
                raise NetworkError("stopped")
            return self._pieces[place]

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    # -- fetchers and hasher -------------------------------------------------------------------------------------

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except BaseException as error:  # carried to whoever waits
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _over(self) -> bool:
        return self._stopped or self._error is not None

    def _fetch(self) -> None:
        session = Session(self.hub.client)
        with self._changed:
            self._sessions.append(session)
        try:
            while (place := self._claim()) is not None:
                shard = self.shards[place[0]]
                start = place[1] * PIECE
                stop = min(shard.size, start + PIECE)
                data = shard.source.read(session, start, stop, self._over)
                with self._changed:
                    self._flying -= 1
                    if self._over():
                        return
                    self._pieces[place] = data
                    self._changed.notify_all()
        finally:
            session.close()

    def _claim(self) -> Place | None:
        """The next piece in order, when there is room for it or somebody waits for one that is not before it."""
        with self._changed:
            self._changed.wait_for(lambda: self._over() or self._next >= len(self._order) or self._may_fetch())
            if self._over() or self._next >= len(self._order):
                return None
            self._next += 1
            self._flying += 1
            return self._order[self._next - 1]

    def _may_fetch(self) -> bool:
        return self._next <= self._asked or (len(self._pieces) + self._flying) * PIECE < AHEAD

    def _hash(self) -> None:
        for place in self._order:
            with self._changed:
                self._changed.wait_for(lambda p=place: p in self._pieces or self._over())  # type: ignore[misc]
                if self._over():
                    return
                shard, data = self.shards[place[0]], self._pieces[place]
            _compare(shard, place[1] * PIECE, data)
            shard.hashing.update(data)
            if place[1] + 1 == shard.pieces and shard.hashing.hexdigest() != shard.source.file.digest:
                raise CorruptFile(
                    f"{shard.source.label}: the bytes that came are not the ones the Hub promises (their hash differs)",
                    "nothing was kept; run the same command again, and if it happens again, the path to the server is "
                    "at fault",
                )
            with self._changed:
                shard.hashed = place[1] + 1
                shard.states[shard.hashed] = shard.hashing.state
                shard.verified = shard.hashed == shard.pieces
                self._drop_if_done(place)
                self._changed.notify_all()

    def _drop_if_done(self, place: Place) -> None:
        if not self._wanted_by.get(place) and place[1] < self.shards[place[0]].hashed:
            self._pieces.pop(place, None)


def _places(need: Sequence[Extent]) -> Iterator[Place]:
    """The pieces that hold these bytes, each once."""
    seen: set[Place] = set()
    for file, start, stop in need:
        if not isinstance(file, Shard):
            raise TypeError("a tensor that does not come from this stream")
        for piece in range(start // PIECE, -(-stop // PIECE)):
            if (file.number, piece) not in seen:
                seen.add((file.number, piece))
                yield file.number, piece


def _restore(shard: Shard, saved: Any) -> None:
    """Where an earlier run's hash stood; from the beginning where it cannot be told."""
    try:
        piece, state = saved[shard.source.file.name]
        if piece == shard.pieces:
            shard.start, shard.verified = piece, True
        elif 0 < piece < shard.pieces and can_resume():
            shard.hashing, shard.start = Sha256(bytes.fromhex(state)), piece
    except (KeyError, TypeError, ValueError):
        shard.start = 0
    shard.hashed = shard.start
    shard.states[shard.start] = shard.hashing.state


def _compare(shard: Shard, start: int, data: bytearray) -> None:
    """What was read before the stream began must be what passes now."""
    for offset, known in shard.before:
        low, high = max(offset, start), min(offset + len(known), start + len(data))
        if low < high and data[low - start : high - start] != known[low - offset : high - offset]:
            raise CorruptFile(f"{shard.source.label} changed while it was read", "run the same command again")
