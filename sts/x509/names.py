"""The names in a certificate: its subject, its alternative names, and the limits on what a CA may certify."""

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

# SPIFFE-ID §2.1, §2.2: a lower-case trust domain and at least one segment; a bare domain does not name a workload.
_SPIFFE: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+")
_SPIFFE_SCHEME: Final = "spiffe:"
# Allowed after a prefix: plain segments, none empty. Parsers disagree on escapes, queries and user names.
_SEGMENTS: Final = re.compile(r"[A-Za-z0-9._~:@!$&'()*+,;=-]+(?:/[A-Za-z0-9._~:@!$&'()*+,;=-]+)*")
_PREFIX: Final = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://[a-z0-9.-]+(?::[0-9]+)?(?:/[A-Za-z0-9._~-]+)*/?|urn:[A-Za-z0-9._~:-]+:)"
)
_DOTS: Final = frozenset({".", ".."})
_PARTS: Final = {"cn": NameOID.COMMON_NAME, "o": NameOID.ORGANIZATION_NAME, "ou": NameOID.ORGANIZATIONAL_UNIT_NAME}


def check_prefix(prefix: str) -> str:
    """Check the form of a configured `san_prefix`. Raises ValueError; its message shows the right form."""
    if not _PREFIX.fullmatch(prefix) or not _DOTS.isdisjoint(prefix.split("/")):
        raise ValueError("a URI prefix has a scheme, an authority and optionally a path: spiffe://partners.example/")
    return prefix


def within(uri: str, prefix: str) -> bool:
    """Return whether `uri` is below `prefix`; the prefix must end at a boundary between segments.

    Rejects `spiffe://a.example.evil/x` for `spiffe://a.example`, and `https://a.example/b/../c` for
    `https://a.example/b/`.
    """
    start = prefix if prefix.endswith(("/", ":")) else prefix + "/"
    if not uri.startswith(start):
        return False
    rest = uri.removeprefix(start)
    return _SEGMENTS.fullmatch(rest) is not None and _DOTS.isdisjoint(rest.split("/"))


def check_names(leaf: x509.Certificate, prefix: str | None) -> None:
    """Check the alternative names of a leaf.

    A SPIFFE certificate has exactly one URI, a well-formed SPIFFE id with a path (X509-SVID §2, §4). With a `prefix`,
    the leaf needs at least one URI, and each URI must be below the prefix. Names of other kinds are not restricted.
    Raises MALFORMED, BAD_TYPE or REQUIREMENT_FAILED.
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
        raise Refusal(REQUIREMENT_FAILED, why="a URI name is not below san_prefix", uris=len(uris))


def speaks_for(leaf: x509.Certificate, prefix: str) -> bool:
    """Return whether a leaf has URI names and all of them are below `prefix`."""
    uris = _uris(leaf)
    return bool(uris) and all(within(uri, prefix) for uri in uris)


def attributes(leaf: x509.Certificate) -> Mapping[str, Any]:
    """Return what a mapping can read of a certificate as `certificate`; JSON values.

    `subject` and `issuer` are strings in the form of RFC 4514; `cn`, `o`, `ou` list the subject's values unchanged;
    `serial` is hex, `fingerprint` the hex SHA-256 of the DER; `not_before` and `not_after` are Unix seconds. `san` has
    the lists `uris`, `dns`, `emails`, `ips`. `uri`, `dns` and `email` exist only if the certificate has exactly one
    name of the kind: a choice among several would let the holder choose an identity. Raises MALFORMED for more than
    MAX_NAMES.
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
"""All keys that `certificate` may have."""


def _san(leaf: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _uris(leaf: x509.Certificate) -> list[str]:
    san = _san(leaf)
    return [] if san is None else san.get_values_for_type(x509.UniformResourceIdentifier)
