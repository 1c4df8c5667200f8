"""The settings of one table: the `tables` section."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from sts.errors import StartError
from sts.lookups.table_files import FileTable
from sts.options import Duration, KeptConfigFile, SecretText, Section, file_faults
from sts.trust.fetch import check_url, read_ca

KEY: Final = "{key}"
"""The placeholder of the key."""

_BEFORE_PATH: Final = re.compile(r"https?://[^/?#]*")
_KINDS: Final = ("file", "redis", "url")
_BESIDE: Final = {
    "file": frozenset({"file", "key"}),
    "redis": frozenset({"redis", "cache_ttl"}),
    "url": frozenset({"url", "method", "client_id", "client_secret", "cache_ttl", "ca_file"}),
}


def _url_template(value: str) -> str:
    """Allow the key in path or query, where it is percent-encoded; never where it could choose the host."""
    check_url(value.replace(KEY, "key"))
    before = _BEFORE_PATH.match(value)
    if before is not None and KEY in before[0]:
        raise ValueError(f"{KEY} may be only in the URL's path or query")
    return value


def _hash_template(value: str) -> str:
    if value.count(KEY) != 1 or not value.endswith(KEY) or value == KEY:
        raise ValueError(f'the name of a Redis hash is a prefix and the key, such as "partners:{KEY}"')
    return value


class TableSettings(Section):
    """One table that rules look up: exactly one of `file`, `redis` and `url`."""

    file: KeptConfigFile | None = None
    """A CSV file with a header row, or a JSON or YAML list of rows; a reload reads it again."""
    key: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    """The file's column with the rows' keys; each key is unique."""
    redis: Annotated[str, AfterValidator(_hash_template)] | None = None
    """The name of a row's Redis hash: `partners:{key}`. Its fields are the columns; the server is `redis.url`."""
    url: Annotated[str, AfterValidator(_url_template)] | None = None
    """The server's URL for one row: `https://…/{key}`. It answers 200 and a JSON object, or 404 for "no such row"."""
    method: Literal["GET", "POST"] = "GET"
    """`POST` sends `{"key": …}` as JSON; its URL does not need `{key}`."""
    client_id: Annotated[str, StringConstraints(pattern=r"^[^:\x00-\x1f\x7f]{1,256}$")] | None = None
    """The user name of this service at the server, for HTTP Basic (RFC 7617)."""
    client_secret: SecretText | None = None
    """The password for `client_id`: `{env: NAME}` or `{file: PATH}`."""
    ca_file: KeptConfigFile | None = None
    """CA certificates (PEM) that verify the server's certificate, instead of the system's."""
    cache_ttl: Annotated[Duration, Field(ge=0, le=86400)] = 60.0
    """How long a row is cached: a change may take this long to have effect; `Cache-Control` may shorten it."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError("write exactly one of file, redis and url")
        beside = sorted(self.model_fields_set - _BESIDE[kinds[0]])
        if beside:
            raise ValueError(f"`{beside[0]}` does not belong to a table with `{kinds[0]}`")
        if self.file is not None and self.key is None:
            raise ValueError("`key` is missing: the name of the column with the rows' keys")
        if self.url is not None:
            if self.method == "GET" and KEY not in self.url:
                raise ValueError(f"the URL has no place for the key: write {KEY} there")
            if (self.client_id is None) != (self.client_secret is None):
                raise ValueError("write both client_id and client_secret, or neither")
        return self

    def at_file(self) -> FileTable | None:
        """Return the table if it is a file, None for another kind. Raises StartError."""
        return FileTable(self.file, self.key) if self.file is not None and self.key is not None else None

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the faults of the files that the settings name: the setting's key, and the reason."""
        try:
            self.at_file()
        except StartError as error:
            yield "file", str(error)
        yield from file_faults("ca_file", self.ca_file, read_ca)
