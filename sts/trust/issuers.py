"""Find the keys of a source's issuer: in a file, at a configured URL, or by discovery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sts.errors import NO_KEY, Refusal
from sts.jose import SUPPORTED, UnfitError, VerifyKey, import_jwks, strict_json
from sts.options import KeptFile
from sts.resilience.bulkhead import QUEUE, Bulkhead
from sts.trust.fetch import Fetcher, UnreachableError, origin, read_ca
from sts.trust.remote_jwks import CallerJwks, FileJwks, KeySource, Loaded, LookUp, RemoteJwks, clamp_life

WELL_KNOWN: Final = "/.well-known/openid-configuration"
MANY: Final = 3
"""The limit of requests that wait for all issuers, as a multiple of the limit for one: a network outage towards all
issuers must not block every thread."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """The issuer of one source, with exactly one of `jwks_uri`, `jwks_file` and `discovery`."""

    source: str
    issuer: str
    algorithms: tuple[str, ...]
    jwks_uri: str | None
    jwks_file: KeptFile | None
    discovery: bool
    ca_file: KeptFile | None
    stale_jwks: float
    is_caller: bool = False
    """Whether the keys authenticate a caller, and not a credential that a caller presents."""


@dataclass(frozen=True, slots=True)
class Issuers:
    """Creates key sources, and keeps the remote ones for the life of the process, so that a reload needs no new fetch.

    `max_waiters` limits the requests that wait for one issuer; MANY times as many may wait for all issuers.
    `notice(source, why)` is called after every fetch: `why` is the reason of a failure, else "".
    """

    clock: Callable[[], float]
    max_waiters: int
    notice: Callable[[str, str], None] = lambda _source, _why: None
    _remote: dict[tuple[Issuer, str | None], RemoteJwks] = field(default_factory=dict, repr=False)
    all_waiters: Bulkhead = field(init=False, repr=False)
    """The common limit of all requests that wait for keys, including the keys of backends."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "all_waiters", Bulkhead(MANY * self.max_waiters, queue=QUEUE * self.max_waiters))

    def keys(self, issuer: Issuer) -> KeySource:
        """Return the keys of `issuer`; a remote set with unchanged settings is reused.

        This fetches nothing yet. Raises StartError if a file cannot be used.
        """
        if issuer.jwks_file is not None:
            return FileJwks(issuer.jwks_file, issuer.algorithms)
        ca = None if issuer.ca_file is None else read_ca(issuer.ca_file)
        known = self._remote.get((issuer, ca))
        if known is None:
            made = CallerJwks if issuer.is_caller else RemoteJwks
            known = self._remote[(issuer, ca)] = made(
                _loader(issuer, Fetcher(ca), self.clock),
                self.clock,
                stale_jwks=issuer.stale_jwks,
                max_waiters=self.max_waiters,
                notice=lambda why: self.notice(issuer.source, why),
                all_waiters=self.all_waiters,
            )
        return known


def _loader(issuer: Issuer, fetcher: Fetcher, clock: Callable[[], float]) -> Callable[[], Loaded[LookUp]]:
    uri = issuer.jwks_uri
    if uri is None:
        return Discovery(issuer, fetcher, clock).load
    return lambda: _load(fetcher, uri, issuer.algorithms)


def _load(fetcher: Fetcher, uri: str, algorithms: tuple[str, ...]) -> Loaded[LookUp]:
    document = fetcher.fetch(uri)
    return Loaded(LookUp(import_jwks(document.body, algorithms)), document.max_age)


class Discovery:
    """Finds an issuer's `jwks_uri` in its metadata (OpenID Connect Discovery §4, RFC 8414 §3).

    Only the fetching thread of `RemoteJwks` uses it. The metadata are cached as long as a JWK set would be, and are
    fetched again if the fetch from their `jwks_uri` fails.
    """

    def __init__(self, issuer: Issuer, fetcher: Fetcher, clock: Callable[[], float]) -> None:
        self._issuer, self._fetcher, self._clock = issuer, fetcher, clock
        self._uri = ""
        self._until = float("-inf")

    def load(self) -> Loaded[LookUp]:
        """Fetch the issuer's keys. Raises UnreachableError or UnfitError."""
        if self._clock() >= self._until:
            self._uri, life = self._discover()
            self._until = self._clock() + life
        try:
            return _load(self._fetcher, self._uri, self._issuer.algorithms)
        except (UnreachableError, UnfitError):
            self._until = float("-inf")
            raise

    def _discover(self) -> tuple[str, float]:
        document = self._fetcher.fetch(self._issuer.issuer.removesuffix("/") + WELL_KNOWN)
        metadata = strict_json(document.body)
        # Compare byte for byte: otherwise one issuer could impersonate another (RFC 8414 §3.3).
        if not isinstance(metadata, dict) or metadata.get("issuer") != self._issuer.issuer:
            raise UnfitError("the metadata are not of this issuer")
        uri = metadata.get("jwks_uri")
        if not isinstance(uri, str) or not _same_origin(uri, self._issuer.issuer):
            raise UnfitError("the metadata's jwks_uri is not at the issuer's origin; configure it as jwks_uri")
        return uri, clamp_life(document.max_age)


def _same_origin(uri: str, issuer: str) -> bool:
    """Return whether a discovered URL may be fetched: only at the issuer's own origin (RFC 8725 §3.10)."""
    try:
        return origin(uri) == origin(issuer)
    except ValueError:
        return False


class OwnKeys:
    """A `KeySource` over `jwks(now)`, the key set that we publish: a key that left it, or was revoked, is unknown."""

    trouble = ""

    def __init__(self, jwks: Callable[[float], Mapping[str, Any]], clock: Callable[[], float]) -> None:
        self._jwks, self._clock = jwks, clock
        # One reference, replaced as a whole: threads may find it in either state.
        self._known: tuple[tuple[str, ...], LookUp] | None = None

    def keys_for(self, kid: str | None, algorithm: str, now: float) -> tuple[VerifyKey, ...]:
        """Return the keys for a token header (see `KeySource`). Never waits. Raises NO_KEY if no key is published."""
        keys = self._keys(now)
        found = keys.find(kid, algorithm)
        if not found:
            raise keys.unknown(kid, algorithm)
        return found

    def at_hand(self, kid: str | None, algorithm: str, now: float) -> bool:
        """Return whether `keys_for` answers with keys that verify quickly, or refuses."""
        return self._keys(now).settles(kid, algorithm)

    def current(self, thumbprint: str) -> bool:
        """Return whether the key is still published."""
        return thumbprint in self._keys(self._clock()).thumbprints

    def _keys(self, now: float) -> LookUp:
        published = self._jwks(now)
        kids = tuple(key["kid"] for key in published["keys"])
        known = self._known
        if known is None or known[0] != kids:
            try:
                known = self._known = (kids, LookUp(import_jwks(published, sorted(SUPPORTED))))
            except UnfitError:
                raise Refusal(NO_KEY, why="no key of ours is published") from None
        return known[1]
