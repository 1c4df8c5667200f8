"""The `redis` section, and the checks of it that need no connection."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Final, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, StringConstraints, model_validator

from sts.errors import StartError
from sts.options import KeptConfigFile, KeptFile, Names, SecretText, Section

PORT: Final = 6379

_VISIBLE: Final = re.compile(r"[!-\[\]-~]{1,2048}")
_DATABASE: Final = re.compile(r"(?:0|[1-9][0-9]{0,3})")
_TLS_HINT: Final = "write rediss://; redis:// is for a literal loopback address such as redis://127.0.0.1:6379 only"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A parsed URL. `path` is that of a Unix socket, "" for TCP; `host` is "" if there is a path."""

    tls: bool = True
    user: str | None = None
    host: str = ""
    port: int = PORT
    database: int = 0
    path: str = ""


def is_loopback(host: str) -> bool:
    """Return whether `host` is a literal loopback address; names such as `localhost` depend on the resolver."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_url(url: str) -> RedisUrl:
    """Parse `rediss://[user@]host[:port][/db]`, `redis://` likewise, or `unix:///path[?db=N]`.

    Raises ValueError; its message shows the right form, and never the URL, which may contain a password.
    """
    if not _VISIBLE.fullmatch(url):
        raise ValueError("a URL is ASCII without spaces and backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("this is not a URL") from None
    if parts.password is not None:
        raise ValueError("a password is not allowed in the URL: write it as `password`")
    if parts.fragment:
        raise ValueError("a URL of a server has no fragment")
    user = unquote(parts.username) if parts.username else None
    if parts.scheme == "unix":
        query = parse_qsl(parts.query, keep_blank_values=True)
        if parts.hostname or not parts.path or [key for key, _ in query] not in ([], ["db"]):
            raise ValueError("a Unix socket is written as unix:///path/to/redis.sock, with ?db=N for another database")
        return RedisUrl(
            tls=False, user=user, database=_database(query[0][1] if query else "0"), path=unquote(parts.path)
        )
    if parts.scheme not in {"redis", "rediss"}:
        raise ValueError("the URL of a server begins with rediss://")
    if not parts.hostname or parts.query:
        raise ValueError("such as rediss://redis.example.internal:6379/0")
    if parts.scheme == "redis" and not is_loopback(parts.hostname):
        raise ValueError(f"without TLS an attacker on the network could read and change the data: {_TLS_HINT}")
    database = _database(parts.path.removeprefix("/") or "0")
    return RedisUrl(parts.scheme == "rediss", user, parts.hostname, port or PORT, database)


def _database(text: str) -> int:
    if not _DATABASE.fullmatch(text):
        raise ValueError("a database is a whole number, such as rediss://redis.example.internal:6379/0")
    return int(text)


def parse_node(node: str) -> tuple[str, int]:
    """Parse `host:port`, with an IPv6 address in brackets. Raises ValueError."""
    try:
        parts = urlsplit(f"//{node}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not _VISIBLE.fullmatch(node) or not host or not port or parts.username is not None or parts.path or parts.query:
        raise ValueError("a node is written as host:port, such as redis-1.example.internal:26379")
    return host, port


def read_ca(file: KeptFile) -> str:
    """Return the CA certificates (PEM) of `ca_file`. Raises StartError if the file has no such certificates."""
    try:
        pem = file.read().decode("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (OSError, ValueError):  # OSError: the TLS library finds no certificate; ValueError: not ASCII
        raise StartError(f"the CA file {file} cannot be used: it holds no certificates (PEM)") from None
    return pem


def _check_url(url: str) -> str:
    parse_url(url)
    return url


def _check_nodes(nodes: tuple[str, ...]) -> tuple[str, ...]:
    for node in nodes:
        parse_node(node)
    return nodes


class RedisSettings(Section):
    """The connection to a Redis or Valkey server."""

    url: Annotated[str, AfterValidator(_check_url)] | None = None
    """`rediss://[user@]host[:port][/db]`; `redis://` for a literal loopback address only, `unix:///path[?db=N]` for a
    Unix socket. With `sentinel` or `cluster` it is optional: the addresses come from `nodes`, and the URL only sets
    TLS (without a URL: on), user and database."""
    password: SecretText | None = None
    """The password of the server, and of Sentinels that require one; never a part of the URL."""
    ca_file: KeptConfigFile | None = None
    """CA certificates (PEM) that must have issued the server's certificate; default: the system's."""
    mode: Literal["single", "sentinel", "cluster"] = "single"
    """One server, a primary that Sentinels name, or a Redis Cluster."""
    nodes: Annotated[Names, AfterValidator(_check_nodes)] = ()
    """`host:port` of the Sentinels, or of some nodes of the cluster."""
    master: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,128}$")] | None = None
    """The primary's name at the Sentinels."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Reject keys that the mode does not use: they show that another mode was intended."""
        if self.mode == "single":
            if self.url is None:
                raise ValueError("`url` is missing: such as rediss://redis.example.internal:6379/0")
            if self.nodes:
                raise ValueError("`nodes` are for mode: sentinel or mode: cluster; write a single server as `url`")
        elif not self.nodes:
            raise ValueError(f"mode: {self.mode} needs `nodes`: a list of host:port")
        if (self.mode == "sentinel") != (self.master is not None):
            raise ValueError("`master`, the name of the primary, is required for mode: sentinel, and only there")
        if self.mode == "cluster" and self.target.database:
            raise ValueError("a cluster has only the database 0")
        if self.mode != "single" and self.target.path:
            raise ValueError(f"mode: {self.mode} does not support a Unix socket")
        if not self.target.tls and not all(is_loopback(host) for host, _ in self.addresses):
            raise ValueError(f"without TLS every node must be a literal loopback address: {_TLS_HINT}")
        return self

    @property
    def target(self) -> RedisUrl:
        """The parsed URL; without a URL: TLS, no user, database 0."""
        return RedisUrl() if self.url is None else parse_url(self.url)

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each entry in `nodes`."""
        return tuple(parse_node(node) for node in self.nodes)
