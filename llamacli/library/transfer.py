"""From an address to verified bytes on disk: ranges in parallel, through drops, stalls, redirects and busy servers.

    workers   each claims the first missing stretch, asks for it with Range and writes what comes at its offset
    hasher    follows the gapless prefix and hashes it while later bytes still arrive
    saver     forces bytes and then their map to disk, again and again: a killed process loses little

`transfer` returns only when the part holds every byte and their digest is the one the Hub promised.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from llamacli.errors import CannotWrite, CorruptFile, NetworkError
from llamacli.library.digest import BLOCK, hasher
from llamacli.library.http import PORTAL_HINT, BadStatus, Client, Response, Session, Unreachable, host_of
from llamacli.library.part import Part, Piece
from llamacli.library.patience import AGAIN, NOTICED, Patience
from llamacli.progress import Progress

BUFFER = 1 << 20
SAVE_EVERY_BYTES = 4 << 20
SAVE_EVERY_SECONDS = 0.5
SLOWEST = 512
"""Bytes per second below which a connection counts as stalled and is opened anew."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class Settings:
    """How hard to pull."""

    connections: int = 8
    chunk: int = 8 << 20
    limit_rate: int = 0
    """Bytes per second over all connections; 0 is no limit."""
    patience: Patience = field(default_factory=Patience)


def transfer(client: Client, url: str, part: Part, label: str, progress: Progress, settings: Settings) -> None:
    """Fill `part` from `url` and verify it. `label` is what errors call the file.

    Raises NetworkError when the network or the server does not deliver, BadStatus for a final answer of the server,
    CorruptFile when the bytes are not what was promised (the part is then empty), CannotWrite. Whatever is raised, also
    KeyboardInterrupt, the bytes so far are saved for the next try.
    """
    resumed = part.total > 0
    for trusted in (False, True):
        progress.advance(part.total)
        digest = _Crew(client, url, part, label, progress, settings).work()
        if digest == part.digest:
            part.sync()
            return
        progress.advance(-part.total)
        part.forget()
        part.save()
        if trusted or not resumed:
            break
        # Some of the bytes came from an earlier process or another boot: start over once, with nothing but our own.
    raise CorruptFile(
        f"{label}: the bytes that came are not the ones the Hub promises (their hash differs)",
        "nothing of it was kept; run the same command again, and if it happens again, the path to the server is at fault",
    )


class _Crew:
    """The threads that fill one part."""

    def __init__(
        self, client: Client, url: str, part: Part, label: str, progress: Progress, settings: Settings
    ) -> None:
        self.client, self.url, self.part, self.label = client, url, part, label
        self.progress, self.settings = progress, settings
        self.reported = part.total
        self.note = self.noted = ""
        """Why nothing comes, if nothing comes; and what was shown last."""
        self.location = ""  # where the Hub sent us last; signed, so it is forgotten when it stops working
        self.stop = threading.Event()
        self.ranges_work = threading.Event()
        self.error: BaseException | None = None
        self.lock = threading.Lock()
        self.sessions: list[Session] = []
        self.busy = 0
        self.refused_ranges = 0
        self.digest = ""
        self.throttle = _Throttle(settings.limit_rate)

    def work(self) -> str:
        """Run until every byte is here and hashed; the digest."""
        pieces = -(-(self.part.size - self.part.total) // self.settings.chunk)
        count = max(1, min(self.settings.connections, pieces))
        workers = [self._thread(self._worker, n) for n in range(count)]
        hashing, saving = self._thread(self._hasher), self._thread(self._saver)
        self.busy = count
        threads = [*workers, hashing, saving]
        try:
            for thread in threads:
                thread.start()
            while not self.stop.is_set() and hashing.is_alive():
                hashing.join(0.05)
                self._report()
        finally:
            self._dismiss(threads)
        self._report()
        if self.error is not None:
            raise self.error
        return self.digest

    def _thread(self, target: Callable[..., None], *arguments: object) -> threading.Thread:
        def guarded() -> None:
            try:
                target(*arguments)
            except BaseException as error:  # carried to the thread that waits in `work`
                self._fail(error)

        return threading.Thread(target=guarded, daemon=True, name=f"transfer {target.__name__}")

    def _fail(self, error: BaseException) -> None:
        with self.lock:
            self.error = self.error or error
        self.stop.set()

    def _dismiss(self, threads: list[threading.Thread]) -> None:
        """Stop everyone; a thread stuck in a system call is a daemon and does not hold us up."""
        self.stop.set()
        with self.lock:
            sessions = list(self.sessions)
        for session in sessions:
            session.abort()
        self.part.wake()
        deadline = time.monotonic() + 3
        for thread in threads:
            if thread.is_alive():
                thread.join(max(0.1, deadline - time.monotonic()))
        with contextlib.suppress(CannotWrite):  # if that is the trouble, it has been told
            self.part.save()

    def _report(self) -> None:
        total = self.part.total
        if total != self.reported:
            self.progress.advance(total - self.reported)
            self.reported, self.note = total, ""
        if self.note != self.noted:
            self.noted = self.note
            self.progress.describe(self.note)

    # -- workers -----------------------------------------------------------------------------------------------

    def _worker(self, number: int) -> None:
        session = Session(self.client)
        with self.lock:
            self.sessions.append(session)
        try:
            if number:  # the first one finds out whether the server does ranges at all
                while not self.ranges_work.wait(0.1):
                    if self.stop.is_set() or self.part.complete:
                        return
            self._pull(session, number)
        finally:
            session.close()

    def _pull(self, session: Session, number: int) -> None:
        failures, seen = 0, -1
        while not self.stop.is_set() and not self.part.complete:
            piece = self.part.claim(self.settings.chunk)
            if piece is None:
                self.stop.wait(0.05)
                continue
            before = piece.at
            try:
                self._fetch(session, piece)
                failures = 0
                continue
            except Unreachable as error:
                reason, headers = str(error), {}
                self.location = ""
            except BadStatus as error:
                if not self._worth_another_try(error):
                    raise
                reason, headers = str(error), dict(error.headers)
            finally:
                self.part.release(piece)
            if self.stop.is_set():
                return
            failures = 1 if piece.at > before else failures + 1
            seen = self.part.total if failures == 1 else seen
            if failures >= self.settings.patience.attempts:
                if self.part.total > seen and self._retire():
                    return
                raise NetworkError(
                    f"{self.label}: {reason}",
                    f"tried {failures} times; what has come so far stays, run the same command again",
                )
            wait = self.settings.patience.wait(failures, headers)
            if wait >= NOTICED:
                self.note = f"{reason}; trying again"
            self.stop.wait(wait)

    def _retire(self) -> bool:
        """Leave the work to the others, if there are others: the server wants fewer connections."""
        with self.lock:
            if self.busy > 1:
                self.busy -= 1
                return True
            return False

    def _worth_another_try(self, error: BadStatus) -> bool:
        if error.status in AGAIN:
            return True
        stale = bool(self.location) and error.host == host_of(self.location)
        self.location = ""
        return stale

    def _fetch(self, session: Session, piece: Piece) -> None:
        """Ask for `piece` and write what comes. Raises Unreachable if it ends too early."""
        url = self.location or self.url
        headers = {"Range": f"bytes={piece.at}-{piece.stop - 1}"}
        if self.part.validator and host_of(url) == self.part.host:
            headers["If-Range"] = self.part.validator
        with session.get(url, headers) as response:
            if not self._accepted(response, piece, conditional="If-Range" in headers):
                return
            if response.url != self.url:
                self.location = response.url
            self._copy(response, piece)
        if piece.at < piece.stop:
            raise Unreachable(f"{host_of(response.url)} hung up")

    def _accepted(self, response: Response, piece: Piece, *, conditional: bool) -> bool:
        """Whether the body of `response` is to be written at `piece`; a server without ranges sends the whole file."""
        if response.status in (200, 206) and not response.plain:
            raise NetworkError(
                f"{self.label}: {host_of(response.url)} compresses the file on its way, although asked not to",
                "a proxy may do so: try another network, or another HF_ENDPOINT",
            )
        if response.status == 206:
            self._check_range(response, piece)
            self._remember(response)
            self.ranges_work.set()
            return True
        if response.status == 200:
            self._check_whole(response)
            if conditional:  # the server's file is another one now; what came of the old one is of no use
                self.part.forget()
                return False
            if not self.part.restart(piece):
                return False
            self._remember(response)
            return True
        if response.status == 416:
            self.refused_ranges += 1
            if self.refused_ranges > 2:
                raise CorruptFile(
                    f"{self.label}: the server's file is shorter than the {self.part.size:,} bytes promised"
                )
            self.part.forget()
            return False
        raise BadStatus(response.status, response.url, response.headers)

    def _check_range(self, response: Response, piece: Piece) -> None:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if not found or int(found[1]) != piece.at or int(found[2]) >= piece.stop:
            raise NetworkError(f"{self.label}: {host_of(response.url)} sent another range than the one asked for")
        if found[3] not in ("*", str(self.part.size)):
            raise CorruptFile(
                f"{self.label}: {host_of(response.url)} holds {int(found[3]):,} bytes, the Hub promises {self.part.size:,}"
            )

    def _check_whole(self, response: Response) -> None:
        if response.length in (None, self.part.size):
            return
        if "html" in response.headers.get("content-type", ""):
            raise NetworkError(
                f"{self.label}: {host_of(response.url)} sent a web page instead of the file", PORTAL_HINT
            )
        raise CorruptFile(
            f"{self.label}: {host_of(response.url)} sends {response.length:,} bytes, the Hub promises {self.part.size:,}"
        )

    def _remember(self, response: Response) -> None:
        """The server's strong ETag. Another host's says nothing about this one's: there the digest must do."""
        etag = response.headers.get("etag", "")
        self.part.host, self.part.validator = host_of(response.url), etag if etag.startswith('"') else ""

    def _copy(self, response: Response, piece: Piece) -> None:
        buffer = memoryview(bytearray(BUFFER))
        watch = _Watch(self.client.timeouts.read)
        while piece.at < piece.stop and not self.stop.is_set():
            with watch:
                count = response.read_into(buffer[: min(watch.step, piece.stop - piece.at)])
            if not count or not self.part.write(piece, buffer[:count]):
                return
            if watch.stalled(count):
                raise Unreachable(f"{host_of(response.url)} has nearly stopped sending")
            self.throttle.take(count, self.stop)

    # -- hasher and saver --------------------------------------------------------------------------------------

    def _hasher(self) -> None:
        at, generation = 0, self.part.generation
        hashing = hasher(self.part.digest, self.part.size)
        while at < self.part.size:
            prefix, now = self.part.follow(at, generation, 0.5)
            if self.stop.is_set():
                return
            if now != generation:
                at, generation, hashing = 0, now, hasher(self.part.digest, self.part.size)
                continue
            while at < prefix and not self.stop.is_set():
                data = self.part.read(at, min(BLOCK, prefix - at))
                if not data:
                    raise CorruptFile(f"{self.part.path} became shorter while it was being written")
                hashing.update(data)
                at += len(data)
        self.digest = hashing.hexdigest()

    def _saver(self) -> None:
        saved, since = self.part.total, time.monotonic()
        while not self.stop.wait(0.02):
            new, waited = abs(self.part.total - saved), time.monotonic() - since
            if new >= SAVE_EVERY_BYTES or (new and waited >= SAVE_EVERY_SECONDS):
                saved, since = self.part.total, time.monotonic()
                self.part.save()


class _Watch:
    """Measures how long a connection has kept us waiting, and how little came in that time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.waited, self.came, self.began = seconds, 0.0, 0, 0.0
        self.step = BUFFER >> 4
        """Bytes to ask for at once: few where the line is slow, so that little is lost when it breaks."""

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        took = time.monotonic() - self.began
        self.waited += took
        self.step = min(BUFFER, self.step * 2) if took < 0.05 else max(BUFFER >> 6, self.step // 2)

    def stalled(self, count: int) -> bool:
        """Whether the last stretch of waiting brought next to nothing."""
        self.came += count
        if self.waited < self.seconds:
            return False
        slow = self.came < SLOWEST * self.waited
        self.waited, self.came = 0.0, 0
        return slow


class _Throttle:
    """At most `rate` bytes per second over all threads."""

    def __init__(self, rate: int) -> None:
        self.rate, self.lock, self.free_at = rate, threading.Lock(), time.monotonic()

    def take(self, count: int, stop: threading.Event) -> None:
        """Account for `count` bytes and sleep off what is over the rate."""
        if self.rate <= 0:
            return
        with self.lock:
            now = time.monotonic()
            self.free_at = max(self.free_at, now - 0.1) + count / self.rate
            ahead = self.free_at - now
        if ahead > 0:
            stop.wait(ahead)
