"""The only outbound HTTP: requests to configured URLs, limited in time and size (RFC 8725 §3.10).

The fetcher follows no redirect, uses no proxy from the environment, and sends no cookie: a request goes only to the
configured URL. A configured URL may be a private address, since most identity providers have one. The protection
against server-side request forgery is that no URL comes from a token.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import LocationParseError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Url, parse_url

from sts.errors import StartError, StsError
from sts.options import KeptFile

_VISIBLE: Final = re.compile(r"[!-\[\]-~]{1,2048}")  # ASCII without space and backslash
_DIGITS: Final = re.compile(r"[0-9]{1,9}")
_HEADERS: Final = {"User-Agent": "sts", "Accept": "application/json, application/jwk-set+json", "Connection": "close"}
_OK: Final = 200
_CHUNK: Final = 65536
_MAX_KEPT: Final = 16
MAX_IDLE: Final = 30.0
"""Seconds without use after which a connection is not used again: load balancers silently drop idle ones."""
_SOCKET_OPTIONS: Final[list[tuple[int, int, int | bytes]]] = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
_MAX_CONTEXTS: Final = 256


class UnreachableError(StsError):
    """A document could not be fetched; the message contains the reason, and no content of the document."""


@dataclass(frozen=True, slots=True)
class Document:
    """A fetched document: its body, and for how many seconds it may be cached (RFC 9111 §4.2), None if unspecified."""

    body: bytes = field(repr=False)
    max_age: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with any status: status, headers (names in lower case), and body."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def max_age(self) -> float | None:
        """For how many seconds the response may be cached (RFC 9111 §4.2), None if unspecified."""
        return _max_age(self.headers)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a request.

    - `connect`: seconds to connect, including TLS.
    - `read`: seconds to wait for the next bytes.
    - `total`: seconds for the whole request.
    - `body`: bytes of the response body.
    """

    connect: float = 2.0
    read: float = 3.0
    total: float = 5.0
    body: int = 262_144


def check_url(url: str) -> None:
    """Check that a configured URL may be fetched. Raises ValueError with a message that describes a valid URL.

    Only https is allowed; http only to a literal loopback address, because the resolver decides what a name such as
    `localhost` means.
    """
    _parse(url)


def _checked(url: str) -> str:
    check_url(url)
    return url


OutboundUrl = Annotated[str, AfterValidator(_checked)]
"""A setting: the URL of an outbound request."""


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL (RFC 6454 §4). Raises ValueError for a URL that `check_url` refuses."""
    parsed = _parse(url)
    scheme = parsed.scheme or ""
    return scheme, parsed.host or "", parsed.port or (443 if scheme == "https" else 80)


def read_ca(file: KeptFile) -> str:
    """Read a file of CA certificates (PEM). Raises StartError if the file contains no such certificates."""
    try:
        return _pem(file.read())
    except (OSError, ValueError) as error:  # OSError: TLS finds no certificate; ValueError: it is not ASCII
        raise StartError(f"the CA file {file} cannot be used: {_why(error)}") from None


class _SilentError(UnreachableError):
    """A kept connection gave no response: the connection may be dead, which proves no fault of the server."""


class _Kept:
    """Idle connections, each with its origin and the time of its last use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[tuple[str, str, int], HTTPConnection, float]] = []  # the youngest last

    def take(self, there: tuple[str, str, int]) -> tuple[HTTPConnection, float] | None:
        """Return the most recently used open connection to `there`, which is probably alive; None if none is open."""
        while True:
            with self._lock:
                old = time.monotonic() - MAX_IDLE
                gone = [one for one in self._idle if one[2] < old]
                self._idle = [one for one in self._idle if one[2] >= old]
                found = next((one for one in reversed(self._idle) if one[0] == there), None)
                if found is not None:
                    self._idle.remove(found)
            for _, connection, _ in gone:
                connection.close()
            if found is None:
                return None
            if found[1].is_connected:
                return found[1], found[2]
            found[1].close()

    def put(self, there: tuple[str, str, int], connection: HTTPConnection) -> None:
        """Keep a connection that was just used, or close it if there are enough."""
        with self._lock:
            kept = len(self._idle) < _MAX_KEPT
            if kept:
                self._idle.append((there, connection, time.monotonic()))
        if not kept:
            connection.close()

    def drop(self, there: tuple[str, str, int], until: float) -> None:
        """Close the connections to `there` that were last used before `until`: they are probably dead, too."""
        self._close(lambda one: one[0] == there and one[2] <= until)

    def close(self) -> None:
        """Close all of them."""
        self._close(lambda _: True)

    def _close(self, dead: Callable[[tuple[tuple[str, str, int], HTTPConnection, float]], bool]) -> None:
        with self._lock:
            closing = [one for one in self._idle if dead(one)]
            self._idle = [one for one in self._idle if not dead(one)]
        for _, connection, _ in closing:
            connection.close()


class Fetcher:
    """Sends requests; trusts the certificates of `ca` (PEM), or the system's CAs without `ca`.

    Threads may share a fetcher. `fetch` keeps no connection and may be used before and after a fork. `ask` keeps
    connections open: a fetcher that has called `ask` must not be used after a fork.
    """

    def __init__(self, ca: str | None = None, bounds: Bounds = Bounds()) -> None:
        self._tls = _tls(ca)
        self._bounds = bounds
        self._kept = _Kept()

    def fetch(self, url: str) -> Document:
        """Fetch one document within `bounds.total` seconds. Raises UnreachableError for every failure.

        The time of a DNS lookup is added, because Python cannot interrupt it: never call this in the thread of a
        request.
        """
        try:
            parsed = _parse(url)
            connection = self._connection(parsed)
            try:
                end = time.monotonic() + self._bounds.total
                answer = self._converse(connection, "GET", parsed.request_uri, _HEADERS, None, end)
            finally:
                connection.close()
        except UnreachableError:
            raise
        except Exception as error:  # noqa: BLE001 - sockets, TLS and HTTP parsers each have their own
            raise UnreachableError(_why(error)) from None
        if answer.status != _OK:
            raise UnreachableError(f"it answered {answer.status}")
        return Document(answer.body, answer.max_age)

    def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """Send a request without side effects, on a kept connection if there is one; returns a response of any status.

        A kept connection may be dead: the server closed it, or a load balancer dropped it silently. Therefore it gets
        half of `bounds.total`. Then it is closed together with all older ones, and the request is sent again on a new
        connection within the remaining time. The server may receive the request twice. Raises UnreachableError. The
        time of a DNS lookup is added as for `fetch`.
        """
        try:
            parsed = _parse(url)
            there = origin(url)
            end = time.monotonic() + self._bounds.total
            kept = self._kept.take(there)
            if kept is not None:
                connection, used_at = kept
                try:
                    middle = time.monotonic() + self._bounds.total / 2
                    return self._ask(there, connection, method, parsed.request_uri, headers, body, middle)
                except _SilentError:
                    self._kept.drop(there, used_at)
            return self._ask(there, self._connection(parsed), method, parsed.request_uri, headers, body, end)
        except UnreachableError:
            raise
        except Exception as error:  # noqa: BLE001 - sockets, TLS and HTTP parsers each have their own
            raise UnreachableError(_why(error)) from None

    def close(self) -> None:
        """Close the idle connections; another thread may still use one of them."""
        self._kept.close()

    def _ask(
        self,
        there: tuple[str, str, int],
        connection: HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        end: float,
    ) -> Answer:
        try:
            answer = self._converse(connection, method, target, {"User-Agent": "sts", **headers}, body, end)
        except BaseException:
            connection.close()
            raise
        if connection.sock is None:  # the server closes this connection
            connection.close()
        else:
            self._kept.put(there, connection)
        return answer

    def _connection(self, url: Url) -> HTTPConnection:
        host, wait = (url.host or "").strip("[]"), self._bounds.connect
        if url.scheme == "https":
            return HTTPSConnection(host, url.port, timeout=wait, ssl_context=self._tls, socket_options=_SOCKET_OPTIONS)
        return HTTPConnection(host, url.port, timeout=wait, socket_options=_SOCKET_OPTIONS)

    def _converse(
        self,
        connection: HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        end: float,
    ) -> Answer:
        """Send a request and read the response until `end`. Raises _SilentError if a kept connection gives none."""
        opened = connection.sock is None
        if opened:
            connection.timeout = max(0.001, min(self._bounds.connect, end - time.monotonic()))
            connection.connect()
        peer: socket.socket = connection.sock
        # The connection sets this timeout on the socket before it reads.
        connection.timeout = max(0.001, min(self._bounds.read, end - time.monotonic()))
        # A timeout per read does not limit a peer that sends one byte per second: at `end`, shut the socket down.
        watch = threading.Timer(end - time.monotonic(), _hang_up, [peer])
        watch.daemon = True
        watch.start()
        answered = False
        try:
            connection.request(
                method, target, body=body, headers=dict(headers), preload_content=False, decode_content=False
            )
            response = connection.getresponse()
            answered = True
            try:
                answer = self._read(response)
            except BaseException:
                response.close()  # an open response keeps the socket open, also after the connection is closed
                raise
        except Exception as error:
            _let_go(peer)
            if not (opened or answered):
                raise _SilentError(_why(error)) from None
            _check_time(end)
            raise
        finally:
            watch.cancel()
        _check_time(end)  # a body without a length ends with the shutdown, and would look complete
        return answer

    def _read(self, answer: BaseHTTPResponse) -> Answer:
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise UnreachableError("it answered in a content encoding that was not requested")
        body = b""
        while chunk := answer.read(_CHUNK):  # to its end: only the last read detects a truncated body
            body += chunk
            if len(body) > self._bounds.body:
                raise UnreachableError("its answer is too large")
        return Answer(answer.status, {name.lower(): answer.headers[name] for name in answer.headers}, body)


@lru_cache(maxsize=_MAX_CONTEXTS)
def _pem(content: bytes) -> str:
    """Check the content of a CA file and return its text; equal contents share one text. Raises OSError, ValueError."""
    pem = content.decode("ascii")
    _tls(pem)
    return pem


def _tls(ca: str | None) -> ssl.SSLContext:
    """Return the TLS context that trusts `ca` (PEM), or the system's CAs if None; equal arguments share a context."""
    return _context(ca, _system_stamp() if ca is None else ())


@lru_cache(maxsize=_MAX_CONTEXTS)
def _context(ca: str | None, _stamp: tuple[object, ...]) -> ssl.SSLContext:
    """Create a TLS context: tens of milliseconds and a megabyte for a CA bundle. It is shared: do not change it."""
    if ca is None:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # create_default_context uses the system's CAs for an empty text
    context.load_verify_locations(cadata=ca)
    return context


def _system_stamp() -> tuple[object, ...]:
    """Return a value that changes with the system's CA certificates, so that a reload trusts the new ones."""
    paths = ssl.get_default_verify_paths()
    return tuple(_stamp_of(path) for path in (paths.cafile, paths.capath) if path)


def _stamp_of(path: str) -> tuple[object, ...]:
    try:
        found = Path(path).stat()
    except OSError:
        return (path,)
    return (path, found.st_ino, found.st_size, found.st_mtime_ns)


def _check_time(end: float) -> None:
    if time.monotonic() >= end:
        raise UnreachableError("it took too long") from None


def _parse(url: str) -> Url:
    if not _VISIBLE.fullmatch(url):
        raise ValueError("a URL is ASCII without spaces and backslashes")
    try:
        parsed = parse_url(url)
    except LocationParseError:
        raise ValueError("this is not a URL") from None
    if not parsed.host or parsed.auth is not None or parsed.fragment is not None:
        raise ValueError("a URL names a host, and has no user and no fragment")
    if parsed.scheme == "http" and not _is_loopback(parsed.host):
        raise ValueError("http is for a literal loopback address such as http://127.0.0.1:9000 only; write https")
    if parsed.scheme not in {"http", "https"}:
        raise ValueError("a URL begins with https://")
    return parsed


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _hang_up(peer: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is closed already
        # Not SSLSocket.shutdown, which removes the TLS layer while another thread reads.
        socket.socket.shutdown(peer, socket.SHUT_RDWR)


def _let_go(peer: socket.socket) -> None:
    """Close the socket of a response that urllib3 rejected because of its headers, and left open."""
    with contextlib.suppress(OSError):
        os.close(peer.detach())


def _max_age(headers: Mapping[str, str]) -> float | None:
    """Return for how many seconds the response is fresh: `max-age` minus `Age`, 0 for `no-store` and `no-cache`."""
    fresh = None
    for directive in headers.get("cache-control", "").lower().split(","):
        name, _, value = directive.strip().partition("=")
        if name in {"no-store", "no-cache"}:
            return 0.0
        if name == "max-age":
            fresh = _seconds(value.strip('"'))
    return None if fresh is None else max(0.0, fresh - _seconds(headers.get("age", "0")))


def _seconds(text: str) -> float:
    return float(text) if _DIGITS.fullmatch(text) else 0.0


def _why(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    said = cause.strerror if isinstance(cause, OSError) else None
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
