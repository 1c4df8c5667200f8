"""How commands speak to a running service. The operator names the address, so that http is allowed here."""

from __future__ import annotations

from collections.abc import Sequence

import urllib3

from sts.cli.common import EXIT_UNREACHABLE, fail

_TIMEOUT = urllib3.Timeout(connect=3.0, read=10.0)


def call(
    method: str, url: str, fields: Sequence[tuple[str, str]] | None = None, basic: str | None = None
) -> tuple[int, bytes]:
    """Send one request and return status and body; ends the command with exit status 3 if nobody answers.

    `fields` are sent as a form; `basic` is "client id:secret" for HTTP Basic.
    """
    headers = urllib3.make_headers(basic_auth=basic, user_agent="sts")
    pool = urllib3.PoolManager(retries=False, timeout=_TIMEOUT)
    try:
        answer = pool.request(method, url, fields=fields, headers=headers, encode_multipart=False, redirect=False)
    except urllib3.exceptions.HTTPError as error:
        fail(f"{url} cannot be reached: {type(error).__name__}", EXIT_UNREACHABLE)
    return answer.status, answer.data
