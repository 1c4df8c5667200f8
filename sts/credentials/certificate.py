"""Source type `client_certificate`: an X.509 certificate whose key its holder proved to have in a TLS handshake.

A certificate is no secret: everybody who was ever shown it has it. So it counts only where the handshake was with us,
or with a client or a proxy that may hand certificates on; which of them it was, the door says in the `Credential`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, model_validator

from sts.credentials.kind import SourceSettings
from sts.errors import BINDING_FAILED, MALFORMED, TOO_LARGE, UNKNOWN_ISSUER, Refusal
from sts.model import NOT_APPLICABLE, TYPE_CLIENT_CERTIFICATE, Credential, Limits, Presented, Principal
from sts.options import ConfigFile, KeptConfigFile, file_faults
from sts.x509.authority import Authority, AuthoritySettings
from sts.x509.chain import MAX_CERTIFICATE_BYTES, MAX_CERTIFICATES, UnverifiedChain, read_chain
from sts.x509.crl import CrlFile
from sts.x509.names import ATTRIBUTES, attributes, check_prefix, speaks_for
from sts.x509.revocation import Mode
from sts.x509.roots import Roots

KIND: Final = "client_certificate"

_TEXT: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_MAX_CHARS: Final = MAX_CERTIFICATES * (MAX_CERTIFICATE_BYTES * 4 // 3 + 4)


class CertificateSourceSettings(SourceSettings):
    """A CA whose certificates are credentials."""

    variable: ClassVar[str] = "certificate"
    attributes: ClassVar[frozenset[str] | None] = ATTRIBUTES

    type: Literal["client_certificate"]
    """A client certificate (RFC 5280): of the caller's own connection, or handed on by who may."""
    ca_file: KeptConfigFile
    """PEM certificates of the CAs that are believed here, and nowhere else."""
    san_prefix: Annotated[str, AfterValidator(check_prefix)] | None = None
    """What this CA may speak for: every URI name of a certificate lies below it, as in `spiffe://partners.example/`.
    Must be written where a rule reads `certificate.uri` or `certificate.san`."""
    crl_file: ConfigFile | None = None
    """The CA's revocation lists, PEM or DER, one for each issuing CA; looked at every five seconds."""
    revocation: Mode | None = None
    """`require`: a certificate of which nobody says that it still holds is answered with 503; `soft`: only a word of
    "revoked" refuses; `off`. Default: `require` with a `crl_file` or `ocsp`, else `off`."""
    ocsp: Literal["off", "fetch"] = "off"
    """`fetch`: ask the responder that a certificate names, in the background; https, or http to a literal loopback
    address. The first request meanwhile is answered as for a word that is missing."""

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

    def trusted(self, name: str) -> AuthoritySettings:
        """What decides about this source's certificates; `name` is the source's."""
        return AuthoritySettings(name, self.ca_file, self.san_prefix, self.crl_file, self.mode, self.ocsp)

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """As SourceSettings says."""
        yield from file_faults("ca_file", self.ca_file, Roots)
        if self.crl_file is not None and (trouble := CrlFile(self.crl_file).trouble):
            yield "crl_file", f"the CRL file {self.crl_file} cannot be used: {trouble}"


class CertificateSource:
    """A `Source`: proves the certificates of one CA."""

    limits = Limits(audiences=frozenset())

    def __init__(self, name: str, settings: CertificateSourceSettings, authority: Authority) -> None:
        self.name = name
        self.san_prefix = settings.san_prefix
        self.authority = authority

    @property
    def trouble(self) -> str:
        """As Source says."""
        return self.authority.trouble

    def prove(self, presented: Presented, now: float) -> Principal:
        """Prove that the CA vouches for the certificate now, and report its facts. Never waits."""
        generation = self.authority.generation  # before the proof: what changes meanwhile makes it void
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
            # The leaf's own: the path's is that of its youngest certificate, so that a new intermediate certificate
            # would make an old leaf look younger than its revocation.
            since=found["not_before"],
            auth_time=NOT_APPLICABLE,
            fresh_until=proven.fresh_until,
            confirmation=NOT_APPLICABLE,  # its key is proven with it: see Credential.held
            act=NOT_APPLICABLE,
            may_act=NOT_APPLICABLE,
            acr=NOT_APPLICABLE,
            amr=NOT_APPLICABLE,
            jti=NOT_APPLICABLE,
            proof_key=generation,
            attributes=found,
        )

    def at_hand(self, presented: Presented, now: float) -> bool:  # noqa: ARG002 - as Source says
        """As Source says: a path of certificates takes long."""
        return False

    def key_current(self, proof_key: str) -> bool:
        """As Source says: whether nothing was learned of revocation since."""
        return proof_key == self.authority.generation


class CertificateKind:
    """A `Kind` over all enabled sources of type `client_certificate`."""

    token_types = frozenset({TYPE_CLIENT_CERTIFICATE})

    def __init__(self, sources: Iterable[CertificateSource]) -> None:
        self._by_anchor: dict[bytes, list[CertificateSource]] = {}
        for source in sources:
            for name in source.authority.names:
                self._by_anchor.setdefault(name, []).append(source)

    def recognise(self, credential: Credential) -> Presented:
        """As Kind says: the source is the one whose CA the chain claims to lead to.

        Raises BINDING_FAILED where whoever presents it has not proven its key and may not hand it on either.
        """
        chain = read_chain(decode_chain(credential.value))
        source = self._source_of(chain)
        if not credential.held and source.name not in credential.handed_on:
            raise Refusal(BINDING_FAILED, why="not the connection's certificate, nor from one that may hand it on")
        return Presented(KIND, source.name, credential.token_type, chain)

    def _source_of(self, chain: UnverifiedChain) -> CertificateSource:
        """By the first name on the way up that is an anchor's; among those with one CA, by what each may speak for."""
        for issuer in chain.issuers:
            sources = self._by_anchor.get(issuer)
            if sources is None:
                continue
            for source in sources:
                if len(sources) == 1 or (source.san_prefix and speaks_for(chain.leaf, source.san_prefix)):
                    return source
        raise Refusal(UNKNOWN_ISSUER, why="the chain leads to no configured CA")


def encode_chain(ders: Iterable[bytes]) -> str:
    """Certificates as the text of a credential: base64url DER, leaf first, separated by dots."""
    return ".".join(base64.urlsafe_b64encode(der).rstrip(b"=").decode() for der in ders)


def decode_chain(text: str) -> tuple[bytes, ...]:
    """The certificates in the text of a credential, DER. Raises TOO_LARGE or MALFORMED."""
    if len(text) > _MAX_CHARS:
        raise Refusal(TOO_LARGE, why="the certificates", max_chars=_MAX_CHARS)
    if not _TEXT.fullmatch(text):
        raise Refusal(MALFORMED, why="not base64url DER certificates separated by dots")
    try:
        return tuple(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split("."))
    except ValueError:
        raise Refusal(MALFORMED, why="not base64url DER certificates separated by dots") from None
