"""A table of a trusted third party over HTTP: one request for each row, cached for a short time.

This module prevents three faults: a key that chooses the path (`../admin`) or the host; an outage that looks like "no
such user"; a slow server that blocks all threads.
"""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from sts.errors import SOURCE_UNREACHABLE, Refusal
from sts.jose import UnfitError, strict_json
from sts.model import Row
from sts.resilience.bulkhead import Bulkhead, FullError
from sts.trust.fetch import Bounds, Fetcher, UnreachableError
from sts.trust.upstream import PATIENCE, Upstream

BOUNDS: Final = Bounds(connect=1.0, read=2.0, total=3.0, body=16_384)
MAX_KEPT: Final = 4096
"""Maximum rows in the cache, and maximum keys known to have no row; the least recently used is dropped first."""
MISSING_FOR: Final = 5.0
"""Maximum seconds for which "no such row" is cached: the user may have been added meanwhile."""
_KEY: Final = "{key}"
MAX_URL: Final = 2048
"""Maximum characters of a requested URL: a longer one is a fault of its key, not of the server."""
_OK, _NOT_FOUND = 200, 404
_CALLER_REFUSED: Final = frozenset({401, 403, 407, 408, 429})
"""The statuses 4xx with which a server refuses the caller, not the key."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The server: `url` with `{key}` in its path or query, and HTTP Basic with `client_id` and `client_secret` if set.

    `ttl` is the maximum lifetime of a cached row in seconds.
    """

    url: str
    method: str
    client_id: str | None
    client_secret: str | None = field(repr=False)
    ttl: float


class HttpTable:
    """A `Table` at an endpoint. Concurrent requests for one row share one fetch; `upstream` limits who waits for it."""

    in_memory = False

    def __init__(
        self,
        endpoint: Endpoint,
        fetcher: Fetcher,
        upstream: Upstream,
        clock: Callable[[], float],
        *,
        max_waiters: int,
    ) -> None:
        self._endpoint, self._fetcher, self._upstream, self._clock = endpoint, fetcher, upstream, clock
        self._kept: OrderedDict[str, tuple[Row | None, float]] = OrderedDict()
        self._missing: OrderedDict[str, tuple[Row | None, float]] = OrderedDict()  # separate: these evict no rows
        self._flights: dict[str, Future[Row | None]] = {}
        self._lock = threading.Lock()
        self._waiters = Bulkhead(max_waiters)

    @property
    def trouble(self) -> str:
        """Why the last request failed, "" if it succeeded; for operators."""
        return self._upstream.trouble

    def row(self, key: str, now: float) -> Row | None:
        """Return the cached row, or fetch it; see `Table.row`."""
        if key in {"", ".", ".."}:  # percent-encoding keeps dots, and a path with them is another path
            return None
        if len(self._url(key)) > MAX_URL:
            return None
        with self._lock:
            for store in (self._kept, self._missing):
                kept = store.get(key)
                # An expiry further away than any row's lifetime is not valid: the clock was set back.
                if kept is not None and now < kept[1] <= now + max(self._endpoint.ttl, MISSING_FOR):
                    store.move_to_end(key)
                    return kept[0]
            flight = self._flights.get(key)
            own: Future[Row | None] | None = None
            if flight is None:
                own = self._flights[key] = Future()
        if own is not None:
            return self._fly(key, own)
        return self._join(flight) if flight is not None else None

    def close(self) -> None:
        """Close the idle connections; requests under way are not interrupted."""
        self._fetcher.close()

    def _fly(self, key: str, own: Future[Row | None]) -> Row | None:
        try:
            found = self._upstream.call(lambda: self._ask(key))
            if isinstance(found, int):
                raise UnreachableError(f"it answered {found}")  # noqa: TRY301 - handled like any other failure
            row, until = found
        except BaseException as error:  # for any fault: no thread may keep waiting for this flight
            with self._lock:
                del self._flights[key]
            why = str(error) if isinstance(error, UnreachableError) else "fault"
            refusal = Refusal(SOURCE_UNREACHABLE, why=why)
            own.set_exception(refusal)
            if isinstance(error, UnreachableError):
                raise refusal from None
            raise
        with self._lock:
            del self._flights[key]
            self._kept.pop(key, None)
            store = self._missing if row is None else self._kept
            store[key] = (row, until)
            store.move_to_end(key)
            while len(store) > MAX_KEPT:
                store.popitem(last=False)
        own.set_result(row)
        return row

    def _join(self, flight: Future[Row | None]) -> Row | None:
        try:
            place = self._waiters.enter()
        except FullError:
            raise Refusal(SOURCE_UNREACHABLE, why="too many requests wait for this row") from None
        try:
            return flight.result(PATIENCE + 1)
        except Late:
            raise Refusal(SOURCE_UNREACHABLE, why="no answer in time") from None
        except Refusal as refusal:
            raise Refusal(refusal.reason, **refusal.facts) from None  # one exception in two threads mixes traces
        finally:
            place.leave()

    def _url(self, key: str) -> str:
        return self._endpoint.url.replace(_KEY, quote(key, safe=""))

    def _ask(self, key: str) -> tuple[Row | None, float] | int:
        """Fetch one row. Returns the row and its expiry, or the status of an answer that concerns only this key.

        Such a status does not count against the server: a key that the server cannot process must not block the others.
        """
        endpoint = self._endpoint
        headers = {"Accept": "application/json"}
        if endpoint.client_id is not None:
            login = f"{endpoint.client_id}:{endpoint.client_secret}".encode()
            headers["Authorization"] = f"Basic {b64encode(login).decode()}"
        body = None
        if endpoint.method == "POST":
            headers["Content-Type"] = "application/json"
            body = json.dumps({"key": key}).encode()
        now = self._clock()  # before the request: a change there during the request is not missed for longer
        answer = self._fetcher.ask(endpoint.method, self._url(key), headers, body)
        life = endpoint.ttl if answer.max_age is None else min(endpoint.ttl, answer.max_age)
        if answer.status == _NOT_FOUND:
            return None, now + min(life, MISSING_FOR)
        if answer.status // 100 == 4 and answer.status not in _CALLER_REFUSED:
            return answer.status
        if answer.status != _OK:
            raise UnreachableError(f"it answered {answer.status}")
        try:
            found = strict_json(answer.body)
        except UnfitError as error:
            raise UnreachableError(f"its answer cannot be used: {error}") from None
        if not isinstance(found, dict):
            raise UnreachableError("its answer is not a JSON object")
        return Row(found, now + life), now + life
