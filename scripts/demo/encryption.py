"""The encrypted token of the demo: signed by the service, and one backend alone opens it, with `cryptography`."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from scripts.demo.backend import Verifier
from scripts.demo.provider import Provider
from scripts.demo.service import CONFIGURATION, ISSUER, Service
from scripts.demo.show import Stage

AUDIENCE: Final = "ledger"
_ALG: Final = "ECDH-ES+A256KW"
_ADDED: Final = f"""\
  {AUDIENCE}:                       # its tokens are encrypted: nobody on the way can read them
    format: jwe
    encryption: {{{{jwks_file: {AUDIENCE}.jwks.json, alg: {_ALG}}}}}
    evidence: true
    scopes: [orders:read]
    claims: {{{{tenant: identity.tenant}}}}

routes:
"""
CONFIGURATION_WITH_LEDGER: Final = CONFIGURATION.replace(
    "    audiences: [orders]\n", f"    audiences: [orders, {AUDIENCE}]\n"
).replace("routes:\n", _ADDED)


class Ledger:
    """A backend with a key pair of `sts backends keygen`, whose public half lies beside the configuration."""

    def __init__(self, directory: Path) -> None:
        sts = str(Path(sys.executable).with_name("sts"))
        subprocess.run([sts, "backends", "keygen", "--out", AUDIENCE], cwd=directory, check=True, capture_output=True)
        (public,) = (directory / AUDIENCE).glob("*.jwks.json")
        (private,) = (directory / AUDIENCE).glob("*.private.jwk.json")
        (directory / f"{AUDIENCE}.jwks.json").write_bytes(public.read_bytes())
        self.jwk: dict[str, str] = json.loads(private.read_text(encoding="ascii"))
        self._key = ec.derive_private_key(int.from_bytes(_decode(self.jwk["d"]), "big"), ec.SECP256R1())

    def claims(self, token: str, verifier: Verifier) -> dict[str, Any]:
        """Decrypt, demand a signed token, verify, and only then read. Raises jwt.PyJWTError for anything else."""
        try:
            inner = self._decrypt(token)
        except (ValueError, KeyError, InvalidTag, keywrap.InvalidUnwrap):
            raise jwt.InvalidTokenError("not a token for this backend") from None
        return verifier.claims(inner)  # PyJWT takes nothing but a signed token

    def _decrypt(self, token: str) -> str:
        head, wrapped, nonce, ciphertext, tag = token.split(".")
        header = json.loads(_decode(head))
        if (header["alg"], header["enc"], header["cty"], header["kid"]) != (_ALG, "A256GCM", "JWT", self.jwk["kid"]):
            raise ValueError
        x, y = (int.from_bytes(_decode(header["epk"][name]), "big") for name in "xy")
        shared = self._key.exchange(ec.ECDH(), ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key())
        key = keywrap.aes_key_unwrap(_derived(shared), _decode(wrapped))
        return AESGCM(key).decrypt(_decode(nonce), _decode(ciphertext) + _decode(tag), head.encode()).decode()

    def forge(self, claims: dict[str, Any]) -> str:
        """What anybody can do who has the public key: encrypt claims that nobody signed."""
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        numbers = ephemeral.public_key().public_numbers()
        epk = {"kty": "EC", "crv": "P-256", "x": _encode(numbers.x.to_bytes(32)), "y": _encode(numbers.y.to_bytes(32))}
        header = {"alg": _ALG, "enc": "A256GCM", "cty": "JWT", "kid": self.jwk["kid"], "epk": epk}
        head, key, nonce = _encode(json.dumps(header).encode()), secrets.token_bytes(32), secrets.token_bytes(12)
        wrapped = keywrap.aes_key_wrap(_derived(ephemeral.exchange(ec.ECDH(), self._key.public_key())), key)
        sealed = AESGCM(key).encrypt(nonce, json.dumps(claims).encode(), head.encode())
        return ".".join([head, *map(_encode, (wrapped, nonce, sealed[:-16], sealed[-16:]))])


def encrypted(stage: Stage, provider: Provider, service: Service, ledger: Ledger) -> None:
    """Exchange for a backend whose tokens are encrypted; show what the way sees and what the backend reads."""
    stage.step("An encrypted token: a gateway carries it, one backend alone can read it")
    verifier = Verifier(ISSUER, f"{service.url}/.well-known/jwks.json", AUDIENCE)
    answer = service.exchange(provider.token(acr="urn:mfa"), AUDIENCE)
    token = answer.body.get("access_token", "")
    header = json.loads(_decode(token.split(".")[0])) if token else {}
    claims = ledger.claims(token, verifier)
    stage.table(
        ("who", "reads"),
        [
            ("anybody on the way", {name: header.get(name) for name in ("alg", "enc", "cty", "kid")}),
            ("the backend, once decrypted and verified", claims),
        ],
    )
    holds = (answer.status, token.count("."), claims["sub"], claims["aud"]) == (200, 4, "alice", AUDIENCE)
    stage.check("the backend decrypted it, found a signed token of the service, and verified that", holds=holds)
    seen = claims.get("acr") == "urn:mfa" and "jti_hash" in claims.get("evidence", {})
    stage.check("it says how the provider saw the user (`evidence: true`)", holds=seen, found=claims)
    plain = service.exchange(provider.token()).body["access_token"]
    forged = ledger.forge({**claims, "sub": "mallory"})
    for what, sent in (("bare claims, encrypted by anybody", forged), ("a token that nobody encrypted", plain)):
        stage.check(f"{what}: refused", holds=_refuses(ledger, sent, verifier))


def _refuses(ledger: Ledger, token: str, verifier: Verifier) -> bool:
    try:
        ledger.claims(token, verifier)
    except jwt.PyJWTError:
        return True
    return False


def _derived(shared: bytes) -> bytes:
    """Concat KDF (RFC 7518 §4.6.2)."""
    info = len(_ALG).to_bytes(4) + _ALG.encode() + bytes(8) + (256).to_bytes(4)
    return hashlib.sha256(b"\0\0\0\1" + shared + info).digest()


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
