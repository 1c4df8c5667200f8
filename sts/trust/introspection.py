"""The introspection endpoint of one server (RFC 7662): authenticated requests in limited time."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlencode

from sts.errors import SOURCE_UNREACHABLE, Refusal
from sts.jose import UnfitError, strict_json
from sts.resilience.bulkhead import Bulkhead
from sts.trust.fetch import Answer, Bounds, Fetcher, UnreachableError
from sts.trust.upstream import Upstream

MAX_ANSWER: Final = 65_536
"""The maximum size of a response in bytes."""
UNREACHABLE: Final = "unreachable"
UNAUTHORIZED: Final = "unauthorized"

Notice = Callable[[str, str, str], None]
"""Called with the result of each request: the name of the source, the outcome, and the reason of a failure or ""."""

_OK: Final = 200
_OUR_CREDENTIALS: Final = frozenset({401, 403})
_BAD_REQUEST: Final = 400
_BUSY: Final = 429


@dataclass(frozen=True, slots=True)
class Server:
    """The introspection endpoint of one source; `ca` is PEM, None for the system's CAs."""

    source: str
    endpoint: str
    client_id: str
    client_secret: str = field(repr=False)
    ca: str | None = field(repr=False)


class Introspection:
    """Introspects tokens at one server, with the limits of `Upstream`. It caches nothing."""

    def __init__(
        self,
        server: Server,
        monotonic: Callable[[], float],
        *,
        max_waiters: int,
        all_waiters: Bulkhead | None = None,
        notice: Notice = lambda _source, _outcome, _why: None,
    ) -> None:
        self._server = server
        self._notice = notice
        self._upstream = Upstream(monotonic, max_waiters=max_waiters, all_waiters=all_waiters)
        self._fetcher = Fetcher(server.ca, Bounds(body=MAX_ANSWER))
        self._headers = {
            "Authorization": _basic(server.client_id, server.client_secret),
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }

    @property
    def trouble(self) -> str:
        """Why the last request failed, "" if it succeeded; for operators."""
        return self._upstream.trouble

    def ask(self, token: str) -> bytes:
        """Introspect `token`; returns the body of the response, which begins like a JSON object.

        Raises SOURCE_UNREACHABLE for every other response, and for none: that is no verdict on the token (RFC 7662
        §2.3).
        """
        body = urlencode({"token": token, "token_type_hint": "access_token"}).encode()
        try:
            answer = self._upstream.call(lambda: self._question(body))
        except UnreachableError as error:
            raise Refusal(SOURCE_UNREACHABLE, why=str(error), source=self._server.source) from None
        if answer.status != _OK:
            raise Refusal(SOURCE_UNREACHABLE, why=f"it answered {answer.status}", source=self._server.source)
        return answer.body

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for a request that waits for the response to another one. Raises SOURCE_UNREACHABLE if full."""
        with ExitStack() as held:
            try:
                held.enter_context(self._upstream.place())
            except UnreachableError as error:
                raise Refusal(SOURCE_UNREACHABLE, why=str(error), source=self._server.source) from None
            yield

    def close(self) -> None:
        """Close the idle connections; the next request opens a new one."""
        self._fetcher.close()

    def _question(self, body: bytes) -> Answer:
        """Send one request. Raises UnreachableError for a failure that concerns all requests to this server.

        Another status concerns only this request, so it does not count as a failure of the server: one token that the
        server cannot process must not block the others.
        """
        outcome = UNREACHABLE
        try:
            answer = self._fetcher.ask("POST", self._server.endpoint, self._headers, body)
            if _refuses_us(answer):
                outcome = UNAUTHORIZED
            _check(answer)
        except UnreachableError as error:
            self._notice(self._server.source, outcome, str(error))
            raise
        if answer.status != _OK:
            self._notice(self._server.source, outcome, f"it answered {answer.status}")
        return answer


def _check(answer: Answer) -> None:
    """Raise UnreachableError for a response that shows a fault of the server, not a verdict on the token."""
    if _refuses_us(answer):
        raise UnreachableError(f"it refuses our own credentials ({answer.status})")
    if answer.status == _OK and not answer.body.lstrip().startswith(b"{"):
        raise UnreachableError("its answer is not a JSON object")
    if answer.status != _OK and (answer.status // 100 != 4 or answer.status == _BUSY):
        raise UnreachableError(f"it answered {answer.status}")


def _refuses_us(answer: Answer) -> bool:
    """Return whether the server refuses our own credentials (RFC 7662 §2.3, RFC 6749 §5.2)."""
    if answer.status != _BAD_REQUEST:
        return answer.status in _OUR_CREDENTIALS
    try:
        said = strict_json(answer.body)
    except UnfitError:
        return False
    return isinstance(said, dict) and said.get("error") in ("invalid_client", "unauthorized_client")


def _basic(client_id: str, secret: str) -> str:
    """Return the Basic header. Both halves are form-encoded before they are joined (RFC 6749 §2.3.1).

    Either half may contain a colon. A space becomes `%20`, not `+`: some servers decode `+` as a literal plus.
    """
    halves = (quote(half, safe="") for half in (client_id, secret))
    return "Basic " + b64encode(":".join(halves).encode()).decode()
