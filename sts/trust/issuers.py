"""From a source's settings to its issuer's keys: a file, a configured URL, or discovery."""

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
"""How many times as many requests may wait for all issuers as for one: an outage on the way to all of them must not
hold every thread."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer as one source configures it: exactly one of `jwks_uri`, `jwks_file` and `discovery`."""

    source: str
    issuer: str
    algorithms: tuple[str, ...]
    jwks_uri: str | None
    jwks_file: KeptFile | None
    discovery: bool
    ca_file: KeptFile | None
    stale_jwks: float
    is_caller: bool = False
    """Whether the keys prove a caller, instead of what a caller brings."""


@dataclass(frozen=True, slots=True)
class Issuers:
    """Makes key sources, and keeps the remote ones as long as the process: a reload must not begin with a cold fetch.

    `max_waiters` is how many requests may wait for one issuer, and MANY times as many for all of them. `notice(source,
    why)` hears of every fetch: "" or why it failed.
    """

    clock: Callable[[], float]
    max_waiters: int
    notice: Callable[[str, str], None] = lambda _source, _why: None
    _remote: dict[tuple[Issuer, str | None], RemoteJwks] = field(default_factory=dict, repr=False)
    all_waiters: Bulkhead = field(init=False, repr=False)
    """What all that wait for keys share, those for backends' keys too."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "all_waiters", Bulkhead(MANY * self.max_waiters, queue=QUEUE * self.max_waiters))

    def keys(self, issuer: Issuer) -> KeySource:
        """The keys of `issuer`; a remote set is the one that is there already, unless its settings changed.

        Fetches nothing yet. Raises StartError if a file cannot be used.
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

    Used by one thread at a time, the one that `RemoteJwks` fetches in. The metadata is kept as long as a JWK set would
    be, and read again as soon as its `jwks_uri` does not answer with one.
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
        # Byte for byte: another name would let one issuer stand in for another (RFC 8414 §3.3).
        if not isinstance(metadata, dict) or metadata.get("issuer") != self._issuer.issuer:
            raise UnfitError("the metadata are not of this issuer")
        uri = metadata.get("jwks_uri")
        if not isinstance(uri, str) or not _same_origin(uri, self._issuer.issuer):
            raise UnfitError("the metadata's jwks_uri is not at the issuer's origin; configure it as jwks_uri")
        return uri, clamp_life(document.max_age)


def _same_origin(uri: str, issuer: str) -> bool:
    """Whether a discovered URL may be fetched: never elsewhere than at the issuer's own origin (RFC 8725 §3.10)."""
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
        """As KeySource says; never waits. NO_KEY where nothing is published."""
        keys = self._keys(now)
        found = keys.find(kid, algorithm)
        if not found:
            raise keys.unknown(kid, algorithm)
        return found

    def at_hand(self, kid: str | None, algorithm: str, now: float) -> bool:
        """As KeySource says."""
        return self._keys(now).settles(kid, algorithm)

    def current(self, thumbprint: str) -> bool:
        """As KeySource says."""
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
