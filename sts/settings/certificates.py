"""What only the whole configuration can tell of certificates: who may hand them on, and what each CA may speak for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sts.credentials.certificate import CertificateSource
from sts.errors import StartError
from sts.expressions import ExpressionError, compile_rule
from sts.settings.checks import Check, Parts
from sts.settings.faults import Finding, near, quote
from sts.trust.names import within
from sts.trust.roots import Roots

_NAMES: Final = frozenset({"certificate", "certificate.uri", "certificate.san", "certificate.san.uris"})
"""What a rule reads where it reads URI names."""


def presenters(parts: Parts) -> Iterator[Finding]:
    """`may_present` names certificate sources; at forward-auth `certificate_header` says how they come."""
    for name, client in parts.clients.items():
        for index, source in enumerate(client.may_present):
            path = ("clients", name, "may_present", index)
            written = parts.entries("sources").get(source)
            if written is None:
                yield Finding(path, f"there is no source {quote(source)}", near(source, parts.entries("sources")))
            elif written.get("type") != "client_certificate":
                yield Finding(path, f"{source} is no source of certificates", "its `type` is client_certificate")
        if client.profile is not None and client.may_present and client.certificate_header is None:
            hint = "in which form its requests bring certificates: client_cert, xfcc or nginx"
            yield Finding(("clients", name, "certificate_header"), "must be written beside `may_present`", hint)


def bounds(parts: Parts) -> Iterator[Finding]:
    """A CA whose URI names are read says which of them are its own (XC-07)."""
    for name, source in parts.sources.items():
        if isinstance(source, CertificateSource) and source.san_prefix is None and _reads_names(source):
            hint = "such as spiffe://partners.example/; else this CA could speak for anybody's names"
            yield Finding(("sources", name, "san_prefix"), "must be written, since a rule reads URI names", hint)


def _reads_names(source: CertificateSource) -> bool:
    rules = [*source.identity.values(), *([source.require] if source.require else [])]
    try:
        read = [path for rule in rules for path in compile_rule(rule, frozenset({source.variable})).reads]
    except ExpressionError:
        return False  # told with the rules
    return not _NAMES.isdisjoint(read)


def rivals(parts: Parts) -> Iterator[Finding]:
    """Each certificate is one source's: those with one CA divide its names between them."""
    seen: list[tuple[str, CertificateSource, frozenset[bytes]]] = []
    for name, source in parts.sources.items():
        if not isinstance(source, CertificateSource):
            continue
        try:
            names = Roots(source.ca_file).names
        except StartError:
            continue  # told with the files
        for other, theirs, their_names in seen:
            if not names.isdisjoint(their_names) and _overlap(source.san_prefix, theirs.san_prefix):
                where = parts.place(("sources", other))
                problem = f"{other} ({where}) believes the same CA: a certificate could be of either"
                hint = "give both a `san_prefix` of which none lies within the other, or make them one source"
                yield Finding(("sources", name, "san_prefix"), problem, hint)
        seen.append((name, source, names))


def _overlap(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return True
    return one.rstrip("/:") == other.rstrip("/:") or within(one.rstrip("/:"), other) or within(other.rstrip("/:"), one)


CHECKS: Final[tuple[Check, ...]] = (presenters, bounds, rivals)
"""The checks of this module."""
