"""Revocations: a list in the memory of each worker, which follows the store.

A revocation names a subject, a session, a credential, a token, a client or a source, and applies to everything that was
issued before it: a user who logs in again afterwards is accepted. A revocation of a credential or a token applies
independent of its age. The store contains no personal data: names are hashes, the same as in the audit log, so that
`sts revoke` accepts a hash from there.
"""

from __future__ import annotations

import math
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, cast, get_args

from cryptography.x509 import load_der_x509_certificate

from sts.errors import REVOKED, STATE_UNAVAILABLE, Refusal
from sts.labels import hashed
from sts.model import Ask, Client, Identity, Issued, Principal, Revocable
from sts.state.change_feed import Follower
from sts.state.continuity import Continuity
from sts.state.settings import StateSettings
from sts.state.state import ABSENT, ConflictError, Record, State, StateUnavailableError, decode, encode, records
from sts.telemetry import Reading

NAMESPACE: Final = "revocations"
FORMAT: Final = 1
DEFAULT_LIFE_S: Final = 30 * 86400.0
"""The default time in seconds for which a revocation is kept: it must exceed the lifetime of what it revokes."""

Kind = Literal["subject", "source_subject", "sid", "source_sid", "credential", "jti", "client", "source"]
"""What a revocation can name. `subject` is the minted subject; the kinds with `source_` are values of the source."""

_ABSOLUTE: Final = frozenset({"credential", "jti"})
_PLAIN: Final = frozenset({"client", "source"})
HASH: Final = re.compile(r"hmac:[0-9a-f]{32}")
_OWN: Final = "own"
_ATTEMPTS: Final = 5


def name_of(secret: bytes, kind: Kind, value: str, source: str = "") -> str:
    """Return the name of one thing, which is the key of its revocation. A hash from the audit log is used unchanged.

    `secret` is the deployment's key for the label of the audit.
    """
    if kind in _PLAIN:
        return f"{kind}:{value}"
    if kind.startswith("source_"):
        value = f"{len(source)}:{source}{value}"
    elif HASH.fullmatch(value):
        return f"{kind}:{value}"
    return f"{kind}:{hashed(secret, kind, value)}"


def essence(credential: str) -> str:
    """Return the part of a credential that its holder cannot change.

    A holder can change an ECDSA signature, and the chain of a certificate. The result is a signed token without its
    signature, or the signed part of a certificate (recognised by the begin of base64url DER), or the whole credential.
    """
    if credential.startswith("MI"):
        try:
            der = urlsafe_b64decode(credential.partition(".")[0] + "==")
            return urlsafe_b64encode(load_der_x509_certificate(der).tbs_certificate_bytes).decode("ascii")
        except ValueError:
            pass  # it only begins like a certificate
    return credential.rpartition(".")[0] if credential.count(".") == 2 else credential


@dataclass(frozen=True, slots=True)
class Revocation:
    """One revocation: its name, `before` when the revoked things were issued (None: at any time), and its expiry."""

    name: str
    before: float | None
    until: float
    at: float
    reason: str

    @classmethod
    def read(cls, record: Record) -> Revocation:
        """Read a record of the store. Raises StateUnavailableError."""
        _, content = decode(record.value or b"", FORMAT)
        before, at, reason = content.get("before"), content.get("at"), content.get("reason")
        if not (before is None or _is_time(before)) or not _is_time(at) or not isinstance(reason, str):
            raise StateUnavailableError("a revocation in the store is damaged")
        return cls(record.key, before, record.until, float(at or 0), reason)

    def as_json(self) -> dict[str, Any]:
        """Return the revocation as JSON values for commands."""
        kind, _, name = self.name.partition(":")
        until = None if self.until == math.inf else self.until
        return {"what": kind, "name": name, "before": self.before, "until": until, "at": self.at, "reason": self.reason}


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def planned(state: State, name: str, now: float, life: float, reason: str = "") -> Revocation:
    """Return what `revoke` would record; an existing revocation is extended, never reduced.

    Raises StateUnavailableError.
    """
    return _widened(state.get(NAMESPACE, name), name, now, life, reason)


def revoke(state: State, name: str, now: float, life: float = DEFAULT_LIFE_S, reason: str = "") -> Revocation:
    """Record a revocation, for `life` seconds. Raises StateUnavailableError."""
    for _ in range(_ATTEMPTS):
        found = state.get(NAMESPACE, name)
        new = _widened(found, name, now, life, reason)
        value = encode(FORMAT, {"before": new.before, "at": now, "reason": reason})
        try:
            state.put(NAMESPACE, name, value, expected=ABSENT if found is None else found.version, until=new.until)
        except ConflictError:
            continue
        return new
    raise StateUnavailableError("other writers keep changing the revocation: try again")


def _widened(found: Record | None, name: str, now: float, life: float, reason: str) -> Revocation:
    before, until = None if name.partition(":")[0] in _ABSOLUTE else now, now + life
    if found is not None:
        known = Revocation.read(found)
        before = None if before is None or known.before is None else max(before, known.before)
        until = max(until, known.until)
    return Revocation(name, before, until, now, reason)


def listed(state: State) -> Iterator[Revocation]:
    """All revocations, by name, read in batches. Raises StateUnavailableError."""
    return (Revocation.read(record) for record in records(state, NAMESPACE))


class Revocations:
    """The revocations of a worker. A look-up takes no lock and makes no request; a thread follows the store (`start`).

    `secrets` are the deployment's keys for the label of the audit, of the present and the previous secret. A reload may
    replace `settings`. `on_fault` is called when the store becomes unreachable.
    """

    def __init__(
        self,
        state: State,
        secrets: Sequence[bytes],
        settings: StateSettings,
        on_fault: Callable[[str], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
        continuity: Continuity | None = None,
    ) -> None:
        self.settings = settings
        self._secrets = tuple(secrets)
        self._list = _List({}, frozenset(), object())
        self._follower = Follower(state, NAMESPACE, self._take, on_fault, monotonic=monotonic, continuity=continuity)
        self.start, self.stop, self.refresh = self._follower.start, self._follower.stop, self._follower.refresh

    def __len__(self) -> int:
        """Return the number of revocations, which may include expired ones."""
        return len(self._list.ends)

    @property
    def age(self) -> float:
        """Seconds since the store was last read successfully; infinite before the first time."""
        return self._follower.age

    @property
    def trouble(self) -> str:
        """Why the last read of the store failed, "" if it succeeded."""
        return self._follower.fault

    @property
    def lost(self) -> str:
        """Why the store has lost its content (emptied, replaced or restored), "" if it has not."""
        return self._follower.lost

    @property
    def fresh(self) -> bool:
        """Whether the list is not older than `max_stale`."""
        return self.age <= self.settings.max_stale

    @property
    def usable(self) -> bool:
        """Whether requests can use the list: it is fresh, or the configuration allows an old list."""
        return self.settings.on_outage.revocation == "allow" or self.fresh

    def status(self) -> dict[str, object]:
        """Return the status for operators."""
        age = None if self.age == math.inf else round(self.age)
        return {"count": len(self), "age_s": age, "trouble": self.trouble}

    def readings(self) -> list[Reading]:
        """Return the readings for Prometheus."""
        return [
            Reading("sts_revocations", "Revocations in the list.", len(self)),
            Reading("sts_revocations_age_seconds", "Seconds since the list was last seen.", self.age),
        ]

    def gather(
        self, client: Client, ask: Ask, proven: Sequence[Principal], mapped: Sequence[Identity], now: float
    ) -> Revocable:
        """Return the identifiers by which the proven and mapped credentials of `ask` can be revoked."""
        groups: list[tuple[float, tuple[str, ...]]] = []
        credentials = [one for one in (ask.credential, ask.actor) if one is not None]
        for credential, principal, identity in zip(credentials, proven, mapped, strict=True):
            things = (*_proven(credential.value, principal), "subject", identity.subject, "")
            groups.append((_since(principal, now), things))
            if principal.kind == _OWN:
                groups.append(_minted_for(principal.attributes))
        return Revocable((*groups, (now, ("client", client.id, ""))))

    def check_caller(self, token: str, principal: Principal, now: float) -> None:
        """Check the proven token with which a caller authenticates; no rule maps it. Raises Refusal as `check`."""
        self.check(Revocable(((_since(principal, now), _proven(token, principal)),)), now)

    def minted(self, revocable: Revocable, issued: Issued) -> Revocable:
        """Return `revocable` with the identifiers of the minted token added."""
        (since, things), *others = revocable.groups
        token = ("jti", issued.jti, "", "credential", issued.token, "")
        return Revocable(((since, things + token), *others))

    def kept(self, revocable: Revocable, minted: str = "") -> Revocable:
        """Return `revocable` for a cache: with hashes instead of credentials, except our own token `minted`.

        The hashes are computed at once. A cache must not contain a credential, and the revocation of one credential
        must leave the tokens of all others in the cache.
        """
        groups = []
        for since, things in revocable.groups:
            kept: list[str] = []
            for kind, value, source in _triples(things):
                if kind != "credential" or value == minted:
                    kept += (kind, value, source)
                else:
                    for name in self._names(kind, value, source):
                        kept += (kind, name.removeprefix("credential:"), "")
            groups.append((since, tuple(kept)))
        return Revocable(tuple(groups))

    def own(self, token: str, claims: Mapping[str, Any], since: float | None) -> Revocable:
        """Return the identifiers by which a proven token of ours with these claims can be revoked.

        For subject and source, `since` counts, the time of the first credential behind the token, and not the token's
        own time: a worker may have minted the token before it read the revocation of that credential.
        """
        things: tuple[str, ...] = ("credential", token, "", "jti", claims["jti"], "", "subject", claims["sub"], "")
        if isinstance(claims.get("src"), str):
            things += ("source", claims["src"], "")
        return Revocable(((0.0 if since is None else float(since), things), _minted_for(claims)))

    def current(self, revocable: Revocable, now: float) -> bool:
        """Return whether nothing of it is revoked. Raises STATE_UNAVAILABLE if the list is too old."""
        if not self.usable:
            raise Refusal(STATE_UNAVAILABLE, why="the list of revocations is too old", cause=self.trouble)
        return self._revoked(revocable, now) is None

    def check(self, revocable: Revocable, now: float) -> None:
        """Raise REVOKED if anything of it is revoked, or what `current` raises."""
        if not self.current(revocable, now):
            raise Refusal(REVOKED, why="it was revoked", what=self._revoked(revocable, now) or "")

    def _revoked(self, revocable: Revocable, now: float) -> str | None:
        """Return the kind of the revoked name for the audit, None if nothing is revoked.

        Only names of kinds that are in the list are hashed. If the list contains none of the names, they are not looked
        up again until the list changes.
        """
        known = self._list
        if not known.ends or revocable.unnamed_in is known.version:
            return None
        named = False
        for since, things in revocable.groups:
            for kind, value, source in _triples(things):
                if kind not in known.kinds:
                    continue
                for name in self._names(kind, value, source):
                    found = known.ends.get(name)
                    if found is not None:
                        named = True
                        if since <= found[0] and now < found[1]:
                            return kind
        if not named:
            revocable.unnamed_in = known.version
        return None

    def _names(self, kind: str, value: str, source: str) -> list[str]:
        """Return the names of one thing, under the present and the previous secret."""
        if kind in _PLAIN:
            return [f"{kind}:{value}"]
        # A set, because the essence of most credentials is the whole credential.
        values = {value, essence(value)} if kind == "credential" else (value,)
        return [name_of(secret, cast("Kind", kind), one, source) for one in values for secret in self._secrets]

    def _take(self, known: Mapping[str, Record]) -> None:
        """Replace the list by the records of the store. Raises StateUnavailableError for an unreadable record."""
        ends = {}
        for name, record in known.items():
            found = Revocation.read(record)
            ends[name] = (math.inf if found.before is None else found.before, found.until)
        self._list = _List(ends, frozenset(name.partition(":")[0] for name in ends), object())


class _List(NamedTuple):
    """An immutable list: per name `before` and expiry, the kinds of names, and an object that identifies the list."""

    ends: Mapping[str, tuple[float, float]]
    kinds: frozenset[str]
    version: object


def _proven(credential: str, principal: Principal) -> tuple[str, ...]:
    """Return the names of a proven credential without its mapping, in the form of `Revocable`."""
    source = principal.source
    things: tuple[str, ...] = ("credential", credential, "", "source", source, "")
    if principal.kind != _OWN and principal.subject is not None:  # the subject of our own token is the minted one
        things += ("source_subject", principal.subject, source)
    sid = principal.attributes.get("sid")
    if isinstance(sid, str):
        things += ("sid", sid, "", "source_sid", sid, source)
    if isinstance(principal.jti, str):
        things += ("jti", principal.jti, "")
    return things


def _minted_for(claims: Mapping[str, Any]) -> tuple[float, tuple[str, ...]]:
    """Return the client of a token of ours, with the time of minting, which counts for a revocation of the client."""
    return float(claims["iat"]), ("client", claims["client_id"], "")


def _triples(things: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    return zip(things[::3], things[1::3], things[2::3], strict=True)


def _since(principal: Principal, now: float) -> float:
    """Return since when a credential exists, at most `now`; 0 for a credential without that time."""
    return 0.0 if principal.since is None else min(float(principal.since), now)


KINDS: Final[tuple[str, ...]] = get_args(Kind)
"""Every kind of name."""
