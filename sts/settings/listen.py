"""The address on which the service listens, and the number of CPUs that the process may use."""

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
_MODE: Final = re.compile(r"0?[0-7]{2}0")  # no access for all users of the machine
_UNIX: Final = "unix:"
_FORMS: Final = 'an address is "127.0.0.1:8080", "[::1]:8080" or "unix:/run/sts/sts.sock"'
CPU_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
"""The cgroup file with this container's CPU quota: microseconds of CPU time, and the period in microseconds."""


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
    """The `listen.tls` section: TLS 1.2 or newer; callers may present a certificate of their own."""

    cert_file: KeptConfigFile
    """Our certificate, then its intermediates (PEM). After a reload, new connections get a renewed certificate."""
    key_file: KeptConfigFile
    """Its private key, unencrypted (PEM)."""
    ca_file: KeptConfigFile | None = None
    """CAs or self-signed certificates that callers may present, beside those that clients and sources name: for clients
    with `certificates`, and for tokens bound to a certificate. These CAs prove no identity."""


class ShutdownSettings(Section):
    """The `shutdown` section."""

    delay: Annotated[Duration, Field(le=600)] = 0.0
    """How long the service accepts requests after SIGTERM, while `/readyz` already answers 503. Choose more than
    gateways and load balancers need to notice; default: the service stops accepting at once."""


class Listen(Section):
    """The `listen` section; a text is short for its `address`."""

    address: str
    """`host:port` (`[::1]:8080` for IPv6), or `unix:/path` for a Unix socket."""
    tls: ListenTls | None = None
    """TLS at our own socket: `{cert_file, key_file}`; not for a Unix socket."""
    transport: Literal["terminated", "mesh"] | None = None
    """Required beyond loopback without `tls`: `terminated` (a proxy ends TLS before us) or `mesh` (a mesh adds TLS)."""
    socket_mode: SocketMode = 0o660
    """Mode of the Unix socket, in quotes; default "0660"."""
    socket_group: Annotated[str, Field(min_length=1)] | None = None
    """Group of the Unix socket, by name or number, such as the gateway's; default: the service's own."""

    @model_validator(mode="before")
    @classmethod
    def _address_alone(cls, value: Any) -> Any:  # noqa: ANN401 - a value of any type
        if not isinstance(value, str | dict | Listen):
            raise ValueError(_FORMS)  # noqa: TRY004 - pydantic's way
        return {"address": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Listen:
        if self.is_unix:
            if len(self.address) == len(_UNIX):
                raise ValueError('the Unix socket needs a path, such as "unix:/run/sts/sts.sock"')
            if self.tls is not None:
                raise ValueError("a Unix socket has no `tls`: `socket_mode` determines who may connect")
            return self
        if self.socket_group is not None:
            raise ValueError("`socket_group` is only for a Unix socket")
        host, port = _split(self.address)
        if port > 65535:
            raise ValueError("a port is at most 65535")
        if self.tls is not None and self.transport is not None:
            raise ValueError(
                "`tls` and `transport` exclude each other: TLS ends either here or in front of the service"
            )
        if not _is_loopback(host) and self.tls is None and self.transport is None:
            raise ValueError(
                "listening beyond loopback needs `tls` or `transport: terminated | mesh`: "
                "otherwise secrets and tokens would cross the network in the clear"
            )
        return self

    def differs_for_good(self, other: Listen) -> bool:
        """Return whether the change needs a restart: any change except the content of the TLS files."""
        same = self.model_copy(update={"tls": None}) == other.model_copy(update={"tls": None})
        return not same or (self.tls is None) != (other.tls is None)

    @property
    def is_unix(self) -> bool:
        """Whether the address is a Unix socket."""
        return self.address.startswith(_UNIX)

    @property
    def bind(self) -> str:
        """The address in gunicorn's form."""
        return self.address

    def resolved(self, directory: Path) -> Listen:
        """Return a copy in which a relative Unix socket counts from the configuration's directory, as files do."""
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
    """Return whether a host is certainly loopback: a literal address, or `localhost` (reserved, RFC 6761 §6.3)."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


DEFAULT: Final = Listen(address="127.0.0.1:8080")
"""The default address."""


def available_cpus() -> int:
    """Return the number of CPUs this process may use: the cgroup's quota rounded up, at most the CPU affinity."""
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = CPU_QUOTA.read_text(encoding="ascii").split()
        return max(1, min(allowed, -(-int(quota) // int(period))))
    return allowed
