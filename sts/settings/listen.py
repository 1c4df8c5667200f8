"""Where the service listens, and how many workers the machine gives it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from sts.options import Duration, KeptConfigFile, Section

_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})")
_MODE: Final = re.compile(r"0?[0-7]{2}0")  # never for everybody on the machine
_UNIX: Final = "unix:"
_FORMS: Final = 'an address is "127.0.0.1:8080", "[::1]:8080" or "unix:/run/sts/sts.sock"'
CPU_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
"""Where the kernel says how much processor time this container gets: microseconds, and in how many of them."""


def _parse_mode(value: object) -> object:
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise ValueError('a mode is three octal digits in quotes, such as "0660", the last of them 0')
    return int(value, 8)


SocketMode = Annotated[
    int,
    BeforeValidator(_parse_mode),
    PlainSerializer(lambda mode: f"{mode:04o}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_MODE.pattern}$", "examples": ["0660"]}),
]


class ListenTls(Section):
    """The `listen.tls` section: TLS 1.2 or newer, which callers may meet with a certificate of their own."""

    cert_file: KeptConfigFile
    """Our certificate, then its intermediates (PEM). A reload takes a renewed one for the connections to come."""
    key_file: KeptConfigFile
    """Its private key, unencrypted (PEM)."""
    ca_file: KeptConfigFile | None = None
    """CAs, or self-signed certificates, that callers may present beside those that clients and sources name: for
    clients with `certificates`, and for tokens that are bound to a certificate. It proves nobody's identity."""


class ShutdownSettings(Section):
    """The `shutdown` section."""

    delay: Annotated[Duration, Field(le=600)] = 0.0
    """How long the service goes on after SIGTERM, while `/readyz` already says 503: longer than gateways and load
    balancers need to notice; default: it stops accepting at once."""


class Listen(Section):
    """The `listen` section; its address alone may stand for it."""

    address: str
    """`host:port` (`[::1]:8080` for IPv6), or `unix:/path` for a Unix socket."""
    tls: ListenTls | None = None
    """TLS of our own: `{cert_file, key_file}`; not at a Unix socket."""
    transport: Literal["terminated", "mesh"] | None = None
    """Must be written beyond loopback without `tls`: `terminated` (TLS ends before us) or `mesh` (a mesh adds it)."""
    socket_mode: SocketMode = 0o660
    """Mode of the Unix socket, in quotes; default "0660"."""
    socket_group: Annotated[str, Field(min_length=1)] | None = None
    """Group of the Unix socket, by name or number, such as the gateway's; default: the service's own."""

    @model_validator(mode="before")
    @classmethod
    def _address_alone(cls, value: Any) -> Any:  # noqa: ANN401 - whatever was written
        if not isinstance(value, str | dict | Listen):
            raise ValueError(_FORMS)  # noqa: TRY004 - pydantic's way
        return {"address": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Listen:
        if self.is_unix:
            if len(self.address) == len(_UNIX):
                raise ValueError('the Unix socket needs a path, such as "unix:/run/sts/sts.sock"')
            if self.tls is not None:
                raise ValueError("a Unix socket has no `tls`: who may connect is said by `socket_mode`")
            return self
        if self.socket_group is not None:
            raise ValueError("`socket_group` is that of a Unix socket")
        host, port = _split(self.address)
        if port > 65535:
            raise ValueError("a port is at most 65535")
        if self.tls is not None and self.transport is not None:
            raise ValueError("`tls` and `transport` exclude each other: either we end TLS, or somebody before us")
        if not _is_loopback(host) and self.tls is None and self.transport is None:
            raise ValueError(
                "listening beyond loopback needs `tls` or `transport: terminated | mesh` "
                "in writing: secrets and tokens would cross the network in the clear"
            )
        return self

    def differs_for_good(self, other: Listen) -> bool:
        """Whether a running service cannot change from one to the other: anything but the content of TLS's files."""
        same = self.model_copy(update={"tls": None}) == other.model_copy(update={"tls": None})
        return not same or (self.tls is None) != (other.tls is None)

    @property
    def is_unix(self) -> bool:
        """Whether this is a Unix socket."""
        return self.address.startswith(_UNIX)

    @property
    def bind(self) -> str:
        """The address as gunicorn takes it."""
        return self.address

    def resolved(self, directory: Path) -> Listen:
        """The same with a relative Unix socket counted from the configuration's directory, as every file is."""
        if not self.is_unix:
            return self
        path = directory / self.address.removeprefix(_UNIX)
        return self.model_copy(update={"address": f"{_UNIX}{path}"})


def _split(address: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError(_FORMS)
    return match[1] or match[2], int(match[3])


def _is_loopback(host: str) -> bool:
    """Only what cannot lead elsewhere: a literal address, or the one name that RFC 6761 §6.3 reserves for it."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


DEFAULT: Final = Listen(address="127.0.0.1:8080")
"""Where the service listens unless it is told."""


def available_cpus() -> int:
    """How many processors this process may use: the cgroup's quota rounded up, at most those it may run on."""
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = CPU_QUOTA.read_text(encoding="ascii").split()
        return max(1, min(allowed, -(-int(quota) // int(period))))
    return allowed
