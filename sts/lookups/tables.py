"""Creates the configured tables for `sts/app.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sts.errors import Refusal
from sts.lookups.http_table import BOUNDS, Endpoint, HttpTable
from sts.lookups.redis_table import RedisTable
from sts.lookups.settings import KEY, TableSettings
from sts.lookups.table_files import FileTable
from sts.model import Row
from sts.redis_link import RedisLink, RedisSettings
from sts.resilience.bulkhead import QUEUE, Bulkhead
from sts.telemetry import log, metrics
from sts.trust.fetch import Fetcher, read_ca
from sts.trust.upstream import Upstream

AnyTable = FileTable | HttpTable | RedisTable


class Counted:
    """A `Table` that counts its answers in the metrics."""

    def __init__(self, name: str, table: AnyTable) -> None:
        self._name, self.table = name, table
        self.in_memory = table.in_memory

    @property
    def trouble(self) -> str:
        """Why the last request failed, "" if it succeeded; for operators."""
        return self.table.trouble

    def row(self, key: str, now: float) -> Row | None:
        """Return the row with this key, and count the result; see `Table.row`."""
        try:
            found = self.table.row(key, now)
        except Refusal:
            metrics.row_looked_up(self._name, "failed")
            raise
        metrics.row_looked_up(self._name, "missing" if found is None else "found")
        return found


class Tables:
    """The tables in use, kept as long as their settings do not change, so that a reload does not fetch all rows again.

    `waiters` is how many requests may wait for one table; twice as many may wait for all tables. `redis` is the server
    of the `redis` tables; it cannot change while the process runs.
    """

    def __init__(self, clock: Callable[[], float], waiters: int, redis: RedisSettings | None) -> None:
        self._clock, self._waiters = clock, waiters
        # An evicted row leads only to a refusal (`no_mapping`), so a server that evicts is acceptable.
        self._link = None if redis is None else RedisLink(redis, keeps=False)
        self._all_waiters = Bulkhead(2 * waiters, queue=QUEUE * waiters)
        self._known: dict[tuple[str, TableSettings], AnyTable] = {}

    def put(self, settings: Mapping[str, TableSettings]) -> dict[str, Counted]:
        """Return the tables by name. Raises StartError if a file cannot be used."""
        for key in settings.items():
            if key not in self._known:
                self._known[key] = self._table(*key)
        return {name: Counted(name, self._known[name, table]) for name, table in settings.items()}

    def keep(self, settings: Mapping[str, TableSettings]) -> None:
        """Forget all tables except these, and close the others' connections."""
        for key in self._known.keys() - settings.items():
            table = self._known.pop(key)
            if isinstance(table, HttpTable):
                table.close()

    def _table(self, name: str, settings: TableSettings) -> AnyTable:
        file = settings.at_file()
        if file is not None:
            return file
        if settings.redis is not None and self._link is not None:
            return RedisTable(self._link, settings.redis.removesuffix(KEY), settings.cache_ttl)
        secret = settings.client_secret
        endpoint = Endpoint(
            url=settings.url or "",
            method=settings.method,
            client_id=settings.client_id,
            client_secret=None if secret is None else secret.get_secret_value(),
            ttl=settings.cache_ttl,
        )
        upstream = Upstream(
            time.monotonic,
            max_waiters=self._waiters,
            all_waiters=self._all_waiters,
            notice=lambda why: _notice(name, why),
        )
        fetcher = Fetcher(None if settings.ca_file is None else read_ca(settings.ca_file), BOUNDS)
        return HttpTable(endpoint, fetcher, upstream, self._clock, max_waiters=self._waiters)


def _notice(name: str, why: str) -> None:
    """Log a request that failed."""
    if why:
        log.warning("table", table=name, why=why)
