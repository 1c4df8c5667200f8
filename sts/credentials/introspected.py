"""Introspection responses: requested once per token, cached for a limited time, parsed strictly (RFC 7662 §2.2)."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sts.errors import BAD_TYPE, MALFORMED, SOURCE_UNREACHABLE, Refusal
from sts.jose import UnfitError, check_claims, strict_json, text_or_texts
from sts.resilience.bulkhead import Bulkhead, FullError
from sts.trust.introspection import Introspection, Notice, Server
from sts.trust.upstream import PATIENCE

NEGATIVE_TTL: Final = 5.0
"""Seconds for which the answer "not active" is cached."""

ACTIVE: Final = "active"
INACTIVE: Final = "inactive"
CACHED: Final = "cached"
UNREADABLE: Final = "unreadable"

_TEXTS: Final = ("client_id", "username", "token_type", "acr", "token_use")
_ACCESS: Final = frozenset({"bearer", "dpop", "access_token", "urn:ietf:params:oauth:token-type:access_token"})
"""The values of `token_type` for an access token, in lower case: how it is used (RFC 6749 §7.1), or that it is one."""
_OTHER_USES: Final = frozenset({"refresh_token", "refresh", "id_token", "id", "offline"})


@dataclass(frozen=True, slots=True)
class Known:
    """A server's response: its bytes, b"" for a token that is not active; valid `until` then (Unix seconds)."""

    body: bytes = field(repr=False)
    until: float


class Store(Protocol):
    """A cache for responses. Its size is bounded, and it returns no expired response."""

    def get(self, key: bytes, now: float) -> Known | None:
        """Return the response under `key`, None if there is none or it has expired."""

    def put(self, key: bytes, value: Known, *, size: int, ends: float, now: float) -> None:
        """Keep a response of `size` bytes until `ends` (Unix seconds)."""


@dataclass(frozen=True, slots=True)
class Stores:
    """The resources that all sources of one worker share.

    There are two stores, so that a flood of invented tokens cannot evict the responses for good ones (CA-08). `waiters`
    limits how many requests wait for the introspection request of another one.
    """

    active: Store
    inactive: Store
    waiters: Bulkhead


class Answers:
    """The responses of one server: one request per token at a time, and no other for `ttl` seconds.

    The cache key is an HMAC of the token with a secret of this object. So it covers the server, its credentials and the
    source, and a dump of the cache keys reveals no token.

    Args:
        ask: Sends the introspection request for a token, and returns the body of the response.
        ttl: How long a response is cached, in seconds.
        stores: The shared caches and the limit of waiting requests.
        notice: Called with each outcome.
        place: Entered by a request that waits for another one when `stores.waiters` is full; refuses when the
            server has too many requests.
    """

    def __init__(
        self,
        ask: Callable[[str], bytes],
        ttl: float,
        stores: Stores,
        notice: Callable[[str], None] = lambda _: None,
        place: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._ask, self._ttl, self._stores, self._notice, self._place = ask, ttl, stores, notice, place
        self._secret = os.urandom(32)
        self._flights: dict[bytes, Future[Known]] = {}

    def about(self, token: str, now: float) -> Known:
        """Return the response for `token`, cached or after one request. Raises SOURCE_UNREACHABLE.

        The lifetime of a response starts before its request was sent. An expired response is never returned, also not
        when the server is unreachable.
        """
        key = hmac.digest(self._secret, token.encode("ascii"), "sha256")
        known = self._find(key, now)
        if known is not None:
            return known
        own: Future[Known] = Future()
        flight = self._flights.setdefault(key, own)
        if flight is own:
            return self._lead(key, token, now, own)
        # With a `cache_ttl` of zero each request needs its own introspection request.
        shared = self._wait(flight) if self._ttl else None
        return shared if shared is not None and now < shared.until else self._learn(key, token, now)

    def _find(self, key: bytes, now: float) -> Known | None:
        known = self._stores.active.get(key, now) or self._stores.inactive.get(key, now)
        if known is not None:
            self._notice(CACHED)
        return known

    def _lead(self, key: bytes, token: str, now: float, own: Future[Known]) -> Known:
        try:
            # Another request may have completed between our look-up and here.
            known = self._find(key, now) or self._learn(key, token, now)
        except BaseException as error:
            own.set_exception(error)
            raise
        else:
            own.set_result(known)
            return known
        finally:
            del self._flights[key]

    def _wait(self, flight: Future[Known]) -> Known:
        """Wait for the response to another request; its failure is ours too. A second request could cause a storm."""
        with ExitStack() as held:
            try:
                held.callback(self._stores.waiters.enter().leave)
            except FullError:
                held.enter_context(self._place())
            try:
                return flight.result(PATIENCE)
            except Late:
                raise Refusal(SOURCE_UNREACHABLE, why="the introspection by a concurrent request timed out") from None
            except Refusal as refusal:
                raise Refusal(refusal.reason, **refusal.facts) from None

    def _learn(self, key: bytes, token: str, now: float) -> Known:
        body = self._ask(token)
        try:
            claims = parse(body)
        except Refusal:
            self._notice(UNREADABLE)
            raise
        if claims.get("active") is not True:  # the text "true" or the number 1 is not valid (RFC 7662 §2.2)
            self._notice(INACTIVE)
            known = Known(b"", now + min(NEGATIVE_TTL, self._ttl))
            self._stores.inactive.put(key, known, size=0, ends=known.until, now=now)
            return known
        self._notice(ACTIVE)
        known = Known(body, now + self._ttl)
        end = claims.get("exp")
        ends = min(known.until, end) if isinstance(end, int | float) else known.until
        self._stores.active.put(key, known, size=len(body), ends=ends, now=now)
        return known


@dataclass(slots=True)
class Introspections:
    """Keeps servers and their cached responses while the settings that determine a response are unchanged.

    A reload must neither introspect every token again nor forget that a server is down. `max_waiters` limits the
    requests in progress at one server, `all_waiters` those of all servers together. `notice` is called for every
    request.
    """

    monotonic: Callable[[], float]
    stores: Stores
    max_waiters: int
    all_waiters: Bulkhead | None = None
    notice: Notice = lambda _source, _outcome, _why: None
    _known: dict[tuple[Server, float], tuple[Introspection, Answers]] = field(default_factory=dict, repr=False)

    def of(self, server: Server, ttl: float) -> tuple[Introspection, Answers]:
        """Return the client of `server` and its responses, each valid for `ttl` seconds; sends no request."""
        key = (server, ttl)
        if key not in self._known:
            self._known[key] = self._make(server, ttl)
        return self._known[key]

    def keep(self, wanted: Collection[tuple[Server, float]]) -> None:
        """Drop the responses and close the connections of all servers except `wanted`."""
        for key in self._known.keys() - set(wanted):
            self._known.pop(key)[0].close()

    def _make(self, server: Server, ttl: float) -> tuple[Introspection, Answers]:
        asked = Introspection(
            server,
            self.monotonic,
            max_waiters=self.max_waiters,
            all_waiters=self.all_waiters,
            notice=self.notice,
        )
        return asked, Answers(
            asked.ask, ttl, self.stores, lambda outcome: self.notice(server.source, outcome, ""), asked.place
        )


def parse(body: bytes) -> dict[str, Any]:
    """Parse a response. Raises SOURCE_UNREACHABLE if it is invalid or ambiguous: that is no verdict on the token."""
    try:
        answer = strict_json(body)
    except UnfitError as error:
        raise Refusal(SOURCE_UNREACHABLE, why=f"the answer cannot be read: {error}") from None
    if not isinstance(answer, dict):
        raise Refusal(SOURCE_UNREACHABLE, why="the answer is no object")
    return answer


def check_answer(claims: Mapping[str, Any]) -> None:
    """Check the types of the members of an active token's response, as strictly as the claims of a JWT (IN-04).

    The source and `admit` decide which members are required and acceptable. Raises MALFORMED for a member of another
    type, BAD_TYPE for a token that is not an access token: servers also introspect refresh tokens, and report them as
    active.
    """
    check_claims(claims)
    for name in _TEXTS:
        if not isinstance(claims.get(name, ""), str):
            raise Refusal(MALFORMED, why="a member of the answer is not a text", member=name)
    for name in ("scope", "amr"):
        if name in claims:
            text_or_texts(claims[name], name)
    token_type = claims.get("token_type", "bearer").lower()
    use = claims.get("token_use", "access_token").lower()
    kind = claims.get("typ", "")
    if token_type not in _ACCESS or use in _OTHER_USES or (isinstance(kind, str) and kind.lower() in _OTHER_USES):
        raise Refusal(BAD_TYPE, why="the server says that it is no access token")
    if token_type == "dpop" and "cnf" not in claims:  # noqa: S105 - the name of a scheme
        raise Refusal(BAD_TYPE, why="a DPoP token without its key")
