"""Clients that authenticate with a certificate: mutual TLS with us, or with a trusted proxy (RFC 8705 §2)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal, Self

from cryptography import x509
from cryptography.x509.oid import NameOID
from pydantic import AfterValidator, Field, model_validator

from sts.clients.client import ClientSettings
from sts.clients.proof import MAX_MEMORY, no_proof, unproven
from sts.errors import Refusal
from sts.model import Caller, Evidence
from sts.options import KeptConfigFile, KeptFile, file_faults
from sts.x509.chain import read_chain
from sts.x509.names import check_names
from sts.x509.roots import Roots

_PIN: Final = re.compile(r"sha256:[0-9a-f]{64}")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]{1,2048}")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})")
# RFC 4514 §3 defines no names for these attributes. The keys are the names that openssl prints, which people copy.
_AS_OPENSSL: Final = {
    "emailAddress": NameOID.EMAIL_ADDRESS,
    "serialNumber": NameOID.SERIAL_NUMBER,
    "title": NameOID.TITLE,
    "GN": NameOID.GIVEN_NAME,
    "SN": NameOID.SURNAME,
    "dnQualifier": NameOID.DN_QUALIFIER,
    "street": NameOID.STREET_ADDRESS,
    "postalCode": NameOID.POSTAL_CODE,
    "initials": NameOID.INITIALS,
    "pseudonym": NameOID.PSEUDONYM,
    "generationQualifier": NameOID.GENERATION_QUALIFIER,
    "businessCategory": NameOID.BUSINESS_CATEGORY,
    "organizationIdentifier": NameOID.ORGANIZATION_IDENTIFIER,
    "jurisdictionL": NameOID.JURISDICTION_LOCALITY_NAME,
    "jurisdictionST": NameOID.JURISDICTION_STATE_OR_PROVINCE_NAME,
    "jurisdictionC": NameOID.JURISDICTION_COUNTRY_NAME,
}
_MATCHERS: Final = ("san_uri", "san_dns", "subject_dn")


def _check_pin(value: str) -> str:
    if not _PIN.fullmatch(value):
        raise ValueError('a certificate is named by its hash, "sha256:" and 64 hex digits')
    return value


def _check_uri(value: str) -> str:
    if not _URI.fullmatch(value):
        raise ValueError("not a URI such as spiffe://example.internal/gateway")
    return value


def _check_host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError("not a host name; a wildcard identifies no client")
    return value


def _check_name(value: str) -> str:
    try:
        _name(value)
    except ValueError:
        raise ValueError("not a distinguished name as RFC 4514 writes it, such as CN=gateway,O=Example") from None
    return value


def _name(written: str) -> x509.Name:
    name = x509.Name.from_rfc4514_string(written, _AS_OPENSSL)
    if not list(name):
        raise ValueError("an empty name")
    return name


class TlsClient(ClientSettings):
    """A client with a certificate: either of its CA with one name, or one that is listed by its hash."""

    auth: Literal["tls"]
    """Mutual TLS with us (`listen.tls`) or, at `/token`, with one of `proxies`; `client_id` names the client."""
    ca_file: KeptConfigFile | None = None
    """The CA that issues its certificate (PEM), with exactly one of `san_uri`, `san_dns`, `subject_dn`."""
    san_uri: Annotated[str, AfterValidator(_check_uri)] | None = None
    """The only URI among the certificate's alternative names, such as a SPIFFE id."""
    san_dns: Annotated[str, AfterValidator(_check_host)] | None = None
    """A host name among the certificate's alternative names."""
    subject_dn: Annotated[str, AfterValidator(_check_name)] | None = None
    """The certificate's subject in the format of RFC 4514: `CN=gateway,O=Example`; every part, in the same order.
    `openssl x509 -noout -subject -nameopt RFC2253` prints it."""
    certificates: Annotated[tuple[Annotated[str, AfterValidator(_check_pin)], ...], Field(min_length=1)] | None = None
    """Instead of a CA: `sha256:` and the hex SHA-256 of each accepted certificate (DER)."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        matchers = [name for name in _MATCHERS if getattr(self, name) is not None]
        if (self.ca_file is None) == (self.certificates is None):
            raise ValueError("write either ca_file with san_uri, san_dns or subject_dn, or certificates")
        if self.ca_file is not None and len(matchers) != 1:
            raise ValueError("write exactly one of san_uri, san_dns and subject_dn: the client's certificate name")
        if self.certificates is not None and matchers:
            raise ValueError(f"certificates names the certificates themselves: leave {matchers[0]} out")
        return self

    @property
    def handshake_ca(self) -> KeptFile | None:
        """The CA of the certificate that the client presents, None for listed certificates."""
        return self.ca_file

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the description of each fault in the files that these settings name."""
        yield from file_faults("ca_file", self.ca_file, Roots)


class TlsProof:
    """The `Proof` of a client by certificate. Raises StartError if its CA file cannot be used.

    A validated chain stays valid until it expires, so the result is cached.
    """

    evidence: Evidence = "connection"

    def __init__(self, settings: TlsClient) -> None:
        self._roots = None if settings.ca_file is None else Roots(settings.ca_file)
        self._pins = frozenset(bytes.fromhex(pin[7:]) for pin in settings.certificates or ())
        self._uri = settings.san_uri
        self._host = None if settings.san_dns is None else settings.san_dns.lower()
        self._subject = None if settings.subject_dn is None else _name(settings.subject_dn)
        self._good: dict[tuple[bytes, ...], tuple[float, float]] = {}

    def prove(self, caller: Caller, now: float) -> None:
        """Verify the certificate (see `Proof`): who its holder is. TLS has proven that the caller holds its key."""
        chain = caller.peer.certificates
        if not chain:
            raise unproven("no certificate")
        begins, ends = self._good.get(chain, (0.0, 0.0))
        if not begins <= now <= ends:
            try:
                begins, ends = self._judge(chain, now)
            except Refusal as refusal:
                raise no_proof(refusal) from None
            if len(self._good) >= MAX_MEMORY:
                self._good.clear()
            self._good[chain] = begins, ends

    def _judge(self, chain: tuple[bytes, ...], now: float) -> tuple[float, float]:
        """Return from when until when the certificate proves this client. Raises Refusal if `now` is outside."""
        if self._roots is None:
            return self._judge_pinned(chain[0], now)
        path = self._roots.validate(read_chain(chain), now)
        check_names(path.leaf, None)
        if not self._is_named(path.leaf):
            raise unproven("the certificate's name is not the client's")
        return path.not_before, path.not_after

    def _judge_pinned(self, der: bytes, now: float) -> tuple[float, float]:
        """Compare the certificate with the listed ones, without a chain (RFC 8705 §2.2)."""
        if hashlib.sha256(der).digest() not in self._pins:
            raise unproven("the certificate is none of the client's")
        leaf = read_chain((der,)).leaf
        begins, ends = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        if not begins <= now <= ends:
            raise unproven("the certificate has expired, or is not valid yet")
        return begins, ends

    def _is_named(self, leaf: x509.Certificate) -> bool:
        if self._subject is not None:
            return leaf.subject == self._subject
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return False
        if self._uri is not None:  # exactly one: with several, the holder could choose its identity
            return names.get_values_for_type(x509.UniformResourceIdentifier) == [self._uri]
        return self._host in [host.lower() for host in names.get_values_for_type(x509.DNSName)]
