"""Byte ranges of one file on the Hub, straight into memory: headers before a download, shards on their way to a quantizer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from llamacli.errors import CorruptFile, LlamacliError, NetworkError
from llamacli.library.digest import hasher
from llamacli.library.http import PORTAL_HINT, BadStatus, Response, Session, Unreachable, host_of
from llamacli.library.hub import Hub, RemoteFile, RemoteRepo
from llamacli.library.patience import AGAIN

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_STEP = 1 << 20


@dataclass
class RemoteBytes:
    """One file of one commit. Several threads may read, each with a `Session` of its own."""

    hub: Hub
    repo: RemoteRepo
    file: RemoteFile
    location: str = field(default="", init=False)
    """Where the Hub sent us last; signed, so it is forgotten when it stops working."""

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.repo.name}/{self.file.name}"

    def whole(self, session: Session) -> bytes:
        """All of a small file, its digest compared. Raises CorruptFile, NetworkError."""
        data = self.read(session, 0, self.file.size)
        check = hasher(self.file.digest, self.file.size)
        check.update(memoryview(data))
        if check.hexdigest() != self.file.digest:
            raise CorruptFile(
                f"{self.label}: the bytes that came are not the ones the Hub promises (their hash differs)",
                "run the same command again; if it happens again, the path to the server is at fault",
            )
        return bytes(data)

    def read(self, session: Session, start: int, stop: int, stopped: Callable[[], bool] = lambda: False) -> bytearray:
        """Bytes [start, stop), through drops and busy servers; fewer only when `stopped` says so.

        Raises NetworkError when the network or the server does not deliver, CorruptFile when the server's file is
        another one, and what the Hub's refusal means.
        """
        data = bytearray(stop - start)
        at, failures = 0, 0
        while at < len(data) and not stopped():
            before = at
            try:
                for count in self._pieces(session, start + at, memoryview(data)[at:]):
                    at += count
                    if stopped():
                        break
                continue
            except Unreachable as error:
                reason, headers = str(error), {}
            except BadStatus as error:
                if not self._worth_another_try(error):
                    raise self._explained(error) from None
                reason, headers = str(error), dict(error.headers)
            self.location = ""
            failures = 1 if at > before else failures + 1
            if failures >= self.hub.patience.attempts:
                raise NetworkError(
                    f"{self.label}: {reason}", f"tried {failures} times; run the same command again to go on"
                )
            _sleep(self.hub.patience.wait(failures, headers), stopped)
        return data

    def _pieces(self, session: Session, start: int, buffer: memoryview) -> Iterator[int]:
        """One request; how many bytes came, again and again. Raises Unreachable if it ends early."""
        url = self.location or self.hub.file_url(self.repo, self.file)
        stop = start + len(buffer)
        if not buffer:
            return
        at = 0
        with session.get(url, {"Range": f"bytes={start}-{stop - 1}"}) as response:
            self._check(response, start, stop)
            if response.url != self.hub.file_url(self.repo, self.file):
                self.location = response.url
            while at < len(buffer):
                count = response.read_into(buffer[at : at + _STEP])
                if not count:
                    raise Unreachable(f"{host_of(response.url)} hung up")
                at += count
                yield count

    def _check(self, response: Response, start: int, stop: int) -> None:
        host = host_of(response.url)
        if response.status == 200:
            if "html" in response.headers.get("content-type", ""):
                raise NetworkError(f"{self.label}: {host} sent a web page instead of the file", PORTAL_HINT)
            if start == 0 and response.length in (None, self.file.size):
                return  # a server that sends small files whole
            raise NetworkError(
                f"{self.label}: {host} does not serve parts of files", "download it first: llamacli download"
            )
        if response.status == 416:
            raise CorruptFile(f"{self.label}: the server's file is shorter than the {self.file.size:,} bytes promised")
        if response.status != 206:
            raise BadStatus(response.status, response.url, response.headers)
        found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if not found or int(found[1]) != start or int(found[2]) >= stop:
            raise NetworkError(f"{self.label}: {host} sent another range than the one asked for")
        if found[3] not in ("*", str(self.file.size)):
            raise CorruptFile(
                f"{self.label}: {host} holds {int(found[3]):,} bytes, the Hub promises {self.file.size:,}"
            )

    def _worth_another_try(self, error: BadStatus) -> bool:
        stale = bool(self.location) and error.host == host_of(self.location)
        return error.status in AGAIN or stale

    def _explained(self, error: BadStatus) -> LlamacliError:
        return self.hub.explain(error, self.repo.name, self.repo.commit, self.file.name)


def _sleep(seconds: float, stopped: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not stopped() and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(0.05, left))
