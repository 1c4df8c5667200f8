"""HTTP requests of commands to a running service. The operator chooses the address, so http is allowed here."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

import click
import urllib3

from sts.cli.common import EXIT_UNREACHABLE, EXIT_USAGE, fail

_CONNECT_S: Final = 3
_READ_S: Final = 10
_TIMEOUT: Final = urllib3.Timeout(connect=_CONNECT_S, read=_READ_S)


@dataclass(frozen=True, slots=True)
class Tls:
    """The CAs for an https address (default: the system's CAs), and the client certificate."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return the TLS context. Ends the command with exit status 2 if a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ValueError):
            fail("the files of --ca-file, --cert-file or --key-file cannot be used", EXIT_USAGE)
        return context


def call(
    method: str,
    url: str,
    fields: Sequence[tuple[str, str]] | None = None,
    basic: str | None = None,
    tls: Tls = Tls(),
) -> tuple[int, bytes, str]:
    """Send one request; returns status, body and `X-Request-ID` ("" without one).

    Ends the command with exit status 3 if there is no response. `fields` are sent as a form; `basic` is
    "client id:secret" for HTTP Basic.
    """
    headers = {"User-Agent": "sts"}
    if basic is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(_bytes(basic)).decode()}"
    if fields is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    body = None if fields is None else urlencode([(name, _bytes(value)) for name, value in fields])
    pool = urllib3.PoolManager(retries=False, timeout=_TIMEOUT)
    if url.startswith("https:"):
        pool = urllib3.PoolManager(retries=False, timeout=_TIMEOUT, ssl_context=tls.context())
    try:
        answer = pool.request(method, url, body=body, headers=headers, redirect=False)
    except urllib3.exceptions.HTTPError as error:
        fail(f"{url} cannot be reached: {_why(error)}", EXIT_UNREACHABLE)
    return answer.status, answer.data, answer.headers.get("X-Request-ID", "")


def _why(error: urllib3.exceptions.HTTPError) -> str:
    """Return the reason of a failure with a hint; the messages of the library contain class names."""
    cause = error.__cause__
    if isinstance(error, urllib3.exceptions.NewConnectionError) and isinstance(cause, OSError) and cause.strerror:
        return cause.strerror  # also for an unknown host name
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return f"no connection within {_CONNECT_S} s"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return f"no answer within {_READ_S} s; are https and http right?"
    if isinstance(error, urllib3.exceptions.SSLError):
        found = error.args[0] if error.args else None
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {found.verify_message}; set its CA with --ca-file"
        return "the server does not speak TLS"
    return "the connection was closed without a response"


def check_address(url: str) -> str:
    """Check that `url` is the address of a service; returns it without a final slash. Raises click.UsageError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise click.UsageError("--url takes the address of the service, such as http://127.0.0.1:8080.")
    return url.rstrip("/")


def _bytes(text: str) -> bytes:
    """Return the bytes from the command line or a file unchanged: the service validates them."""
    return text.encode("utf-8", "surrogateescape")
