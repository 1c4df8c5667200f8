import base64
import json
from collections.abc import Mapping

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

CLAIMS = {"iss": "https://idp.example.com", "sub": "alice", "aud": ["api"], "exp": 2_000_000_000, "iat": 1_700_000_000}


@pytest.fixture(scope="session")
def private_keys():
    """One key per type and curve, made by cryptography."""
    return {
        "RSA": rsa.generate_private_key(65537, 2048),
        "P-256": ec.generate_private_key(ec.SECP256R1()),
        "P-384": ec.generate_private_key(ec.SECP384R1()),
        "P-521": ec.generate_private_key(ec.SECP521R1()),
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    }


@pytest.fixture(scope="session")
def jwk_of():
    """The public JWK of a key, as PyJWT writes it, with further members."""

    def write(key, **members):
        public = key.public_key()
        writer = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "Ed": OKPAlgorithm}
        kind = "RSA" if hasattr(key, "private_numbers") and hasattr(public, "encrypt") else "EC"
        kind = "Ed" if isinstance(key, ed25519.Ed25519PrivateKey) else kind
        written = json.loads(writer[kind].to_jwk(public))
        written.pop("key_ops", None)
        return {**written, **members}

    return write


@pytest.fixture(scope="session")
def encode():
    """Base64url without padding of bytes, text or JSON."""

    def write(part):
        if isinstance(part, Mapping):
            part = json.dumps(part)
        data = part.encode() if isinstance(part, str) else part
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    return write


@pytest.fixture(scope="session")
def assemble(encode):
    """A token of whatever parts, each bytes, text or JSON; encoded, not signed."""

    def write(header, claims, signature=b"x" * 64):
        return ".".join(map(encode, (header, claims, signature)))

    return write


@pytest.fixture(scope="session")
def signed(private_keys):
    """A good token, signed by PyJWT."""

    def write(claims=CLAIMS, algorithm="RS256", key="RSA", **header):
        return jwt.encode(claims, private_keys[key], algorithm=algorithm, headers={"kid": "one", **header})

    return write
