"""Source type `client_certificate`: an X.509 certificate whose holder proved its private key in a TLS handshake.

A certificate is not secret: every peer to which it was presented has a copy. Therefore it is accepted only if the
handshake was with us, or with a client or proxy that may forward certificates. The `Credential` states which it was.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, model_validator

from sts.credentials.kind import Clash, Services, SourceSettings
from sts.errors import BINDING_FAILED, MALFORMED, TOO_LARGE, UNKNOWN_ISSUER, Refusal, StartError
from sts.expressions import ExpressionError, compile_rule
from sts.model import NOT_APPLICABLE, TYPE_CLIENT_CERTIFICATE, Credential, Limits, Presented, Principal
from sts.options import ConfigFile, KeptConfigFile, KeptFile, file_faults
from sts.x509.authority import Authority, AuthoritySettings
from sts.x509.chain import MAX_CERTIFICATE_BYTES, MAX_CERTIFICATES, UnverifiedChain, read_chain
from sts.x509.crl import CrlFile
from sts.x509.names import ATTRIBUTES, attributes, check_prefix, speaks_for, within
from sts.x509.revocation import Mode
from sts.x509.roots import Roots

KIND: Final = "client_certificate"

_NAMES: Final = frozenset({"certificate", "certificate.uri", "certificate.san", "certificate.san.uris"})
"""The paths with which a rule reads URI names."""
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_MAX_CHARS: Final = MAX_CERTIFICATES * (MAX_CERTIFICATE_BYTES * 4 // 3 + 4)


class CertificateSourceSettings(SourceSettings):
    """A CA that issues client certificates."""

    variable: ClassVar[str] = "certificate"
    attributes: ClassVar[frozenset[str] | None] = ATTRIBUTES
    credential_types: ClassVar[frozenset[str]] = frozenset({TYPE_CLIENT_CERTIFICATE})
    # Clients may staple an answer to their certificate (RFC 8446 §4.4.2.1), but Python's ssl does not support that.
    not_yet_values: ClassVar[Mapping[str, frozenset[str]]] = {"ocsp": frozenset({"stapled"})}

    type: Literal["client_certificate"]
    """A client certificate (RFC 5280): from the caller's own connection, or forwarded by a client that may do so."""
    ca_file: KeptConfigFile
    """PEM certificates of the CAs that are trusted for this source only."""
    san_prefix: Annotated[str, AfterValidator(check_prefix)] | None = None
    """The names that this CA may certify: every URI name of a certificate begins with it, as in
    `spiffe://partners.example/`. Required if a rule reads `certificate.uri` or `certificate.san`."""
    crl_file: ConfigFile | None = None
    """The CA's revocation lists, PEM or DER, one for each issuing CA; the file is checked every five seconds."""
    revocation: Mode | None = None
    """`require`: a certificate without a valid revocation status is refused with 503. `soft`: only the status
    "revoked" is refused. `off`: no check. Default: `require` with a `crl_file` or `ocsp`, else `off`."""
    ocsp: Literal["off", "fetch"] = "off"
    """`fetch`: query the responder that a certificate names, in the background; https, or http to a literal loopback
    address. Until the answer arrives, the status is missing."""

    @model_validator(mode="after")
    def _a_register(self) -> Self:
        if self.mode == "require" and self.crl_file is None and self.ocsp == "off":
            raise ValueError("revocation: require needs a crl_file or ocsp: fetch, else every certificate is refused")
        return self

    @property
    def mode(self) -> Mode:
        """`revocation`, with its default."""
        if self.revocation is not None:
            return self.revocation
        return "off" if self.crl_file is None and self.ocsp == "off" else "require"

    def authority(self, name: str) -> AuthoritySettings:
        """Return the settings that determine which certificates are trusted; `name` is the name of the source."""
        return AuthoritySettings(name, self.ca_file, self.san_prefix, self.crl_file, self.mode, self.ocsp)

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the description of each fault in the files that these settings name."""
        yield from file_faults("ca_file", self.ca_file, Roots)
        if self.crl_file is not None and (trouble := CrlFile(self.crl_file).trouble):
            yield "crl_file", f"the CRL file {self.crl_file} cannot be used: {trouble}"

    def faults(self) -> Iterator[tuple[str, str, str]]:
        """Require `san_prefix` if a rule reads URI names: it limits the names that the CA may certify (XC-07)."""
        if self.san_prefix is None and self._reads_names():
            hint = "such as spiffe://partners.example/; without it, this CA could certify any name"
            yield "san_prefix", "must be written, since a rule reads URI names", hint

    def _reads_names(self) -> bool:
        rules = [*self.identity.values(), *([self.require] if self.require else [])]
        try:
            read = [path for rule in rules for path in compile_rule(rule, frozenset({self.variable})).reads]
        except ExpressionError:
            return False  # reported with the rules
        return not _NAMES.isdisjoint(read)

    def clash(self, other: Self) -> Clash | None:
        """Check that each certificate belongs to one source: sources with one CA must have separate `san_prefix`."""
        if not _overlap(self.san_prefix, other.san_prefix):
            return None
        try:
            if Roots(self.ca_file).names.isdisjoint(Roots(other.ca_file).names):
                return None
        except StartError:
            return None  # reported with the files
        problem = "{other} trusts the same CA: a certificate could belong to either"
        hint = "give both a `san_prefix`, neither within the other, or make them one source"
        return Clash("san_prefix", problem, hint)

    def trust_anchor(self) -> KeptFile:
        """Return the CAs that are trusted for this source."""
        return self.ca_file

    def build(self, name: str, services: Services) -> CertificateSource:
        """Return the source `name`; the known revocation status survives a reload."""
        return CertificateSource(name, self, services.authorities.authority(self.authority(name)))

    @classmethod
    def reader(cls, sources: Iterable[Any], elsewhere: Iterable[str], services: Services) -> CertificateKind:  # noqa: ARG003
        """Return the kind over these `CertificateSource`s."""
        return CertificateKind(sources)


def _overlap(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return True
    return one.rstrip("/:") == other.rstrip("/:") or within(one.rstrip("/:"), other) or within(other.rstrip("/:"), one)


class CertificateSource:
    """A `Source`: proves the certificates of one CA."""

    limits = Limits(audiences=frozenset())

    def __init__(self, name: str, settings: CertificateSourceSettings, authority: Authority) -> None:
        self.name = name
        self.san_prefix = settings.san_prefix
        self.authority = authority

    @property
    def trouble(self) -> str:
        """Why the CA file or the revocation data cannot be used, "" if they can; for operators."""
        return self.authority.trouble

    def prove(self, presented: Presented, now: float) -> Principal:
        """Verify the path from the certificate to the CA at `now`, and return the certificate's facts. Never waits."""
        generation = self.authority.generation  # before the proof: a change during the proof invalidates the result
        proven = self.authority.prove(presented.unverified, now)
        found = attributes(proven.path.leaf)
        return Principal(
            kind=KIND,
            source=self.name,
            issuer=NOT_APPLICABLE,
            subject=found.get("uri", found["subject"]),
            audience=NOT_APPLICABLE,
            reach=NOT_APPLICABLE,
            expires_at=proven.path.not_after,
            not_before=proven.path.not_before,
            issued_at=NOT_APPLICABLE,
            # The time of the leaf. The path's is the time of its youngest certificate: with a new intermediate
            # certificate an old leaf would seem younger than its revocation.
            since=found["not_before"],
            auth_time=NOT_APPLICABLE,
            fresh_until=proven.fresh_until,
            confirmation=NOT_APPLICABLE,  # the TLS handshake proves the key: see Credential.held
            act=NOT_APPLICABLE,
            may_act=NOT_APPLICABLE,
            acr=NOT_APPLICABLE,
            amr=NOT_APPLICABLE,
            jti=NOT_APPLICABLE,
            proof_key=generation,
            attributes=found,
        )

    def at_hand(self, presented: Presented, now: float) -> bool:  # noqa: ARG002 - the signature of Source
        """Return False: the validation of a certificate path takes long."""
        return False

    def key_current(self, proof_key: str) -> bool:
        """Return whether the revocation data are unchanged since the proof."""
        return proof_key == self.authority.generation


class CertificateKind:
    """A `Kind` over all enabled sources of type `client_certificate`."""

    token_types = CertificateSourceSettings.credential_types

    def __init__(self, sources: Iterable[CertificateSource]) -> None:
        self._by_anchor: dict[bytes, list[CertificateSource]] = {}
        for source in sources:
            for name in source.authority.names:
                self._by_anchor.setdefault(name, []).append(source)

    def recognise(self, credential: Credential) -> Presented:
        """Find the source by the CA that the chain names as its issuer; this proves nothing.

        Raises BINDING_FAILED if the presenter has not proven the certificate's key and may not forward certificates;
        also TOO_LARGE, MALFORMED or UNKNOWN_ISSUER.
        """
        chain = read_chain(decode_chain(credential.value))
        source = self._source_of(chain)
        if not credential.held and source.name not in credential.handed_on:
            raise Refusal(BINDING_FAILED, why="not the connection's certificate, nor from one that may hand it on")
        return Presented(KIND, source.name, credential.token_type, chain)

    def _source_of(self, chain: UnverifiedChain) -> CertificateSource:
        """Find the source by the first issuer name that is a trust anchor's; sources with one CA differ by prefix."""
        for issuer in chain.issuers:
            sources = self._by_anchor.get(issuer)
            if sources is None:
                continue
            for source in sources:
                if len(sources) == 1 or (source.san_prefix and speaks_for(chain.leaf, source.san_prefix)):
                    return source
        raise Refusal(UNKNOWN_ISSUER, why="the chain leads to no configured CA")


def encode_chain(ders: Iterable[bytes]) -> str:
    """Return certificates as the text of a credential: base64url DER, leaf first, separated by dots."""
    return ".".join(base64.urlsafe_b64encode(der).rstrip(b"=").decode() for der in ders)


def decode_chain(text: str) -> tuple[bytes, ...]:
    """Return the DER certificates in the text of a credential. Raises TOO_LARGE or MALFORMED."""
    if len(text) > _MAX_CHARS:
        raise Refusal(TOO_LARGE, why="the certificates", max_chars=_MAX_CHARS)
    if not _TEXT.fullmatch(text):
        raise Refusal(MALFORMED, why="not base64url DER certificates separated by dots")
    try:
        return tuple(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split("."))
    except ValueError:
        raise Refusal(MALFORMED, why="not base64url DER certificates separated by dots") from None
