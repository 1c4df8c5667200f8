"""Revocations: which proven things are refused, in memory on each worker, fed by the store.

A revocation names a subject, a session, a credential, a token, a client or a source, and concerns what is no younger
than itself: whoever logs in again afterwards is let in. One of a credential or a token concerns it whatever its age. In
the store nothing personal can be read: names are hashes as in the audit, so that `sts revoke` finds what stands there.
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
from sts.state.state import ABSENT, ConflictError, Record, State, StateUnavailableError, decode, encode
from sts.telemetry import Reading

NAMESPACE: Final = "revocations"
FORMAT: Final = 1
DEFAULT_LIFE_S: Final = 30 * 86400.0
"""How long a revocation is kept: longer than what it revokes may live."""

Kind = Literal["subject", "source_subject", "sid", "source_sid", "credential", "jti", "client", "source"]
"""What a revocation can name. `subject` is the minted one; the two with `source_` are the source's own words."""

_ABSOLUTE: Final = frozenset({"credential", "jti"})
_PLAIN: Final = frozenset({"client", "source"})
HASH: Final = re.compile(r"hmac:[0-9a-f]{32}")
_OWN: Final = "own"
_ATTEMPTS: Final = 5


def name_of(secret: bytes, kind: Kind, value: str, source: str = "") -> str:
    """The name of one thing, and the key of its revocation; `secret` is the deployment's key for the audit's label.

    A hash as it stands in the audit is taken for what it is.
    """
    if kind in _PLAIN:
        return f"{kind}:{value}"
    if kind.startswith("source_"):
        value = f"{len(source)}:{source}{value}"
    elif HASH.fullmatch(value):
        return f"{kind}:{value}"
    return f"{kind}:{hashed(secret, kind, value)}"


def essence(credential: str) -> str:
    """What of a credential cannot be changed by who holds it: an ECDSA signature can, and a certificate's chain.

    Of a signed token all but its signature; of a certificate (base64url of DER begins so) what its issuer has signed.
    """
    if credential.startswith("MI"):
        try:
            der = urlsafe_b64decode(credential.partition(".")[0] + "==")
            return urlsafe_b64encode(load_der_x509_certificate(der).tbs_certificate_bytes).decode("ascii")
        except ValueError:
            pass  # it only begins like one
    return credential.rpartition(".")[0] if credential.count(".") == 2 else credential


@dataclass(frozen=True, slots=True)
class Revocation:
    """One revocation as it is kept: what it names, what it concerns (`before`, None: whatever its age), until when."""

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
        """For commands."""
        kind, _, name = self.name.partition(":")
        until = None if self.until == math.inf else self.until
        return {"what": kind, "name": name, "before": self.before, "until": until, "at": self.at, "reason": self.reason}


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def planned(state: State, name: str, now: float, life: float, reason: str = "") -> Revocation:
    """What `revoke` would record; one that is there already is widened, never narrowed.

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
    raise StateUnavailableError("the revocation is being changed by somebody else all the time")


def _widened(found: Record | None, name: str, now: float, life: float, reason: str) -> Revocation:
    before, until = None if name.partition(":")[0] in _ABSOLUTE else now, now + life
    if found is not None:
        known = Revocation.read(found)
        before = None if before is None or known.before is None else max(before, known.before)
        until = max(until, known.until)
    return Revocation(name, before, until, now, reason)


def listed(state: State) -> list[Revocation]:
    """All revocations, by name. Raises StateUnavailableError."""
    return [Revocation.read(record) for record in state.list(NAMESPACE)]


class Revocations:
    """A worker's list. A look at it takes no lock and asks nobody; a thread follows the store (`start`).

    `secrets` are the deployment's keys for the audit's label, the previous secret's too, as long as there is one;
    `settings` may be replaced by a reload; `on_fault` hears when the store begins to be out of reach.
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
        """How many there are; those that are over may be among them."""
        return len(self._list.ends)

    @property
    def age(self) -> float:
        """Seconds since the store was last seen; infinite before the first time."""
        return self._follower.age

    @property
    def trouble(self) -> str:
        """Why the last look at the store failed, "" if it did not."""
        return self._follower.fault

    @property
    def lost(self) -> str:
        """Why the store is not the one that was seen before, "" if it is."""
        return self._follower.lost

    @property
    def fresh(self) -> bool:
        """Whether the list is young enough to be believed."""
        return self.age <= self.settings.max_stale

    @property
    def usable(self) -> bool:
        """Whether requests can be answered by it: it is fresh, or the configuration goes on without."""
        return self.settings.on_outage.revocation == "allow" or self.fresh

    def status(self) -> dict[str, object]:
        """For operators."""
        age = None if self.age == math.inf else round(self.age)
        return {"count": len(self), "age_s": age, "trouble": self.trouble}

    def readings(self) -> list[Reading]:
        """For Prometheus."""
        return [
            Reading("sts_revocations", "Revocations in the list.", len(self)),
            Reading("sts_revocations_age_seconds", "Seconds since the list was last seen.", self.age),
        ]

    def gather(
        self, client: Client, ask: Ask, proven: Sequence[Principal], mapped: Sequence[Identity], now: float
    ) -> Revocable:
        """Everything by which the credentials of `ask`, as they were proven and mapped, can be revoked."""
        groups: list[tuple[float, tuple[str, ...]]] = []
        credentials = [one for one in (ask.credential, ask.actor) if one is not None]
        for credential, principal, identity in zip(credentials, proven, mapped, strict=True):
            things = (*_proven(credential.value, principal), "subject", identity.subject, "")
            groups.append((_since(principal, now), things))
            if principal.kind == _OWN:
                groups.append(_minted_for(principal.attributes))
        return Revocable((*groups, (now, ("client", client.id, ""))))

    def check_caller(self, token: str, principal: Principal, now: float) -> None:
        """Let pass a proven token with which a caller proves itself: no rule maps it. Raises Refusal as `check`."""
        self.check(Revocable(((_since(principal, now), _proven(token, principal)),)), now)

    def minted(self, revocable: Revocable, issued: Issued) -> Revocable:
        """The same, and the token that was minted."""
        (since, things), *others = revocable.groups
        token = ("jti", issued.jti, "", "credential", issued.token, "")
        return Revocable(((since, things + token), *others))

    def kept(self, revocable: Revocable, minted: str = "") -> Revocable:
        """The same, to be kept beside an answer: hashes instead of the text of a credential, except our own `minted`.

        The hashes are made at once. A cache must not contain a credential, and a revocation of one credential must
        leave the tokens of all others in the cache.
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
        """Everything by which a token of ours, proven and with these claims, can be revoked.

        Subject and source are judged by `since`, the time of the first credential behind it, and not by its own: one
        that was minted before this worker had seen the revocation is as revoked as what it was made from.
        """
        things: tuple[str, ...] = ("credential", token, "", "jti", claims["jti"], "", "subject", claims["sub"], "")
        if isinstance(claims.get("src"), str):
            things += ("source", claims["src"], "")
        return Revocable(((0.0 if since is None else float(since), things), _minted_for(claims)))

    def current(self, revocable: Revocable, now: float) -> bool:
        """Whether nothing of it is revoked. Raises Refusal(STATE_UNAVAILABLE) where the list is too old to tell."""
        if not self.usable:
            raise Refusal(STATE_UNAVAILABLE, why="the list of revocations is too old", cause=self.trouble)
        return self._revoked(revocable, now) is None

    def check(self, revocable: Revocable, now: float) -> None:
        """Let pass what is not revoked. Raises Refusal: REVOKED, or as `current`."""
        if not self.current(revocable, now):
            raise Refusal(REVOKED, why="it was revoked", what=self._revoked(revocable, now) or "")

    def _revoked(self, revocable: Revocable, now: float) -> str | None:
        """What of it is revoked: the kind of the name, for the audit.

        Only names of kinds that the list holds are hashed. What the list does not name at all is not looked at again
        until the list changes.
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
        """The names of one thing, and what it was called under the previous secret."""
        if kind in _PLAIN:
            return [f"{kind}:{value}"]
        # A set: of most credentials the essence is all of it.
        values = {value, essence(value)} if kind == "credential" else (value,)
        return [name_of(secret, cast("Kind", kind), one, source) for one in values for secret in self._secrets]

    def _take(self, known: Mapping[str, Record]) -> None:
        """Take the store's records over. Raises StateUnavailableError for one that cannot be read."""
        ends = {}
        for name, record in known.items():
            found = Revocation.read(record)
            ends[name] = (math.inf if found.before is None else found.before, found.until)
        self._list = _List(ends, frozenset(name.partition(":")[0] for name in ends), object())


class _List(NamedTuple):
    """The revocations at one time: what each name concerns and until when, the kinds of names, and which list it is."""

    ends: Mapping[str, tuple[float, float]]
    kinds: frozenset[str]
    version: object


def _proven(credential: str, principal: Principal) -> tuple[str, ...]:
    """What a proven credential can be named by, whatever it maps to, as in `Revocable`."""
    source = principal.source
    things: tuple[str, ...] = ("credential", credential, "", "source", source, "")
    if principal.kind != _OWN and principal.subject is not None:  # of our own tokens it is the minted one
        things += ("source_subject", principal.subject, source)
    sid = principal.attributes.get("sid")
    if isinstance(sid, str):
        things += ("sid", sid, "", "source_sid", sid, source)
    if isinstance(principal.jti, str):
        things += ("jti", principal.jti, "")
    return things


def _minted_for(claims: Mapping[str, Any]) -> tuple[float, tuple[str, ...]]:
    """The client that a token of ours was minted for: it is revoked by when that was, whatever it was made from."""
    return float(claims["iat"]), ("client", claims["client_id"], "")


def _triples(things: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    return zip(things[::3], things[1::3], things[2::3], strict=True)


def _since(principal: Principal, now: float) -> float:
    """Since when a credential exists, never in the future; for one that does not say, always."""
    return 0.0 if principal.since is None else min(float(principal.since), now)


KINDS: Final[tuple[str, ...]] = get_args(Kind)
"""Every kind of name."""
