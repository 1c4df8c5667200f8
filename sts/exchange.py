"""The processing of a request, the same for both doors (endpoints) and for every kind of credential.

A door parses the request and formats the response; a kind of credential extracts and proves. Every check that all of
them need is made here, once, so that no new door or kind can omit it.

The processing stops (`yield`) before work that may wait or compute for long: a source's keys, the rows of a table, OPA,
encryption, a caller that authenticates with a signed token. The event loop runs the steps up to the first stop, and a
thread runs the rest. If all needed data are in memory, there is no stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sts.audit.log import AuditLog, Trail
from sts.cache.refusals import Grounds, Refusals
from sts.cache.tokens import Causes, TokenCache, cache_key
from sts.clients.registry import Clients
from sts.credentials.kind import Sources
from sts.errors import INTERNAL_ERROR, Refusal
from sts.lookups.rows import Rows, Table
from sts.mint.minter import Minter
from sts.model import Ask, Client, Credential, Door, Incoming, Issued, Presented, Reply, Steps, taken
from sts.policy.consent import Target
from sts.policy.decide import Policy
from sts.resilience.bulkhead import on_behalf_of
from sts.state.revocations import Revocations
from sts.telemetry import log


@dataclass(frozen=True, slots=True)
class Exchange:
    """One revision of the configuration. Requests in progress finish with the revision with which they began."""

    revision: str
    clients: Clients
    sources: Sources
    policy: Policy
    tables: Mapping[str, Table]
    minter: Minter
    tokens: TokenCache
    refusals: Refusals
    revocations: Revocations
    audit: AuditLog
    clock: Callable[[], float]

    def answer(self, door: Door, incoming: Incoming) -> Reply:
        """Return the reply to one request at `door`; waits if necessary. Never raises."""
        return taken(self.steps(door, incoming))

    def steps(self, door: Door, incoming: Incoming) -> Steps[Reply]:
        """Process one request at `door` in steps. No step raises; every reply causes exactly one audit event."""
        trail = self.audit.begin(door.name, incoming.request_id, self.revision, incoming.correlation_id)
        try:
            caller = door.caller(incoming)
            trail.called(caller, known=self.clients.knows(caller))
            if self.clients.may_wait(caller):
                yield
            client = self.clients.prove(caller)
            ask = door.ask(incoming, caller, client)
            trail.asked(ask)
            issued = None if ask.credential is None else (yield from self.exchange(client, ask, ask.credential, trail))
            reply = door.allowed(incoming, ask, issued, self.clock())
        except Refusal as refusal:
            trail.refused(refusal.reason, refusal.facts)
            reply = door.refused(incoming, refusal.reason, refusal.facts)
        except Exception as fault:  # noqa: BLE001 - fails closed: a bug must neither allow a request nor reveal itself
            log.error("fault", request_id=incoming.request_id, fault=type(fault).__name__, at=log.where(fault))
            trail.refused(INTERNAL_ERROR, {})
            reply = door.refused(incoming, INTERNAL_ERROR, {})
        self.audit.record(trail)
        return reply

    def exchange(self, client: Client, ask: Ask, credential: Credential, trail: Trail) -> Steps[Issued]:
        """Exchange `credential` for the token that `client` requests. Raises Refusal."""
        target = self.policy.target(client, ask)
        trail.aimed([audience.name for audience in target.audiences])
        trail.brought(credential)
        presented = [self.sources.present(one) for one in (credential, *([ask.actor] if ask.actor else []))]
        trail.presented(presented[0])
        self.policy.consent(client, presented, target)
        parts = self.policy.parts(client, presented, target, ask)
        key = cache_key(self.tokens.secret, client, ask, credential, self.policy.facts_read(target, ask))
        issued = self.tokens.find(key, parts, self.sources, self.clock())
        if issued is None:
            revision = self.revision if self.policy.lasts(presented, target, ask) else None
            with self.refusals.remembered(key, revision, self.sources, self.clock(), trail) as grounds:
                waits = self.tokens.under_way(key, parts) or not self.at_hand(presented, target, ask)
                if waits:
                    yield
                with on_behalf_of(client.id, "" if ask.request is None else ask.request.ip):
                    mint = partial(self.mint, client, ask, presented, target, trail, grounds)
                    issued = self.tokens.fill(key, parts, self.sources, self.clock, mint, waits=waits)
        trail.issued(issued)
        return issued

    def at_hand(self, presented: Sequence[Presented], target: Target, ask: Ask) -> bool:
        """Return whether `mint` would neither wait nor compute for long."""
        now = self.clock()
        proves = all(self.sources.at_hand(one, now) for one in presented)
        return proves and self.policy.at_hand(presented, target, ask, self.tables)

    def mint(
        self, client: Client, ask: Ask, presented: Sequence[Presented], target: Target, trail: Trail, grounds: Grounds
    ) -> tuple[Issued, Causes]:
        """Prove the credentials of the subject and the actor, judge them, decide, and mint the token."""
        proven = [(one, self.sources.prove(one, self.clock())) for one in presented]
        grounds.proven((one, found, self.sources.limits(one)) for one, found in proven)
        now = self.clock()  # the proof may have waited
        admitted, *actor = [
            self.policy.admit(found, self.sources.limits(one), target, now, ask.certificate) for one, found in proven
        ]
        rows = Rows(self.tables, self.clock)
        identities = [rows.given(partial(self.policy.identify, one, rows)) for one in (admitted, *actor)]
        identity = identities[0]
        trail.identified(identity.subject)
        if actor:
            admitted = self.policy.delegate(client, admitted, actor[0], identities[1])
        revocable = self.revocations.gather(client, ask, [found for _, found in proven], identities, now)
        grounds.revocable = self.revocations.kept(revocable)
        self.revocations.check(revocable, self.clock())
        grant = rows.given(lambda: self.policy.decide(client, identity, admitted, target, ask, self.clock(), rows))
        grant = self.policy.narrow(grant, client, identity, admitted, target, ask, self.clock())
        issued = self.minter.mint(grant, self.clock)
        revocable = self.revocations.minted(revocable, issued)
        self.revocations.check(revocable, self.clock())  # check again: rows, OPA and keys may take long
        return issued, Causes.of(proven, grant, issued, self.revocations.kept(revocable, issued.token))
