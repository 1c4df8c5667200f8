"""What is no fault but may well be a mistake: `sts check` prints it, and nothing is refused for it.

A check here is one like those of `checks`: it takes the parts of a configuration without faults and yields findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sts.clients.access_token import AccessTokenClient
from sts.credentials.kind import SourceSettings
from sts.settings.checks import ALL, Check, Parts
from sts.settings.faults import Finding
from sts.settings.sizes import estimate

BUFFER: Final = 4096
"""Bytes of one header buffer, as gateways have them by default (nginx: one memory page)."""
BESIDE: Final = 1024
"""Bytes of an answer's head beside the token (design §5.3)."""
_SHOWN: Final = 3


def token_sizes(parts: Parts) -> Iterator[Finding]:
    """A typical token is not refused for its size, and the largest one fits a gateway's header buffer."""
    for name, typical in estimate(parts).items():
        limit, path = parts.audiences[name].max_token_bytes, ("audiences", name, "max_token_bytes")
        if typical > limit:
            problem = f"a typical token has about {typical} bytes and would be refused, since {limit} are allowed"
            yield Finding(
                path, problem, "map fewer or shorter `claims`, or raise it together with the gateway's buffers"
            )
        elif limit > BUFFER - BESIDE:
            problem = (
                f"tokens of up to {limit} bytes do not fit a header buffer of 4 KB, which gateways have by default; "
                f"a typical one has about {typical}"
            )
            hint = "raise the gateway's buffers (nginx: `proxy_buffer_size` of the auth location), or write at most"
            yield Finding(path, problem, f"{hint} {BUFFER - BESIDE}")


def shared_subjects(parts: Parts) -> Iterator[Finding]:
    """Two sources without a namespace that reach one audience speak for the same subjects there (design §5.5)."""
    bare = {name: source for name, source in parts.sources.items() if source.enabled and source.namespace == ""}
    for name, source in bare.items():
        for other in [other for other in bare if other > name]:
            together = [one for one in parts.audiences if _reaches(source, one) and _reaches(bare[other], one)]
            if together:
                shown = ", ".join(together[:_SHOWN]) + (", …" if len(together) > _SHOWN else "")
                problem = f"no namespace tells its subjects from those of {other}, at {shown}"
                hint = "`alice` of one is `alice` of the other, whoever that is; write a `namespace` unless it is meant"
                yield Finding(("sources", name, "namespace"), problem, hint)


def unused_sources(parts: Parts) -> Iterator[Finding]:
    """From every source some client may hand credentials in, else all of them are refused (design §3)."""
    clients = [client for client in parts.clients.values() if client.enabled]
    listed = {name for client in clients for name in client.sources or (ALL,)}
    proofs = {client.source for client in clients if isinstance(client, AccessTokenClient)}
    for name, source in parts.sources.items():
        if clients and source.enabled and listed.isdisjoint({ALL, name}) and name not in proofs:
            problem = "no client lists it in `sources`: each of its credentials is refused (no_consent)"
            yield Finding(("sources", name), problem, f"add {name} to the `sources` of who may hand them in")


def scopeless_sources(parts: Parts) -> Iterator[Finding]:
    """A source that maps no scopes leads to a backend that has none, since scopes unknown are none (design §5.2)."""
    listed = {name for client in parts.clients.values() if client.enabled for name in client.sources or (ALL,)}
    for name, source in parts.sources.items():
        if not source.enabled or "scopes" in source.identity or listed.isdisjoint({ALL, name}):
            continue
        reached = [one for one, audience in parts.audiences.items() if audience.enabled and _reaches(source, one)]
        if reached and all(parts.audiences[one].scopes is not None for one in reached):
            shown = ", ".join(reached[:_SHOWN]) + (", …" if len(reached) > _SHOWN else "")
            problem = f"maps no `scopes`, and what it reaches ({shown}) has some: each is refused (insufficient_scope)"
            hint = "write where they stand, such as `claims.scope`, or what all of its credentials may do"
            yield Finding(("sources", name, "identity"), problem, hint)


def handed_on(parts: Parts) -> Iterator[Finding]:
    """What a client may present it may hand in, too."""
    for name, client in parts.clients.items():
        listed = client.sources or (ALL,)
        for index, source in enumerate(client.may_present):
            if ALL not in listed and source not in listed:
                problem = "is not one of the client's `sources`: what it hands on is refused (no_consent)"
                yield Finding(("clients", name, "may_present", index), problem, "list it there as well")


def unread_headers(parts: Parts) -> Iterator[Finding]:
    """The form of a header is for the door where clients send headers with certificates."""
    for name, client in parts.clients.items():
        if client.certificate_header is not None and client.profile is None:
            hint = "at /token a certificate is a `subject_token`, or comes from one of `proxies`"
            yield Finding(("clients", name, "certificate_header"), "is for forward-auth: `profile` is missing", hint)


def _reaches(source: SourceSettings, audience: str) -> bool:
    return source.audiences is None or not {ALL, audience}.isdisjoint(source.audiences)


CHECKS: Final[tuple[Check, ...]] = (
    *(handed_on, unread_headers, unused_sources, scopeless_sources, shared_subjects, token_sizes),
)
"""The checks of this module, in the order of the sections."""
