"""One HTTP client for the Hub and the hosts it sends us to: redirects, proxies, TLS, and a token that stays at home.

The standard library's `http.client` is enough: a request is a GET with headers, a body is bytes read into our buffer. What
matters here is what is *not* done: the token goes to the configured Hub's origin (scheme, host and port) and nowhere else,
no redirect leads from https to http, and no error text holds a query string, because signed addresses carry secrets there.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import sys
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from llamacli import __version__
from llamacli.errors import NetworkError, UsageError
from llamacli.library.places import Places

MAX_REDIRECTS = 10
MAX_TEXT = 64 << 20
"""Bytes of the longest listing that is read; no repository comes near."""

Origin = tuple[str, str, int]


class Unreachable(Exception):
    """The other side could not be reached, went silent or hung up: worth another try."""


class BadStatus(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, status: int, url: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"{host_of(url)} answered {status}")
        self.status, self.host, self.headers = status, host_of(url), headers

    @property
    def code(self) -> str:
        """The Hub's own name of the trouble: GatedRepo, RepoNotFound, RevisionNotFound, EntryNotFound."""
        return self.headers.get("x-error-code", "")


@dataclass(frozen=True)
class Timeouts:
    """Seconds."""

    connect: float = 10.0
    read: float = 20.0
    """Silence after which a connection counts as dead."""


class Client:
    """What all connections share: whose token, which Hub, which proxies, which certificates."""

    def __init__(self, places: Places, timeouts: Timeouts | None = None) -> None:
        self.env = places.env
        self.offline = places.offline
        self.home = origin_of(places.endpoint)
        self.timeouts = timeouts or _timeouts(places.env)
        self._token = _checked_token(places.token())
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    @property
    def has_token(self) -> bool:
        """Whether the user has given a token at all."""
        return bool(self._token)

    def headers_for(self, url: str) -> dict[str, str]:
        """The headers of a request to `url`: the token only if it goes home."""
        headers = {"User-Agent": f"llamacli/{__version__}", "Accept-Encoding": "identity", "Accept": "*/*"}
        if self._token and origin_of(url) == self.home:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers

    def tls(self) -> ssl.SSLContext:
        """Certificates of the system, or those the usual variables name, or certifi's where the system has none."""
        with self._lock:
            if self._tls is None:
                self._tls = _tls_context(self.env)
            return self._tls

    def redact(self, text: str) -> str:
        """`text` without the token, should another side have repeated it."""
        text = text.replace(self._token, "***") if self._token else text
        return re.sub(r"hf_[A-Za-z0-9]{8,}", "hf_***", text)


class Session:
    """The connections of one thread, kept open between requests."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._open: dict[Origin, http.client.HTTPConnection] = {}
        self._aborted = False

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Response:
        """The answer to a GET, redirects followed. Raises Unreachable; NetworkError where it must not go on."""
        if self.client.offline:
            raise NetworkError("the network is switched off (--offline or HF_HUB_OFFLINE)")
        for _ in range(MAX_REDIRECTS):
            raw = self._send(url, {**self.client.headers_for(url), **(headers or {})})
            location = raw.getheader("Location")
            if raw.status not in (301, 302, 303, 307, 308) or not location:
                return Response(self, url, raw)
            self._finish(url, raw)
            url = _followed(url, location)
        raise NetworkError(f"{host_of(url)} redirects in circles")

    def get_json(self, url: str) -> Any:
        """The JSON that `url` answers with. Raises BadStatus, Unreachable, and NetworkError for a page instead."""
        with self.get(url, {"Accept": "application/json"}) as response:
            if response.status != 200:
                raise BadStatus(response.status, response.url, response.headers)
            body = response.read()
        try:
            return json.loads(body)
        except ValueError:
            raise NetworkError(f"{host_of(url)} answered with something that is not the Hub's", PORTAL_HINT) from None

    def abort(self) -> None:
        """Wake up whoever waits in this session, from another thread; it is of no use afterwards."""
        self._aborted = True
        for connection in list(self._open.values()):
            if sock := connection.sock:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close all connections."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()

    def drop(self, url: str) -> None:
        """Close the connection to `url`'s host; the next request opens a new one."""
        if connection := self._open.pop(origin_of(url), None):
            connection.close()

    def _send(self, url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """One request; a kept connection that the other side has closed meanwhile is replaced once."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        for fresh in (False, True):
            reused = origin_of(url) in self._open and not fresh
            if self._aborted:
                raise Unreachable("stopped")
            connection = None
            try:
                connection, prefix, extra = self._connection(parts)
                connection.request("GET", prefix + target, headers={**headers, **extra})
                return connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                self.drop(url)
                if final := _hopeless(parts.hostname or "", error):
                    raise final from None
                if not reused:
                    raise Unreachable(self._why(parts, error)) from None
        raise AssertionError("the second try returns or raises")

    def _why(self, parts: SplitResult, error: Exception) -> str:
        """What happened on the way to a host; where there is a proxy, it is the one that we talk to."""
        proxy = proxy_for(self.client.env, parts)
        if proxy is None or "Tunnel connection failed" in str(error):
            return _reason(parts.hostname or "", error)
        return f"the proxy on the way to {parts.hostname}: {_reason(proxy.hostname or '', error)}"

    def _connection(self, parts: SplitResult) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        """A connection for `parts`, what goes before the path, and headers that its proxy wants."""
        origin = origin_of(parts.geturl())
        proxy = proxy_for(self.client.env, parts)
        plain_proxy = proxy is not None and parts.scheme == "http"
        prefix = f"http://{parts.netloc.rpartition('@')[2]}" if plain_proxy else ""
        extra = _proxy_authorization(proxy) if proxy is not None and plain_proxy else {}
        if origin not in self._open:
            connection = self._connect(parts, proxy)
            self._open[origin] = connection
            connection.connect()
            connection.sock.settimeout(self.client.timeouts.read)
        return self._open[origin], prefix, extra

    def _connect(self, parts: SplitResult, proxy: SplitResult | None) -> http.client.HTTPConnection:
        host, port = parts.hostname or "", origin_of(parts.geturl())[2]
        timeout = self.client.timeouts.connect
        if parts.scheme == "http":
            if proxy is not None:
                host, port = proxy.hostname or "", proxy.port or 80
            return http.client.HTTPConnection(host, port, timeout=timeout)
        if proxy is None:
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=self.client.tls())
        tunnel = http.client.HTTPSConnection(
            proxy.hostname or "", proxy.port or 80, timeout=timeout, context=self.client.tls()
        )
        tunnel.set_tunnel(host, port, _proxy_authorization(proxy))
        return tunnel

    def _finish(self, url: str, raw: http.client.HTTPResponse) -> None:
        """Read the short body of a redirect, so that its connection can be used again."""
        try:
            if len(raw.read(1 << 16)) == 1 << 16:
                self.drop(url)
        except (OSError, http.client.HTTPException):
            self.drop(url)


class Response:
    """An answer whose body is read piece by piece; as a context manager it lets go of what was not read."""

    def __init__(self, session: Session, url: str, raw: http.client.HTTPResponse) -> None:
        self.url, self.status = url, raw.status
        self.headers: dict[str, str] = {k.lower(): v for k, v in raw.getheaders()}
        self._session, self._raw = session, raw

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._raw.isclosed():
            self._raw.close()
            self._session.drop(self.url)

    @property
    def length(self) -> int | None:
        """Bytes of the body as announced, if announced and not compressed."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() and self.plain else None

    @property
    def plain(self) -> bool:
        """Whether the body is what it stands for, not compressed."""
        return self.headers.get("content-encoding", "identity").lower() in ("identity", "")

    def read_into(self, buffer: memoryview) -> int:
        """Some bytes of the body; 0 at its end. Raises Unreachable when the connection breaks or goes silent."""
        try:
            return self._raw.readinto(buffer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._session.drop(self.url)
            raise Unreachable(_reason(host_of(self.url), error)) from None

    def read(self, limit: int = MAX_TEXT) -> bytes:
        """The whole body, if it is no longer than `limit`."""
        try:
            body = self._raw.read(limit + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._session.drop(self.url)
            raise Unreachable(_reason(host_of(self.url), error)) from None
        if len(body) > limit:
            raise NetworkError(f"{host_of(self.url)} sent an answer without end")
        if self.length is not None and len(body) < self.length:
            raise Unreachable(f"{host_of(self.url)} hung up")
        return body


PROXY_HINT = "put them into its address: export HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT (HTTP_PROXY for http)"
PORTAL_HINT = "does this network want you to log in on a page first? open any website and try again"


def origin_of(url: str) -> Origin:
    """Scheme, host and port of `url`. Raises NetworkError for anything but http and https."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        raise NetworkError("an address that makes no sense", "is HF_ENDPOINT right?") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NetworkError(f"not a web address: {parts.scheme}:", "is HF_ENDPOINT right?")
    return parts.scheme, parts.hostname.lower(), port


def host_of(url: str) -> str:
    """The host, for people to read; never the path or the query, which may hold secrets."""
    return urlsplit(url).hostname or "?"


def proxy_for(env: Mapping[str, str], parts: SplitResult) -> SplitResult | None:
    """The proxy for an address by the usual variables, or the system's where there are none and it has settings."""
    host = parts.hostname or ""
    if _bypassed(env, host, parts.port):
        return None
    names = [f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"]
    if "REQUEST_METHOD" in env:  # a CGI script: HTTP_PROXY would come from a stranger's "Proxy:" header
        names.remove("HTTP_PROXY") if parts.scheme == "http" else None
    text = next((env[n] for n in names if env.get(n)), "")
    if not text and sys.platform in ("win32", "darwin") and not urllib.request.proxy_bypass(host):
        text = urllib.request.getproxies().get(parts.scheme, "")
    if not text:
        return None
    proxy = urlsplit(text if "://" in text else f"http://{text}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise UsageError(
            f"a proxy of the kind {proxy.scheme}:// is not supported", "use an http:// proxy, or NO_PROXY to go direct"
        )
    return proxy


def _bypassed(env: Mapping[str, str], host: str, port: int | None) -> bool:
    host = host.lower()
    for item in (env.get("no_proxy") or env.get("NO_PROXY") or "").lower().split(","):
        name = item.strip().lstrip(".")
        if name == "*" or (name and (host == name or host.endswith("." + name) or f"{host}:{port}" == name)):
            return True
    return False


def _proxy_authorization(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _followed(url: str, location: str) -> str:
    """The address a redirect leads to. Raises NetworkError if it gives up encryption or makes no sense."""
    try:
        # Bytes of a header come as Latin-1; what no address may hold is written as browsers do.
        target = urljoin(url, quote(location.encode("latin-1", "replace"), safe="%/:=&?~#+!$,;'@()*[]|"))
    except ValueError:
        raise NetworkError(f"{host_of(url)} redirects to an address that makes no sense") from None
    if origin_of(url)[0] == "https" and origin_of(target)[0] != "https":
        raise NetworkError(f"{host_of(url)} redirects to an unencrypted address", "refused; nothing was sent there")
    return target


def _checked_token(token: str) -> str:
    """`token`, if it can be a header at all; the libraries below would print it in their complaint."""
    if not all("!" <= c <= "~" for c in token):
        raise UsageError(
            "the Hub token holds characters that no token has", "set HF_TOKEN again, without quotes or blanks"
        )
    return token


def _timeouts(env: Mapping[str, str]) -> Timeouts:
    """HF_HUB_DOWNLOAD_TIMEOUT in seconds, where it is a number."""
    try:
        seconds = float(env.get("HF_HUB_DOWNLOAD_TIMEOUT", ""))
    except ValueError:
        return Timeouts()
    return Timeouts(read=seconds) if 0 < seconds < 3600 else Timeouts()


def _tls_context(env: Mapping[str, str]) -> ssl.SSLContext:
    file = next((env[n] for n in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if env.get(n)), None)
    folder = env.get("SSL_CERT_DIR") or None
    if file is None and folder is None and os.name != "nt":
        known = ssl.get_default_verify_paths()
        if known.cafile is None and known.capath is None:
            file = _certifi()
    try:
        return ssl.create_default_context(cafile=file, capath=folder)
    except (OSError, ssl.SSLError):
        raise UsageError(f"cannot read the certificates in {file or folder}", "correct SSL_CERT_FILE") from None


def _certifi() -> str | None:
    """Mozilla's certificates, if a package that brings them is installed: Python from python.org on macOS has none."""
    try:
        import certifi
    except ImportError:
        return None
    return str(certifi.where())


_PASSING = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""A line that breaks while the connection is being made secure."""


def _hopeless(host: str, error: Exception) -> NetworkError | None:
    """What no further try will mend."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return NetworkError(
            f"the certificate of {host} is not trusted: {error.verify_message}",
            "behind a company proxy, name its certificates with SSL_CERT_FILE",
        )
    if isinstance(error, ssl.SSLError) and not isinstance(error, _PASSING):
        return NetworkError(
            f"no secure connection to {host}: {(error.reason or 'TLS error').lower().replace('_', ' ')}",
            "is HF_ENDPOINT right (https:// or http://)? or does something on the way answer in its place?",
        )
    if isinstance(error, OSError) and "Tunnel connection failed: 407" in str(error):
        return NetworkError("the proxy wants a user name and a password", PROXY_HINT)
    return None


def _reason(host: str, error: Exception) -> str:
    """What happened to a connection, in words that hold nothing but the host."""
    if isinstance(error, socket.gaierror):
        return f"cannot find {host} (no network, or no such host)"
    if isinstance(error, TimeoutError):
        return f"{host} does not answer"
    if isinstance(error, ConnectionRefusedError):
        return f"{host} refuses the connection"
    if isinstance(error, ssl.SSLError):
        return f"no secure connection to {host} ({error.reason or 'TLS error'})"
    if isinstance(error, OSError) and "Tunnel connection failed" in str(error):
        return f"the proxy does not let us through to {host} ({str(error)[:60]})"
    return f"{host} hung up"
