"""The composition root: the only module that knows all concrete parts.

An `App` is one worker's service. It holds what lives as long as the process (keyring, token cache, audit, the issuers'
keys) and the `Revision` in force, which a reload replaces as a whole between two requests.
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
    """Tell of a fetch of an issuer's keys: counted, and logged where it failed."""
    metrics.jwks_fetched(source, "failed" if why else "fetched")
    if why:
        log.warning("issuer's keys", source=source, why=why)


def metrics_of_recipients(audience: str, why: str) -> None:
    """Tell of a fetch of a backend's encryption keys, as of an issuer's."""
    metrics.jwks_fetched(f"audience {audience}", "failed" if why else "fetched")
    if why:
        log.warning("backend's encryption keys", audience=audience, why=why)


def metrics_of_opa(why: str) -> None:
    """Tell of a question to OPA: counted, and logged where it was not answered."""
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
    """Tell of a question to an OCSP responder that was not answered."""
    if why:
        log.warning("revocation", source=source, why=why)


Clock = Callable[[], float]

CACHE_LABEL: Final = "token cache key"
ACTIVE_BYTES: Final = 8_000_000
"""Memory of each worker for what servers said of active tokens."""
INACTIVE_BYTES: Final = 1_000_000
"""Memory of each worker for tokens that are not active."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One accepted configuration at work."""

    settings: Settings
    exchange: Exchange
    token_door: TokenDoor
    forward_auth_door: ForwardAuthDoor
    sources: Mapping[str, Source]
    recipients: Mapping[str, Recipient]
    introspection: Introspection


class App:
    """One worker's service: the revision in force, and what outlives it."""

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
        """Put `settings` to work. `stopping` says whether this replica was told to stop."""
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
        # Waiting for one slow issuer may hold a quarter of the threads, here and there together, and waiting for
        # many of them a half: the rest go on.
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
        """Take a checked configuration; requests in flight finish on the one they began with.

        One that cannot be built changes nothing. Raises as `build`.
        """
        try:
            made = self.build(settings)
            self.warm_up(made)
            self.current = made
        finally:  # close what only the former revision asked, or one that could not be built
            in_force = self.current.settings
            asked = [one.asks(name) for name, one in in_force.sources.items() if one.enabled]
            self.introspections.keep([one for one in asked if one is not None])
            self.tables.keep(in_force.tables)
            self.opa.keep(in_force.opa)
        self.keyring.reschedule(settings.keys.schedule())
        self.state.reconfigure(settings.state)
        self.memory.bound = settings.cache.memory  # a smaller one is met with the next write

    def warm_up(self, revision: Revision) -> None:
        """Fetch the keys that a revision's sources, clients and backends have at URLs, for WARM_UP seconds at most.

        To be called before a worker takes requests: a burst at a cold worker would be refused while it fetches them.
        """
        sources, clients = revision.settings.sources, revision.settings.clients
        issuers = [
            *(one.trusted(name) for name, one in sources.items() if one.enabled),
            *(one.trusted(name) for name, one in clients.items() if one.enabled and isinstance(one, AssertionClient)),
        ]
        keys = [self.issuers.keys(one) for one in issuers if one is not None and one.jwks_file is None]
        warm_up([one for one in (*keys, *revision.recipients.values()) if isinstance(one, RemoteSet)], time.monotonic)

    def build(self, settings: Settings) -> Revision:
        """Compile a whole revision; nothing is in force until it is assigned. Raises StartError."""
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
        """What answers questions about our own tokens."""
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
        """What proves our own tokens, wherever one is shown to us."""
        return OwnVerifier(settings.issuer, self.own_keys, _enabled(settings.sources), _enabled(settings.clients))

    def _world(self, settings: Settings, sources: Sources) -> World:
        """What callers' ways of proving themselves need."""
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
        """What sources are built with."""
        return Services(
            issuers=self.issuers,
            authorities=self.authorities,
            introspections=self.introspections,
            api_keys=self.state.keys,
            own=OwnTokens(self._own_verifier(settings), self.clock),
        )

    def _recipients(self, settings: Settings) -> dict[str, Recipient]:
        """The backends that tokens are encrypted for, by audience."""
        return {
            name: self.recipients.of(name, audience.encryption)
            for name, audience in settings.audiences.items()
            if audience.enabled and audience.encryption is not None
        }

    def _recipient_current(self, audience: str, thumbprint: str) -> bool:
        """Whether the key that a kept token is encrypted to is still in its backend's set."""
        recipient = self.current.recipients.get(audience)
        return recipient is not None and recipient.current(thumbprint)

    def _stamped(self, settings: Settings) -> dict[str, str]:
        """The fingerprint of each entry with a stamp of when it last changed.

        Without the stamp an entry that was disabled and enabled again would have its old fingerprint back, and with it
        the tokens that disabling it made void.
        """
        stamp = secrets.token_hex(8)
        known = self._stamps
        self._stamps = {
            name: known[name] if name in known and known[name][0] == found else (found, stamp)
            for name, found in settings.fingerprints().items()
        }
        return {name: found + since for name, (found, since) in self._stamps.items()}

    def readiness(self) -> Readiness:
        """Ready: a configuration, a usable key, revocations that are fresh enough, and not told to stop.

        An issuer that is down harms only its own tokens, and a key store that is down only workers that start, so they
        only stand under `degraded`.
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
        """What Prometheus is told about the keys, revocations, and revocation of certificates."""
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
    """Compile the rules of a configuration. Disabled audiences and sources are not there at all."""
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
