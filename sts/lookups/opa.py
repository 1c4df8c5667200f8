"""Queries a policy server, Open Policy Agent, over its REST API (POST /v1/data/...), with limits on time and number."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from sts.errors import SOURCE_UNREACHABLE, Refusal
from sts.jose import UnfitError, strict_json
from sts.options import Duration, KeptConfigFile, Section
from sts.resilience.bulkhead import Bulkhead
from sts.trust.fetch import Bounds, Fetcher, UnreachableError, check_url, read_ca
from sts.trust.upstream import Upstream

MAX_ANSWER: Final = 65_536
"""Maximum bytes of an answer: a decision is a word, and the rest (a decision id, metrics) is short."""

_HEADERS: Final = {"Accept": "application/json", "Content-Type": "application/json"}
_OK: Final = 200


def _check_opa_url(value: str) -> str:
    check_url(value)
    if "/v1/data/" not in value.partition("?")[0]:
        raise ValueError("the URL must name a rule of OPA's data API, such as http://127.0.0.1:8181/v1/data/sts/allow")
    return value


class OpaSettings(Section):
    """The `opa` section."""

    url: Annotated[str, AfterValidator(_check_opa_url)]
    """The rule that decides, such as `http://127.0.0.1:8181/v1/data/sts/allow`; https, or a loopback address."""
    timeout: Annotated[Duration, Field(ge=0.001, le=5)] = 0.2
    """How long a request waits for the decision, at most 5s; after that it is refused."""
    ca_file: KeptConfigFile | None = None
    """CA certificates (PEM) that verify the server's certificate; default: the system's."""


@dataclass(frozen=True, slots=True)
class Said:
    """OPA's answer: its JSON object, and for how many seconds it may be cached, if the answer limits that."""

    document: Mapping[str, Any] = field(repr=False)
    max_age: float | None


class OpaServer:
    """The OPA of a configuration. At most `max_waiters` requests call it concurrently; more are refused at once.

    `monotonic`, `all_waiters` and `notice` are as for `Upstream`. The object keeps connections open, so it must not be
    used on both sides of a fork.
    """

    def __init__(
        self,
        settings: OpaSettings,
        monotonic: Callable[[], float],
        max_waiters: int,
        all_waiters: Bulkhead | None = None,
        notice: Callable[[str], None] = lambda _why: None,
    ) -> None:
        """Raises StartError if `ca_file` cannot be used."""
        self._url, timeout = settings.url, settings.timeout
        ca = None if settings.ca_file is None else read_ca(settings.ca_file)
        self._fetcher = Fetcher(ca, Bounds(connect=timeout, read=timeout, total=timeout, body=MAX_ANSWER))
        self._upstream = Upstream(
            monotonic, max_waiters=max_waiters, all_waiters=all_waiters, patience=timeout, notice=notice
        )

    @property
    def trouble(self) -> str:
        """Why the last request failed, "" if it succeeded; for operators."""
        return self._upstream.trouble

    def ask(self, question: Mapping[str, Any]) -> Said:
        """Send `question` as the `input` document. Raises SOURCE_UNREACHABLE for every result except a JSON object.

        Such a result is a failure and not a decision: no answer in time, a status other than 200, a redirect (which is
        not followed), an answer that is too large or not JSON, too many concurrent requests, a server that is down.
        """
        body = json.dumps({"input": question}, separators=(",", ":")).encode("ascii")
        try:
            return self._upstream.call(lambda: self._post(body))
        except UnreachableError as error:
            raise Refusal(SOURCE_UNREACHABLE, why=f"OPA: {error}") from None

    def close(self) -> None:
        """Close the idle connections; requests under way still get an answer."""
        self._fetcher.close()

    def _post(self, body: bytes) -> Said:
        answer = self._fetcher.ask("POST", self._url, _HEADERS, body)
        if answer.status != _OK:
            raise UnreachableError(f"it answered {answer.status}")
        try:
            document = strict_json(answer.body)
        except UnfitError as error:
            raise UnreachableError(f"its answer cannot be read: {error}") from None
        if not isinstance(document, dict):
            raise UnreachableError("its answer is not a JSON object")
        return Said(document, answer.max_age)


@dataclass(frozen=True, slots=True)
class OpaServers:
    """Creates the policy server's client, and keeps it and its health over a reload that does not change it.

    The parameters are as for `OpaServer`.
    """

    monotonic: Callable[[], float]
    max_waiters: int
    all_waiters: Bulkhead | None = None
    notice: Callable[[str], None] = lambda _why: None
    _known: dict[OpaSettings, OpaServer] = field(default_factory=dict, repr=False)

    def of(self, settings: OpaSettings | None) -> OpaServer | None:
        """Return the server of these settings, None for None; sends no request. Raises StartError as `OpaServer`."""
        if settings is not None and settings not in self._known:
            made = OpaServer(settings, self.monotonic, self.max_waiters, self.all_waiters, self.notice)
            self._known[settings] = made
        return None if settings is None else self._known[settings]

    def keep(self, settings: OpaSettings | None) -> None:
        """Forget every server except that of these settings, and close the others' connections."""
        for one in self._known.keys() - {settings}:
            self._known.pop(one).close()
