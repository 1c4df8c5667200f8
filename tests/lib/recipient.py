"""A backend that tokens are encrypted to: its pair by `cryptography`, decryption by authlib, never by our own code."""

import json
import secrets
import warnings

import authlib.deprecate  # noqa: F401 - it sets a filter when it is imported, which must come before ours
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from harness import b64
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # authlib deprecates its JOSE for joserfc, which could not judge itself
    from authlib.jose import JsonWebEncryption, JsonWebKey

ALGORITHMS = ["ECDH-ES", "ECDH-ES+A256KW", "RSA-OAEP-256"]


class Pair:
    """A backend's key pair: `jwk` is its public half as the backend publishes it, `private` its own JWK."""

    def __init__(self, kind="P-256", kid=None, **members):
        key = {
            "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "X25519": x25519.X25519PrivateKey.generate,
            "RSA": lambda: rsa.generate_private_key(65537, 2048),
        }[kind]()
        writer = {"P-256": ECAlgorithm.to_jwk, "X25519": _x25519, "RSA": RSAAlgorithm.to_jwk}[kind]
        members = {"kid": kid or secrets.token_hex(8), "use": "enc", **members}
        self.kid, self.public = members["kid"], key.public_key()
        self.private = {**_jwk(writer, key), **members}
        self.jwk = {**_jwk(writer, key.public_key()), **members}
        self.pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def decrypt(self, token, algorithms=ALGORITHMS):
        """Header and plaintext of a JWE, by authlib with this private key; raises whatever authlib does."""
        judge = JsonWebEncryption([*algorithms, "A256GCM"])
        opened = judge.deserialize_compact(token.encode(), JsonWebKey.import_key(self.private))
        return opened["header"], opened["payload"].decode()

    def open(self, token, jwks, **expected):
        """The claims as a careful backend gets them: decrypt, demand an inner signed token, verify, then read."""
        header, inner = self.decrypt(token)
        assert (header["cty"], header["enc"], header["kid"]) == ("JWT", "A256GCM", self.kid)
        assert inner.count(".") == 2
        wanted = jwt.get_unverified_header(inner)["kid"]
        key = next(jwt.PyJWK(entry) for entry in jwks["keys"] if entry["kid"] == wanted)
        return jwt.decode(inner, key, algorithms=["ES256"], **expected)


def jwks(*pairs):
    """The set that publishes `pairs`, in this order."""
    return {"keys": [pair.jwk for pair in pairs]}


def _jwk(writer, key):
    written = json.loads(writer(key))
    written.pop("key_ops", None)
    return written


def _x25519(key):
    """PyJWT writes no X25519."""
    private = isinstance(key, x25519.X25519PrivateKey)
    public = key.public_key() if private else key
    members = {"kty": "OKP", "crv": "X25519", "x": b64(public.public_bytes_raw())}
    return json.dumps({**members, "d": b64(key.private_bytes_raw())} if private else members)
