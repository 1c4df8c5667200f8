"""Who a certificate says its holder is: its subject and its alternative names, and what a CA may speak for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from sts.errors import MALFORMED, REQUIREMENT_FAILED, Refusal
from sts.x509.leaf import check_svid

MAX_NAMES: Final = 50
MAX_SPIFFE_BYTES: Final = 2048
"""SPIFFE-ID §2.3."""

# SPIFFE-ID §2.1, §2.2: a lower-case trust domain and at least one segment, since a bare domain names no workload.
_SPIFFE: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+")
_SPIFFE_SCHEME: Final = "spiffe:"
# What may follow a prefix: plain segments, none empty. Escapes, queries and user names are read differently by others.
_SEGMENTS: Final = re.compile(r"[A-Za-z0-9._~:@!$&'()*+,;=-]+(?:/[A-Za-z0-9._~:@!$&'()*+,;=-]+)*")
_PREFIX: Final = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://[a-z0-9.-]+(?::[0-9]+)?(?:/[A-Za-z0-9._~-]+)*/?|urn:[A-Za-z0-9._~:-]+:)"
)
_DOTS: Final = frozenset({".", ".."})
_PARTS: Final = {"cn": NameOID.COMMON_NAME, "o": NameOID.ORGANIZATION_NAME, "ou": NameOID.ORGANIZATIONAL_UNIT_NAME}


def check_prefix(prefix: str) -> str:
    """Check that a configured `san_prefix` is one. Raises ValueError with a sentence that says what would be right."""
    if not _PREFIX.fullmatch(prefix) or not _DOTS.isdisjoint(prefix.split("/")):
        raise ValueError("a prefix of URIs is a scheme, an authority and perhaps a path: spiffe://partners.example/")
    return prefix


def within(uri: str, prefix: str) -> bool:
    """Whether `uri` lies below `prefix`, which ends where a part of the URI ends.

    `spiffe://a.example` does not hold `spiffe://a.example.evil/x`, nor `https://a.example/b/` the path `/b/../c`.
    """
    start = prefix if prefix.endswith(("/", ":")) else prefix + "/"
    if not uri.startswith(start):
        return False
    rest = uri.removeprefix(start)
    return _SEGMENTS.fullmatch(rest) is not None and _DOTS.isdisjoint(rest.split("/"))


def check_names(leaf: x509.Certificate, prefix: str | None) -> None:
    """Judge the alternative names of a leaf.

    A SPIFFE certificate has exactly one URI, a well-formed SPIFFE id with a path (X509-SVID §2, §4). With a `prefix`
    there is at least one URI, and each lies within it. Raises MALFORMED, BAD_TYPE or REQUIREMENT_FAILED; the names of
    other kinds are bounded by nobody.
    """
    uris = _uris(leaf)
    if any(uri.lower().startswith(_SPIFFE_SCHEME) for uri in uris):
        if len(uris) > 1:
            raise Refusal(MALFORMED, why="a SPIFFE certificate has exactly one URI name", uris=len(uris))
        if (
            len(uris[0]) > MAX_SPIFFE_BYTES
            or not _SPIFFE.fullmatch(uris[0])
            or not _DOTS.isdisjoint(uris[0].split("/"))
        ):
            raise Refusal(MALFORMED, why="not a well-formed SPIFFE id")
        check_svid(leaf)
    if prefix is not None and not speaks_for(leaf, prefix):
        raise Refusal(REQUIREMENT_FAILED, why="URI names that are not all below san_prefix", uris=len(uris))


def speaks_for(leaf: x509.Certificate, prefix: str) -> bool:
    """Whether a leaf has URI names and all of them lie within `prefix`."""
    uris = _uris(leaf)
    return bool(uris) and all(within(uri, prefix) for uri in uris)


def attributes(leaf: x509.Certificate) -> Mapping[str, Any]:
    """What a mapping may read of a certificate as `certificate`; JSON values.

    `subject` and `issuer` are written by us as RFC 4514 says; `cn`, `o`, `ou` list the subject's parts as they stand;
    `serial` is hex, `fingerprint` the hex SHA-256 of the DER; `not_before` and `not_after` Unix seconds. `san` has the
    lists `uris`, `dns`, `emails`, `ips`; `uri`, `dns` and `email` exist only where there is exactly one of the kind,
    since picking one among several would let its holder choose who to be. Raises MALFORMED for more than MAX_NAMES.
    """
    san = _san(leaf)
    lists: dict[str, list[str]] = {"uris": [], "dns": [], "emails": [], "ips": []}
    if san is not None:
        if len(san) > MAX_NAMES:
            raise Refusal(MALFORMED, why="too many alternative names", max_names=MAX_NAMES)
        lists = {
            "uris": san.get_values_for_type(x509.UniformResourceIdentifier),
            "dns": san.get_values_for_type(x509.DNSName),
            "emails": san.get_values_for_type(x509.RFC822Name),
            "ips": [str(address) for address in san.get_values_for_type(x509.IPAddress)],
        }
    found: dict[str, Any] = {
        "subject": leaf.subject.rfc4514_string(),
        "issuer": leaf.issuer.rfc4514_string(),
        "serial": format(leaf.serial_number, "x"),
        "fingerprint": leaf.fingerprint(hashes.SHA256()).hex(),
        "not_before": int(leaf.not_valid_before_utc.timestamp()),
        "not_after": int(leaf.not_valid_after_utc.timestamp()),
        "san": lists,
    }
    for name, oid in _PARTS.items():
        found[name] = [str(part.value) for part in leaf.subject.get_attributes_for_oid(oid)]
    for name, kind in (("uri", "uris"), ("dns", "dns"), ("email", "emails")):
        if len(lists[kind]) == 1:
            found[name] = lists[kind][0]
    return found


ATTRIBUTES: Final = frozenset(
    {"subject", "issuer", "serial", "fingerprint", "not_before", "not_after", "san", "cn", "o", "ou"}
    | {"uri", "dns", "email"}
)
"""All that `certificate` may hold."""


def _san(leaf: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _uris(leaf: x509.Certificate) -> list[str]:
    san = _san(leaf)
    return [] if san is None else san.get_values_for_type(x509.UniformResourceIdentifier)
