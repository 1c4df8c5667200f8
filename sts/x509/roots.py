"""The CAs trusted for one purpose, and path validation up to them (RFC 5280 §6.1).

`cryptography` validates the path. Each purpose has its own anchors, so a CA of partners cannot vouch for a gateway.
This module does not check revocation.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from sts.errors import BAD_SIGNATURE, EXPIRED, NOT_YET_VALID, Refusal, StartError
from sts.options import KeptFile
from sts.x509.chain import UnverifiedChain
from sts.x509.leaf import MIN_RSA_BITS, check_leaf

MAX_DEPTH: Final = 4
"""Maximum number of intermediates between a leaf and its anchor."""
MAX_ANCHORS: Final = 100


@dataclass(frozen=True, slots=True)
class Path:
    """A validated path of at least two certificates: the leaf first, the anchor last. Times are Unix seconds."""

    certificates: tuple[x509.Certificate, ...]
    not_before: float
    not_after: float

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that the path proves."""
        return self.certificates[0]


def _certificates(content: bytes) -> list[x509.Certificate]:
    """Raises ValueError with our own message: the library's message refers to the library's documentation."""
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ValueError("it is not a PEM file of certificates") from None


class Roots:
    """The anchors in a PEM file. Raises StartError, for the operator, if one of them cannot be an anchor."""

    def __init__(self, file: KeptFile) -> None:
        try:
            content = file.read()
            if not content.isascii():  # the TLS library accepts only ASCII (RFC 7468 §2)
                raise ValueError("it contains characters that are not ASCII")  # noqa: TRY301 - handled like the others
            anchors = _certificates(content)
            if len(anchors) > MAX_ANCHORS:
                raise ValueError(f"it contains more than {MAX_ANCHORS} certificates")  # noqa: TRY301 - likewise
            for anchor in anchors:
                _check_anchor(anchor)
            self._store = Store(anchors)
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension) as error:
            raise StartError(f"the CA file {file} cannot be used: {error}") from None
        self.names = frozenset(anchor.subject.public_bytes() for anchor in anchors)
        """The anchors' names in DER."""

    def validate(self, chain: UnverifiedChain, now: float) -> Path:
        """Validate that `chain` leads to an anchor at `now` (Unix seconds) and that its leaf is a client's.

        Raises BAD_ALGORITHM or BAD_TYPE for the leaf (see `check_leaf`). Raises EXPIRED or NOT_YET_VALID if only the
        time is wrong, else BAD_SIGNATURE. The path does not prove that the CA has not revoked the leaf, nor that the
        presenter of the leaf has its private key.
        """
        check_leaf(chain.leaf)
        try:
            found = self._verify(chain, now)
        except VerificationError as error:
            raise self._refusal(chain, now, error) from None
        return Path(
            certificates=tuple(found),
            not_before=max(one.not_valid_before_utc.timestamp() for one in found),
            not_after=min(one.not_valid_after_utc.timestamp() for one in found),
        )

    def _verify(self, chain: UnverifiedChain, now: float) -> list[x509.Certificate]:
        verifier = (
            PolicyBuilder()
            .store(self._store)
            .time(datetime.fromtimestamp(now, UTC))  # a verifier's time is fixed (LIB-C05): one for each request
            .max_chain_depth(MAX_DEPTH)
            .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
            .build_client_verifier()
        )
        return verifier.verify(chain.leaf, list(chain.intermediates)).chain

    def _refusal(self, chain: UnverifiedChain, now: float, error: VerificationError) -> Refusal:
        """Return EXPIRED or NOT_YET_VALID only if the chain was or will be valid at another time."""
        certificates = (chain.leaf, *chain.intermediates)
        ended = min(one.not_valid_after_utc.timestamp() for one in certificates)
        begins = max(one.not_valid_before_utc.timestamp() for one in certificates)
        if ended < now and self._was_good(chain, ended):
            return Refusal(EXPIRED, why="a certificate of the chain", expired_since_s=round(now - ended))
        if begins > now and self._was_good(chain, begins):
            return Refusal(NOT_YET_VALID, why="a certificate of the chain", seconds_ahead=round(begins - now))
        # The rest of the text contains the certificate's subject, which must not be logged.
        return Refusal(BAD_SIGNATURE, why=str(error).partition(" (encountered")[0][:200])

    def _was_good(self, chain: UnverifiedChain, then: float) -> bool:
        try:
            self._verify(chain, then)
        except VerificationError:
            return False
        return True


def _check_anchor(anchor: x509.Certificate) -> None:
    """Check at start what would make every path to this anchor fail. Raises ValueError."""
    key, extensions = anchor.public_key(), anchor.extensions
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise ValueError("a CA's key must be RSA or EC; paths to other keys cannot be validated")  # noqa: TRY004
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise ValueError(f"a CA's RSA key must have at least {MIN_RSA_BITS} bits")
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        raise ValueError("one of its certificates is not a CA's (no basicConstraints)") from None
    if not constraints.value.ca or not constraints.critical:
        raise ValueError("a CA's certificate must have critical basicConstraints with CA:TRUE")
    for extension in extensions:
        if isinstance(extension.value, x509.NameConstraints):
            named = [*(extension.value.permitted_subtrees or ()), *(extension.value.excluded_subtrees or ())]
            if any(isinstance(one, x509.UniformResourceIdentifier | x509.DirectoryName) for one in named):
                raise ValueError("name constraints on URIs or directory names are not supported; use san_prefix")
        if isinstance(extension.value, x509.KeyUsage):
            _may_sign(None, None, extension.value)


def _may_sign(_policy: Policy | None, _certificate: x509.Certificate | None, usage: x509.KeyUsage | None) -> None:
    """Require keyCertSign if a CA has a key usage (RFC 5280 §6.1.4 (n)); many private CAs have no key usage."""
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("a CA's key usage must contain keyCertSign")


# The library's web rules are stricter than RFC 5280 (LIB-C03). Private CAs issue leaves without alternative names or
# with critical ones, without an authority key identifier, or with a critical extended key usage (RFC 5280 §4.2.1.12).
# `check_leaf` alone checks the extended key usage.
_LEAF_POLICY: Final = (
    ExtensionPolicy.webpki_defaults_ee()
    .may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    .may_be_present(x509.AuthorityKeyIdentifier, Criticality.AGNOSTIC, None)
    .may_be_present(x509.CertificatePolicies, Criticality.AGNOSTIC, None)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None)
)
_CA_POLICY: Final = (
    ExtensionPolicy.webpki_defaults_ca()
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)
    .may_be_present(x509.AuthorityKeyIdentifier, Criticality.AGNOSTIC, None)
    .may_be_present(x509.CertificatePolicies, Criticality.AGNOSTIC, None)
)
