"""A Hub of our own on this machine: a real HTTP server that speaks the part of the Hub's API that downloads use.

Two servers on two origins: the Hub (127.0.0.1), which knows repositories and redirects large files, and the host it
redirects to (localhost, another port), which holds the bytes. Both can be slow, hang up, answer with errors, flip bits and
pretend to be a login page.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SECRET = "X-Signature=canary-of-a-signed-address"


@dataclass
class HubFile:
    """One file; `lfs` files are served by the second host."""

    content: bytes
    lfs: bool = True
    hashed: tuple[bytes, str] = (b"", "")
    """The content that was hashed last, and its digest: large files are asked for often."""

    @property
    def digest(self) -> str:
        if self.hashed[0] is not self.content or not self.hashed[1]:
            self.hashed = (self.content, self._digest())
        return self.hashed[1]

    def _digest(self) -> str:
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def listing(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"size": len(self.content), "blobId": self.digest[:40]}
        if self.lfs:
            return {**entry, "lfs": {"sha256": self.digest, "size": len(self.content), "pointerSize": 134}}
        return {**entry, "blobId": self.digest}


@dataclass
class HubRepo:
    files: dict[str, HubFile]
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    gated: bool = False
    private: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    """More entries of the listing, as they are: hostile ones."""


@dataclass
class Request:
    host: str
    path: str
    headers: dict[str, str]


Answer = tuple[int, dict[str, str]]


class Link:
    """A line of `rate` bytes per second, 0 for none, that all connections share."""

    def __init__(self, rate: int) -> None:
        self.rate, self.free_at, self.lock = rate, 0.0, threading.Lock()

    def carry(self, count: int) -> None:
        """Wait until `count` more bytes are through."""
        if self.rate:
            with self.lock:
                now = time.monotonic()
                self.free_at = max(self.free_at, now - 0.005) + count / self.rate
                ahead = self.free_at - now
            if ahead > 0:
                time.sleep(ahead)


class LocalHub:
    """The state that tests set and read."""

    def __init__(self) -> None:
        self.repos: dict[str, HubRepo] = {}
        self.moved: dict[str, str] = {}
        self.token = "hf_CANARYcanary0123456789"
        self.requests: list[Request] = []
        self.sent = 0
        self.lock = threading.Lock()
        self.calm()

    def calm(self) -> None:
        """Behave well again."""
        self.answers: dict[str, deque[Answer]] = {"hub": deque(), "cdn": deque()}
        """Answers to give instead, first come first served."""
        self.cut: Callable[[int], int | None] = lambda length: None
        """After how many bytes of a body of that length to hang up."""
        self.rate = 0
        """Bytes per second and connection."""
        self.link = Link(0)
        """What all connections share."""
        self.stall = threading.Event()
        """While set, bodies stop coming."""
        self.flip: set[int] = set()
        """Offsets whose lowest bit is wrong."""
        self.ranges = True
        self.etag = '"one"'
        self.portal = False
        self.refuse_range = 0
        """How many requests to answer with 416."""
        self.redirect_to = ""
        """Another address to send large files to."""

    def add(self, repo: str, files: dict[str, bytes | HubFile], **more: Any) -> HubRepo:
        made = {
            n: c if isinstance(c, HubFile) else HubFile(c, n.endswith((".gguf", ".safetensors")))
            for n, c in files.items()
        }
        self.repos[repo] = HubRepo(made, **more)
        return self.repos[repo]

    def start(self) -> None:
        self.servers = {
            "hub": _Server(("127.0.0.1", 0), _handler(self, "hub")),
            "cdn": _Server(("127.0.0.1", 0), _handler(self, "cdn")),
        }
        for server in self.servers.values():
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.servers['hub'].server_port}"
        self.cdn = f"http://localhost:{self.servers['cdn'].server_port}"

    def close(self) -> None:
        for server in self.servers.values():
            server.shutdown()
            server.server_close()

    def asked(self, host: str) -> list[Request]:
        with self.lock:
            return [r for r in self.requests if r.host == host]


@contextmanager
def local_hub() -> Iterator[LocalHub]:
    hub = LocalHub()
    hub.start()
    try:
        yield hub
    finally:
        hub.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no event."""


def _handler(hub: LocalHub, host: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 0
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Quiet."""

        def do_GET(self) -> None:
            with hub.lock:
                hub.requests.append(Request(host, self.path, {k.lower(): v for k, v in self.headers.items()}))
                scripted = hub.answers[host].popleft() if hub.answers[host] else None
            if scripted:
                self.reply(*scripted, b"go away")
            elif hub.portal:
                self.reply(200, {"Content-Type": "text/html"}, b"<html>please log in</html>")
            elif host == "hub":
                self.hub_get()
            else:
                self.bytes_of(unquote(urlsplit(self.path).path)[1:])

        def do_HEAD(self) -> None:
            """What huggingface_hub asks before it fetches."""
            name, file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", unquote(self.path)).groups()  # type: ignore[union-attr]
            repo, entry = hub.repos[name], hub.repos[name].files[file]
            common = {"X-Repo-Commit": repo.commit, "X-Linked-Size": str(len(entry.content))}
            if entry.lfs:
                target = {"Location": f"{hub.cdn}/{name}/{file}", "X-Linked-ETag": f'"{entry.digest}"'}
                self.head(302, {**common, **target, "Content-Length": "0"})
            else:
                self.head(200, {**common, "ETag": f'"{entry.digest}"', "Content-Length": str(len(entry.content))})

        def hub_get(self) -> None:
            path = unquote(urlsplit(self.path).path)
            for old, new in hub.moved.items():
                if f"/{old}/" in path:
                    self.reply(307, {"Location": self.path.replace(old, new)}, b"moved")
                    return
            if path == "/api/models":
                words = parse_qs(urlsplit(self.path).query).get("search", [""])[0].lower().split()
                found = [{"id": n} for n in hub.repos if all(w in n.lower() for w in words)]
                self.json(found[:3])
            elif path == "/api/whoami-v2":
                self.json({"name": "me"}) if self.trusted() else self.error(401, "")
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
                self.listing(match[1], match[2])
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self.resolve(match[1], match[2], match[3])
            else:
                self.error(404, "EntryNotFound")

        def listing(self, name: str, revision: str) -> None:
            repo = hub.repos.get(name)
            if repo is None or (repo.private and not self.trusted()):
                self.error(404 if self.trusted() else 401, "RepoNotFound")
            elif revision not in ("main", repo.commit):
                self.error(404, "RevisionNotFound")
            else:
                files = [{"rfilename": n, **f.listing} for n, f in repo.files.items()]
                files += [{"rfilename": n, **e} for n, e in repo.extra.items()]
                body = {"id": name, "sha": repo.commit, "gated": repo.gated and "auto", "siblings": files}
                self.json({**body, "cardData": {"license": "apache-2.0"}})

        def resolve(self, name: str, revision: str, file: str) -> None:
            repo = hub.repos[name]
            if repo.gated and not self.trusted():
                self.error(401 if "authorization" not in map(str.lower, self.headers) else 403, "GatedRepo")
            elif file not in repo.files:
                self.error(404, "EntryNotFound")
            elif repo.files[file].lfs:
                target = hub.redirect_to or f"{hub.cdn}/{name}/{file}"
                headers = {"Location": f"{target}?{SECRET}", "X-Linked-ETag": f'"{repo.files[file].digest}"'}
                self.reply(302, {**headers, "X-Repo-Commit": repo.commit}, b"over there")
            else:
                self.bytes_of(f"{name}/{file}")

        def trusted(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {hub.token}"

        def bytes_of(self, path: str) -> None:
            owner, name, file = path.split("/", 2)
            content = hub.repos[f"{owner}/{name}"].files[file].content
            start, stop, status = 0, len(content), 200
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            fresh = self.headers.get("If-Range", hub.etag) == hub.etag
            if wanted and hub.ranges and fresh:
                start, stop, status = int(wanted[1]), min(stop, int(wanted[2] or stop) + 1), 206
                if start >= len(content) or self.refused():
                    self.reply(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
                    return
            headers = {
                "ETag": hub.etag,
                "Content-Length": str(stop - start),
                "Content-Type": "application/octet-stream",
            }
            if status == 206:
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            self.head(status, headers)
            self.body(memoryview(content), start, stop)

        def refused(self) -> bool:
            with hub.lock:
                hub.refuse_range -= 1
                return hub.refuse_range >= 0

        def body(self, content: memoryview, start: int, stop: int) -> None:
            limit, began, at = hub.cut(stop - start), time.monotonic(), start
            while at < stop:
                while hub.stall.is_set():
                    time.sleep(0.01)
                end = min(stop, at + (64 << 10), at + max(1, hub.rate // 20) if hub.rate else stop)
                end = min(end, start + limit) if limit is not None else end
                block = content[at:end] if not hub.flip else bytearray(content[at:end])
                for offset in hub.flip:
                    if at <= offset < end:
                        block[offset - at] ^= 1
                hub.link.carry(len(block))
                self.wfile.write(block)
                with hub.lock:
                    hub.sent += len(block)
                at = end
                if limit is not None and at - start >= limit:
                    self.close_connection = True
                    return
                if hub.rate:
                    time.sleep(max(0.0, began + (at - start) / hub.rate - time.monotonic()))

        def json(self, value: Any) -> None:
            self.reply(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

        def error(self, status: int, code: str) -> None:
            self.reply(
                status,
                {"X-Error-Code": code, "X-Error-Message": f"you sent {self.headers.get('Authorization')}"},
                b"{}",
            )

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.head(status, {"Content-Length": str(len(body)), **headers})
            self.wfile.write(body)

        def head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

    return Handler


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that look like weights: the same for the same seed."""
    return random.Random(seed).randbytes(size)
