"""A table of Redis hashes: each row is a hash, its fields are the columns."""

from __future__ import annotations

from sts.errors import SOURCE_UNREACHABLE, Refusal
from sts.model import Row
from sts.redis_link import RedisLink, RedisUnavailableError


class RedisTable:
    """A `Table` of the hashes named `prefix` plus key; a row is valid for `ttl` seconds."""

    in_memory = False

    def __init__(self, link: RedisLink, prefix: str, ttl: float) -> None:
        self._link, self._prefix, self._ttl = link, prefix, ttl

    @property
    def trouble(self) -> str:
        """Why the last command failed, "" if it succeeded; for operators."""
        return self._link.trouble

    def row(self, key: str, now: float) -> Row | None:
        """Fetch the row in one round trip; see `Table.row`. An empty field counts as absent."""
        try:
            found = self._link.run(lambda client: client.hgetall(self._prefix + key), again=True) if key else None
        except RedisUnavailableError as error:
            raise Refusal(SOURCE_UNREACHABLE, why=str(error)) from None
        if not found:
            return None
        try:
            values = {name.decode(): value.decode() for name, value in found.items() if value}
        except UnicodeDecodeError:
            raise Refusal(SOURCE_UNREACHABLE, why="a field of the row is not UTF-8 text") from None
        return Row(values, now + self._ttl)
