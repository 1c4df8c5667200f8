"""The composition root, which connects all parts of the service.

An `App` is the service of one worker. It contains the objects that live as long as the process (keyring, token cache,
audit, keys of issuers) and the current `Revision`, which a reload replaces as a whole between two requests.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from flask import Flask

from keys.keyring import Keyring
from sts.audit.log import AuditLog
from sts.cache.memory import Memory
from sts.cache.refusals import BYTES as REFUSAL_BYTES
from sts.cache.refusals import Refusals
from sts.cache.tokens import Entry, TokenCache
from sts.clients.access_token import AccessTokenClient
from sts.clients.assertion import AssertionClient
from sts.clients.client import ClientSettings
from sts.clients.failures import Failures
from sts.clients.registry import Clients, World
from sts.credentials.introspected import Introspections, Known, Stores
from sts.credentials.jwt import Bearers
from sts.credentials.kind import Services, Source, Sources, SourceSettings
from sts.credentials.registry import build_sources, prefixes
from sts.credentials.self_issued import OwnTokens, OwnVerifier
from sts.edge.certificate_headers import Proxies
from sts.edge.discovery import Readiness, discovery, health, site
from sts.edge.forward_auth import ForwardAuthDoor
from sts.edge.introspection import Introspection
from sts.edge.routes import Routes
from sts.edge.tls import own_certificate
from sts.edge.token import TokenDoor
from sts.exchange import Exchange
from sts.labels import DeploymentSecret
from sts.lookups.opa import OpaServers
from sts.lookups.tables import Tables
from sts.mint import keys_told
from sts.mint.minter import Minter
from sts.policy.admit import admit
from sts.policy.consent import Consent
from sts.policy.decide import Policy
from sts.policy.rules import AudienceRules, RouteRules, SourceRules
from sts.settings import Settings
from sts.state.worker_state import StateAtWork
from sts.telemetry import Reading, know_prefixes, log, metrics
from sts.trust.introspection import UNAUTHORIZED
from sts.trust.issuers import Issuers, OwnKeys
from sts.trust.recipients import Recipient, Recipients
from sts.trust.remote_jwks import RemoteSet, warm_up
from sts.x509.authority import Authorities


def metrics_of_fetch(source: str, why: str) -> None:
    """Count a fetch of an issuer's keys, and log a failure; `why` is its reason, else ""."""
    metrics.jwks_fetched(source, "failed" if why else "fetched")
    if why:
        log.warning("issuer's keys", source=source, why=why)


def metrics_of_recipients(audience: str, why: str) -> None:
    """Count a fetch of a backend's encryption keys, and log a failure; `why` is its reason, else ""."""
    metrics.jwks_fetched(f"audience {audience}", "failed" if why else "fetched")
    if why:
        log.warning("backend's encryption keys", audience=audience, why=why)


def metrics_of_opa(why: str) -> None:
    """Count a request to OPA, and log a failure; `why` is its reason, else ""."""
    metrics.opa_asked("failed" if why else "answered")
    if why:
        log.warning("opa", why=why)


def metrics_of_introspection(source: str, outcome: str, why: str) -> None:
    """Count the outcome of an introspection request, and log a failure.

    A server that refuses our own credentials is logged as an error: only an operator can repair that. The pause after
    failures prevents a log line per request.
    """
    metrics.introspected(source, outcome)
    if outcome == UNAUTHORIZED:
        log.error("introspection server", source=source, why=why)
    elif why:
        log.warning("introspection server", source=source, why=why)


def ocsp_asked(source: str, why: str) -> None:
    """Log a failed request to an OCSP responder; `why` is the reason, else ""."""
    if why:
        log.warning("revocation", source=source, why=why)


Clock = Callable[[], float]

CACHE_LABEL: Final = "token cache key"
ACTIVE_BYTES: Final = 8_000_000
"""The memory of each worker for introspection responses about active tokens, in bytes."""
INACTIVE_BYTES: Final = 1_000_000
"""The memory of each worker for introspection responses about inactive tokens, in bytes."""


@dataclass(frozen=True, slots=True)
class Revision:
    """The objects that are built from one accepted configuration."""

    settings: Settings
    exchange: Exchange
    token_door: TokenDoor
    forward_auth_door: ForwardAuthDoor
    sources: Mapping[str, Source]
    recipients: Mapping[str, Recipient]
    introspection: Introspection


class App:
    """The service of one worker: the current revision, and the objects that survive a reload."""

    def __init__(
        self,
        settings: Settings,
        secret: DeploymentSecret,
        keyring: Keyring,
        audit: AuditLog,
        state: StateAtWork,
        clock: Clock = time.time,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Build the service from `settings`. `stopping` returns whether this replica is shutting down."""
        self.stopping = stopping
        self.keyring = keyring
        self.audit = audit
        self.state = state
        self.clock = clock
        waiters = max(1, settings.threads // 8)
        self.memory: Memory[Entry] = Memory(settings.cache.memory, metrics.cache_changed)
        self.tokens = TokenCache(
            secret.key(CACHE_LABEL),
            self.memory,
            keyring.published,
            max_waiters=waiters,
            recipient_current=self._recipient_current,
            unrevoked=state.revocations.current,
        )
        self.refusals = Refusals(Memory(REFUSAL_BYTES), state.revocations.current)
        # Each limit is an eighth of the threads. Waiting for one slow issuer, in the token cache and for its keys, may
        # block a quarter of the threads, and waiting for many issuers a half; the other threads continue.
        self.issuers = Issuers(clock, waiters, metrics_of_fetch)
        self.recipients = Recipients(clock, waiters, self.issuers.all_waiters, metrics_of_recipients)
        self.own_keys = OwnKeys(lambda now: self.keyring.jwks(now), clock)  # noqa: PLW0108 - explain has none
        self.authorities = Authorities(clock, ocsp_asked)
        answers: tuple[Memory[Known], Memory[Known]] = (Memory(ACTIVE_BYTES), Memory(INACTIVE_BYTES))
        stores, notice = Stores(*answers, self.tokens.waiters), metrics_of_introspection
        self.introspections = Introspections(time.monotonic, stores, waiters, self.issuers.all_waiters, notice)
        self.failures = Failures(time.monotonic, metrics.client_limited)
        self.opa = OpaServers(time.monotonic, waiters, self.issuers.all_waiters, metrics_of_opa)
        self.tables = Tables(clock, waiters, settings.redis)
        self._stamps: dict[str, tuple[str, str]] = {}
        self.current = self.build(settings)
        self.flask = self._flask()

    def swap(self, settings: Settings) -> None:
        """Apply a checked configuration; requests in progress finish with the one with which they began.

        A configuration that cannot be built changes nothing. Raises StartError.
        """
        try:
            made = self.build(settings)
            self.warm_up(made)
            self.current = made
        finally:  # close connections that only the former revision used, or one that could not be built
            in_force = self.current.settings
            asked = [one.asks(name) for name, one in in_force.sources.items() if one.enabled]
            self.introspections.keep([one for one in asked if one is not None])
            self.tables.keep(in_force.tables)
            self.opa.keep(in_force.opa)
        self.keyring.reschedule(settings.keys.schedule())
        self.state.reconfigure(settings.state)
        self.memory.bound = settings.cache.memory  # a smaller bound applies from the next write

    def warm_up(self, revision: Revision) -> None:
        """Fetch the remote keys of a revision's sources, clients and backends, for at most WARM_UP seconds.

        Call this before a worker accepts requests: otherwise a burst would be refused while the keys are fetched.
        """
        sources, clients = revision.settings.sources, revision.settings.clients
        issuers = [
            *(one.trusted(name) for name, one in sources.items() if one.enabled),
            *(one.trusted(name) for name, one in clients.items() if one.enabled and isinstance(one, AssertionClient)),
        ]
        keys = [self.issuers.keys(one) for one in issuers if one is not None and one.jwks_file is None]
        warm_up([one for one in (*keys, *revision.recipients.values()) if isinstance(one, RemoteSet)], time.monotonic)

    def build(self, settings: Settings) -> Revision:
        """Build a whole revision; it applies only after it is assigned to `current`. Raises StartError."""
        know_prefixes(prefixes(settings.sources))
        sources = build_sources(settings.sources, self._services(settings))
        recipients = self._recipients(settings)
        exchange = Exchange(
            revision=settings.revision,
            clients=Clients(settings.clients, self.failures, self._world(settings, sources)),
            sources=sources,
            policy=replace(policy(settings, self._stamped(settings)), opa=self.opa.of(settings.opa)),
            tables=self.tables.put(settings.tables),
            minter=Minter(settings.issuer, self.keyring, recipients),
            tokens=self.tokens,
            refusals=self.refusals,
            revocations=self.state.revocations,
            audit=self.audit,
            clock=self.clock,
        )
        door = ForwardAuthDoor(
            settings.forward_auth,
            Routes(settings.routes),
            [name for audience in settings.audiences.values() for name in audience.headers],
            {name: audience.max_token_bytes for name, audience in settings.audiences.items()},
            dict(filter(None, (source.credential_header() for source in settings.sources.values()))),
        )
        token_door = TokenDoor(Proxies(settings.proxies))
        answers = self._introspection(settings, exchange.clients, token_door)
        return Revision(settings, exchange, token_door, door, sources.by_name, recipients, answers)

    def _introspection(self, settings: Settings, clients: Clients, door: TokenDoor) -> Introspection:
        """Return the endpoint for introspection of our own tokens."""
        audiences = {
            audience.aud or name: name
            for name, audience in settings.audiences.items()
            if audience.enabled and audience.format == "jwt"
        }
        return Introspection(
            verifier=self._own_verifier(settings),
            revision=settings.revision,
            audiences=audiences,
            clients=clients,
            revocations=self.state.revocations,
            door=door,
            audit=self.audit,
            clock=self.clock,
        )

    def _own_verifier(self, settings: Settings) -> OwnVerifier:
        """Return the verifier of our own tokens, for all endpoints."""
        return OwnVerifier(settings.issuer, self.own_keys, _enabled(settings.sources), _enabled(settings.clients))

    def _world(self, settings: Settings, sources: Sources) -> World:
        """Return the dependencies of client authentication."""
        issuers = {client.source for client in settings.clients.values() if isinstance(client, AccessTokenClient)}
        at_work = [one for name, one in sources.by_name.items() if name in issuers]
        return World(
            issuer=settings.issuer,
            keys=self.issuers.keys,
            tokens=Bearers(at_work, settings.issuer, admit, self.state.revocations.check_caller),
            marks=self.state.once,
            clock=self.clock,
        )

    def _services(self, settings: Settings) -> Services:
        """Return the dependencies of the sources."""
        return Services(
            issuers=self.issuers,
            authorities=self.authorities,
            introspections=self.introspections,
            api_keys=self.state.keys,
            own=OwnTokens(self._own_verifier(settings), self.clock),
        )

    def _recipients(self, settings: Settings) -> dict[str, Recipient]:
        """Return the encryption keys of backends, by audience."""
        return {
            name: self.recipients.of(name, audience.encryption)
            for name, audience in settings.audiences.items()
            if audience.enabled and audience.encryption is not None
        }

    def _recipient_current(self, audience: str, thumbprint: str) -> bool:
        """Return whether the key to which a cached token is encrypted is still in its backend's set."""
        recipient = self.current.recipients.get(audience)
        return recipient is not None and recipient.current(thumbprint)

    def _stamped(self, settings: Settings) -> dict[str, str]:
        """Return the fingerprint of each entry, with a random stamp that changes with the fingerprint.

        Without the stamp, an entry that was disabled and enabled again would have its old fingerprint, and cached
        tokens that were invalidated would be valid again.
        """
        stamp = secrets.token_hex(8)
        known = self._stamps
        self._stamps = {
            name: known[name] if name in known and known[name][0] == found else (found, stamp)
            for name, found in settings.fingerprints().items()
        }
        return {name: found + since for name, (found, since) in self._stamps.items()}

    def readiness(self) -> Readiness:
        """Return whether the worker is ready: a configuration, a usable key, fresh revocations, and not shutting down.

        An issuer that is down affects only its own tokens, and a key store that is down only workers that start.
        Therefore they are only listed under `degraded`.
        """
        status = self.keyring.status(self.clock())
        revocations = self.state.revocations
        troubles = {name: one.trouble for name, one in self.current.sources.items()}
        troubles.update({f"table {name}": one.trouble for name, one in self.current.exchange.tables.items()})
        troubles.update({f"audience {name}": one.trouble for name, one in self.current.recipients.items()})
        troubles.update({f"client {name}": why for name, why in self.current.exchange.clients.troubles()})
        troubles.update(self.state.troubles)
        opa = self.opa.of(self.current.settings.opa)
        if opa is not None:
            troubles["opa"] = opa.trouble
        troubles["key store"] = status.fault
        stopping = self.stopping()
        detail = {
            **({"stopping": True} if stopping else {}),
            "revision": self.current.exchange.revision,
            "revocations": revocations.status(),
            **keys_told.detail(status),
            "degraded": {name: trouble for name, trouble in troubles.items() if trouble},
        }
        return Readiness(status.usable and revocations.usable and not stopping, detail)

    def readings(self) -> list[Reading]:
        """Return the Prometheus readings about keys, revocations, and revocation of certificates."""
        told = keys_told.readings(self.keyring.status(self.clock()))
        tls = self.current.settings.listen.tls
        ours = [] if tls is None else [own_certificate(tls.cert_file, self.clock())]
        return [*told, *ours, *self.state.readings(), *self.authorities.readings(self.clock())]

    def _flask(self) -> Flask:
        issuer = self.current.settings.issuer
        return site(
            discovery(
                issuer,
                lambda: self.keyring.jwks(self.clock()),
                lambda: self.current.settings.keys.jwks_max_age,
                lambda: self.current.settings.listen.tls is not None or bool(self.current.settings.proxies),
            ),
            health(self.readiness, metrics.render, lambda: self.current.settings.ops_networks),
        )


def _enabled(entries: Mapping[str, ClientSettings] | Mapping[str, SourceSettings]) -> frozenset[str]:
    return frozenset(name for name, one in entries.items() if one.enabled)


def policy(settings: Settings, fingerprints: Mapping[str, str]) -> Policy:
    """Compile the rules of a configuration, without disabled audiences and sources."""
    backends = settings.with_backends()
    audiences = {
        name: AudienceRules.of(name, audience, settings.keys.algorithm, backend=name in backends)
        for name, audience in settings.audiences.items()
        if audience.enabled
    }
    alone = len(settings.sources) == 1
    sources = {name: SourceRules.of(source, alone=alone) for name, source in settings.sources.items() if source.enabled}
    return Policy(
        issuer=settings.issuer,
        consents=Consent(audiences, {one.aud: one for one in audiences.values()}, sources),
        sources=sources,
        routes={name: RouteRules.of(route) for name, route in settings.routes.items()},
        client_ids=frozenset(settings.clients),
        own_subjects=settings.own_subjects(),
        fingerprints=fingerprints,
        min_remaining=settings.cache.min_remaining,
    )
