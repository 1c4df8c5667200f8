"""How commands speak to a running service. The operator names the address, so that http is allowed here."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from urllib.parse import urlencode, urlsplit

import click
import urllib3

from sts.cli.common import EXIT_UNREACHABLE, fail

_TIMEOUT = urllib3.Timeout(connect=3.0, read=10.0)


def call(
    method: str, url: str, fields: Sequence[tuple[str, str]] | None = None, basic: str | None = None
) -> tuple[int, bytes]:
    """Send one request and return status and body; ends the command with exit status 3 if nobody answers.

    `fields` are sent as a form; `basic` is "client id:secret" for HTTP Basic.
    """
    headers = {"User-Agent": "sts"}
    if basic is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(_bytes(basic)).decode()}"
    if fields is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    body = None if fields is None else urlencode([(name, _bytes(value)) for name, value in fields])
    pool = urllib3.PoolManager(retries=False, timeout=_TIMEOUT)
    try:
        answer = pool.request(method, url, body=body, headers=headers, redirect=False)
    except urllib3.exceptions.HTTPError as error:
        fail(f"{url} cannot be reached: {type(error).__name__}", EXIT_UNREACHABLE)
    return answer.status, answer.data


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
    """What the command line or a file gave, byte for byte: it is the service that judges it."""
    return text.encode("utf-8", "surrogateescape")
