import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

NOW = 1_800_000_000


@pytest.fixture(scope="session")
def idp():
    """A third party with an RSA and an EC key; `token` signs by PyJWT, `jwks` is what it publishes."""

    class Idp:
        def __init__(self):
            self.keys = {
                "rsa": rsa.generate_private_key(65537, 2048),
                "ec": ec.generate_private_key(ec.SECP256R1()),
            }
            self.claims = {
                "iss": "https://idp.example.com",
                "sub": "alice",
                "aud": ["api-gateway"],
                "exp": NOW + 600,
                "iat": NOW,
                "scope": "orders:read",
            }

        def jwks(self):
            written = {
                "rsa": RSAAlgorithm.to_jwk(self.keys["rsa"].public_key(), as_dict=True),
                "ec": ECAlgorithm.to_jwk(self.keys["ec"].public_key(), as_dict=True),
            }
            return {"keys": [{**jwk, "kid": kid, "key_ops": ["verify"]} for kid, jwk in written.items()]}

        def token(self, claims=None, without=(), header=None, kid="rsa", **changed):
            full = {**(self.claims if claims is None else claims), **changed}
            for name in without:
                del full[name]
            algorithm = "RS256" if kid == "rsa" else "ES256"
            return jwt.encode(full, self.keys[kid], algorithm, headers={"kid": kid, **(header or {})})

    return Idp()


@pytest.fixture(scope="session")
def jwks_file(idp, tmp_path_factory):
    path = tmp_path_factory.mktemp("idp") / "jwks.json"
    path.write_text(json.dumps(idp.jwks()))
    return path
