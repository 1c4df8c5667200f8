"""Sign bytes. A key is parsed and tested once; a request uses the finished signer.

The `Signer` protocol is small on purpose, so that an HSM or a cloud KMS can implement it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from keys.algorithms import ALGORITHMS, Algorithm, PrivateKey
from keys.errors import KeyUnfit, SelfTestFailed
from keys.jwks import thumbprint
from keys.record import KeyRecord

_TEST_INPUT: Final = b"sts keys self-test"
_AWKWARD: Final = "-_"


class Signer(Protocol):
    """A key that signs. Thread-safe."""

    @property
    def kid(self) -> str:
        """The `kid` for the token's header."""

    @property
    def algorithm(self) -> str:
        """The JWS `alg`."""

    def sign(self, signing_input: bytes) -> bytes:
        """Return the raw JWS signature; for ECDSA, R and S concatenated (RFC 7518 §3.4)."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A key pair that is not in a ring yet: `kid`, algorithm, public JWK members, private key as PKCS #8 DER."""

    kid: str
    algorithm: str
    public: Mapping[str, str]
    private: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LocalSigner:
    """Signs in this process. ES256 takes about 50 microseconds, nearly all of them in OpenSSL."""

    kid: str
    _how: Algorithm = field(repr=False)
    _key: PrivateKey = field(repr=False)

    @property
    def algorithm(self) -> str:
        """The JWS `alg`."""
        return self._how.name

    def sign(self, signing_input: bytes) -> bytes:
        """Return the raw JWS signature."""
        return self._how.sign(self._key, signing_input)


def generate(algorithm: str) -> Pair:
    """Generate a key pair for `algorithm`, and test it. Raises ValueError for an unknown algorithm.

    The `kid` begins with a letter or digit, so that no command parses it as an option.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"no keys for {algorithm} here")
    while (pair := pair_of(ALGORITHMS[algorithm].generate(), algorithm)).kid[0] in _AWKWARD:
        pass
    return pair


def pair_of(key: object, algorithm: str) -> Pair:
    """Return the key pair of a private key, with its RFC 7638 thumbprint as `kid`, after a self-test.

    Raises:
        KeyUnfit: The key has the wrong type for `algorithm`, or is too short.
        SelfTestFailed: The key does not sign correctly.
    """
    how = ALGORITHMS[algorithm]
    why = how.unfit(key)
    if why or not isinstance(key, PrivateKey):
        raise KeyUnfit(why or f"{algorithm} needs a private key")
    public = how.public(key)
    pair = Pair(
        kid=thumbprint(public),
        algorithm=algorithm,
        public=public,
        private=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    )
    self_test(LocalSigner(pair.kid, how, key), public)
    return pair


def signer_of(record: KeyRecord) -> Signer:
    """Parse the private key of a record into a signer that has passed its self-test.

    The numbers of an RSA key are not validated here (43 ms per key): they were validated when the key was generated or
    imported, and the ring is authentic. Raises SelfTestFailed if the halves do not belong together, or the private key
    is missing.
    """
    try:
        key = load_der_private_key(record.private or b"", password=None, unsafe_skip_rsa_key_validation=True)
    except ValueError:
        raise SelfTestFailed(f"the private half of key {record.kid} cannot be read") from None
    how = ALGORITHMS.get(record.algorithm)
    why = f"{record.algorithm} is not known here" if how is None else how.unfit(key)
    if how is None or why or not isinstance(key, PrivateKey):
        raise SelfTestFailed(f"key {record.kid} does not fit: {why}")
    # compute the kid from the key that will sign, do not trust the record
    if how.public(key) != dict(record.public) or thumbprint(record.public) != record.kid:
        raise SelfTestFailed(f"the halves and the name of key {record.kid} do not belong together")
    signer = LocalSigner(record.kid, how, key)
    self_test(signer, record.public)
    return signer


def self_test(signer: Signer, public: Mapping[str, str]) -> None:
    """Sign, and verify with the public half that verifiers will use (RO-07). Raises SelfTestFailed."""
    try:
        ALGORITHMS[signer.algorithm].verify(public, _TEST_INPUT, signer.sign(_TEST_INPUT))
    except (InvalidSignature, KeyError, ValueError):
        raise SelfTestFailed(f"key {signer.kid} does not sign what its published half verifies") from None
