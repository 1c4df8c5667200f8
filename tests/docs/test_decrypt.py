"""Encrypted tokens, opened by the snippets of docs/verify.md: decrypt, demand a signed token, verify, then read.

The tokens are put together here by `cryptography` and authlib; one test takes what our own code makes.
"""

import base64
import json
import secrets
import time
import zlib

import pytest
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from recipient import JsonWebEncryption, Pair
from snippets import Key, base64url, mint, part

from sts.jose import encrypt, import_encryption_jwk

pytestmark = pytest.mark.timeout(300)  # the first build of Go's standard library takes a while on two busy cores

ALG = "ECDH-ES+A256KW"


def coordinates(public, size=32):
    numbers = public.public_numbers()
    return {"x": base64url(numbers.x.to_bytes(size, "big")), "y": base64url(numbers.y.to_bytes(size, "big"))}


def seal(pair, inner, *, epk=None, tag_bytes=16, nonce_bytes=12, content_key=None, aad=None, **header):
    """A JWE of `inner` for `pair`, right but for what is asked for; a header member that is None is left out."""
    ephemeral = ec.generate_private_key(ec.SECP256R1())
    shared = ephemeral.exchange(ec.ECDH(), pair.public)
    info = len(ALG).to_bytes(4, "big") + ALG.encode() + bytes(8) + (256).to_bytes(4, "big")
    kek = ConcatKDFHash(hashes.SHA256(), 32, info).derive(shared)
    key, nonce = content_key or secrets.token_bytes(32), secrets.token_bytes(nonce_bytes)
    epk = {"kty": "EC", "crv": "P-256", **coordinates(ephemeral.public_key())} | (epk or {})
    members = {"alg": ALG, "enc": "A256GCM", "cty": "JWT", "kid": pair.kid, "epk": epk, **header}
    head = part({name: value for name, value in members.items() if value is not None})
    sealed = AESGCM(key).encrypt(nonce, inner if isinstance(inner, bytes) else inner.encode(), (aad or head).encode())
    parts = keywrap.aes_key_wrap(kek, key), nonce, sealed[:-16], sealed[-16:][:tag_bytes]
    return ".".join([head, *map(base64url, parts)])


def direct(pair, inner):
    """ECDH-ES without key wrap: good, but not the algorithm that was agreed on."""
    return encrypt(inner, import_encryption_jwk({**pair.jwk}, "ECDH-ES"))


def by_rsa15(pair, inner):
    """RSA1_5 under the kid of our key (RFC 8725 §3.2)."""
    key = rsa.generate_private_key(65537, 2048).public_key()
    header = {"alg": "RSA1_5", "enc": "A256GCM", "kid": pair.kid, "cty": "JWT"}
    return JsonWebEncryption(["RSA1_5", "A256GCM"]).serialize_compact(header, inner.encode(), key).decode()


def by_dir(pair, inner):
    """`dir`: the content's key is whatever the sender says."""
    header = {"alg": "dir", "enc": "A256GCM", "kid": pair.kid, "cty": "JWT"}
    return JsonWebEncryption(["dir", "A256GCM"]).serialize_compact(header, inner.encode(), bytes(32)).decode()


def plain_claims(key):
    """What `mint` signs, as bare JSON."""
    return part_of(mint(key), 1)


def part_of(token, index):
    text = token.split(".")[index]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def changed(token, index, value):
    parts = token.split(".")
    parts[index] = value(parts[index]) if callable(value) else value
    return ".".join(parts)


def spliced(pair, first, second):
    """The header and key of one token with the content of another: the inner token is swapped."""
    one, other = seal(pair, first).split("."), seal(pair, second).split(".")
    return ".".join([*one[:2], *other[2:]])


def flipped(text):
    return ("B" if text[0] == "A" else "A") + text[1:]


def unsigned(key):
    head = part({"alg": "none", "typ": "at+jwt", "kid": key.kid})
    return f"{head}.{base64url(plain_claims(key))}."


GOOD = {
    "encrypted to the new key": lambda service, _: seal(service.pairs[0], mint(service.key)),
    "encrypted to the old key": lambda service, _: seal(service.pairs[1], mint(service.key)),
    "with members that mean nothing": lambda service, _: seal(service.pairs[0], mint(service.key), x="y"),
    "made by our own code": lambda service, _: encrypt(
        mint(service.key), import_encryption_jwk(service.pairs[0].jwk, ALG)
    ),
}
BAD = {
    # the rule that matters: what is inside must be a signed token
    "plain claims inside": lambda service, _: seal(service.pairs[0], plain_claims(service.key)),
    "an unsigned token inside": lambda service, _: seal(service.pairs[0], unsigned(service.key)),
    "a token signed by somebody else inside": lambda service, _: seal(service.pairs[0], mint(Key("first"))),
    "a token for another backend inside": lambda service, _: seal(service.pairs[0], mint(service.key, aud="billing")),
    "a token of another issuer inside": lambda service, _: seal(service.pairs[0], mint(service.key, iss="https://x")),
    "an expired token inside": lambda service, now: seal(service.pairs[0], mint(service.key, exp=now - 60)),
    "a token without its scope inside": lambda service, _: seal(service.pairs[0], mint(service.key, scope="other")),
    "an encrypted token inside": lambda service, _: seal(service.pairs[0], seal(service.pairs[0], mint(service.key))),
    "nothing inside": lambda service, _: seal(service.pairs[0], ""),
    "a signed token that nobody encrypted": lambda service, _: mint(service.key),
    "a swapped inner token": lambda service, _: spliced(
        service.pairs[0], mint(service.key), mint(service.key, sub="u|mallory")
    ),
    # for somebody else
    "another recipient": lambda *_: seal(Pair(), mint(Key("first"))),
    "another recipient under our kid": lambda service, _: seal(Pair(kid=service.pairs[0].kid), mint(service.key)),
    "the other key's kid": lambda service, _: seal(service.pairs[0], mint(service.key), kid=service.pairs[1].kid),
    "no kid": lambda service, _: seal(service.pairs[0], mint(service.key), kid=None),
    "a kid that is no text": lambda service, _: seal(service.pairs[0], mint(service.key), kid=["a"]),
    # what was not agreed on
    "RSA1_5": lambda service, _: by_rsa15(service.pairs[0], mint(service.key)),
    "RSA1_5 by name": lambda service, _: seal(service.pairs[0], mint(service.key), alg="RSA1_5"),
    "dir": lambda service, _: by_dir(service.pairs[0], mint(service.key)),
    "ECDH-ES without key wrap": lambda service, _: direct(service.pairs[0], mint(service.key)),
    "enc by another name": lambda service, _: seal(service.pairs[0], mint(service.key), enc="A128GCM"),
    "a content key of 128 bits": lambda service, _: seal(
        service.pairs[0], mint(service.key), content_key=secrets.token_bytes(16)
    ),
    "no cty": lambda service, _: seal(service.pairs[0], mint(service.key), cty=None),
    "cty of something else": lambda service, _: seal(service.pairs[0], mint(service.key), cty="json"),
    "compressed": lambda service, _: seal(service.pairs[0], zlib.compress(mint(service.key).encode())[2:-4], zip="DEF"),
    "zip that was not done": lambda service, _: seal(service.pairs[0], mint(service.key), zip="DEF"),
    "a critical extension": lambda service, _: seal(service.pairs[0], mint(service.key), crit=["exp"]),
    # changed on the way, or made to leak
    "a changed header": lambda service, _: changed(
        seal(service.pairs[0], mint(service.key), x="y"), 0, lambda head: part({**json.loads(part_of(head, 0)), "x": 1})
    ),
    "a changed key": lambda service, _: changed(seal(service.pairs[0], mint(service.key)), 1, flipped),
    "a changed nonce": lambda service, _: changed(seal(service.pairs[0], mint(service.key)), 2, flipped),
    "a changed content": lambda service, _: changed(seal(service.pairs[0], mint(service.key)), 3, flipped),
    "a changed tag": lambda service, _: changed(seal(service.pairs[0], mint(service.key)), 4, flipped),
    "a tag of 4 bytes": lambda service, _: seal(service.pairs[0], mint(service.key), tag_bytes=4),
    "a tag of 12 bytes": lambda service, _: seal(service.pairs[0], mint(service.key), tag_bytes=12),
    "no tag": lambda service, _: seal(service.pairs[0], mint(service.key), tag_bytes=0),
    "a nonce of 16 bytes": lambda service, _: seal(service.pairs[0], mint(service.key), nonce_bytes=16),
    "no epk": lambda service, _: changed(
        seal(service.pairs[0], mint(service.key)), 0, part({"alg": ALG, "enc": "A256GCM", "cty": "JWT"})
    ),
    "epk at zero": lambda service, _: seal(
        service.pairs[0], mint(service.key), epk=dict.fromkeys("xy", base64url(bytes(32)))
    ),
    "epk off the curve": lambda service, _: seal(
        service.pairs[0], mint(service.key), epk={"y": base64url(secrets.token_bytes(32))}
    ),
    "epk of another curve": lambda service, _: seal(
        service.pairs[0],
        mint(service.key),
        epk={"crv": "P-384", **coordinates(ec.generate_private_key(ec.SECP384R1()).public_key(), 48)},
    ),
    "epk that is no object": lambda service, _: changed(
        seal(service.pairs[0], mint(service.key)),
        0,
        lambda head: part({**json.loads(part_of(head, 0)), "epk": "x"}),
    ),
    # no JWE at all
    "four parts": lambda service, _: seal(service.pairs[0], mint(service.key)).rpartition(".")[0],
    "six parts": lambda service, _: seal(service.pairs[0], mint(service.key)) + ".x",
    "a header that is a list": lambda service, _: changed(seal(service.pairs[0], mint(service.key)), 0, part([])),
    "a header that is no JSON": lambda service, _: changed(seal(service.pairs[0], mint(service.key)), 0, "AAAA"),
    "empty parts": lambda *_: "....",
    "no token": lambda *_: "x",
}


@pytest.mark.parametrize("token", GOOD)
def test_a_good_encrypted_token_passes(settled, token):
    service, backend = settled
    assert backend.open(GOOD[token](service, int(time.time()))) == "good u|alice"


@pytest.mark.parametrize("token", BAD)
def test_a_bad_encrypted_token_is_refused(settled, token):
    """JW-06, JW-07, JW-10, JW-12, JW-13, JW-16, JW-39, JW-09. Lesson 2.9 (CVE-2026-29000 pac4j-jwt)."""
    service, backend = settled
    assert backend.open(seal(service.pairs[0], mint(service.key))) == "good u|alice"
    assert backend.open(BAD[token](service, int(time.time()))).startswith("refused")


def test_what_expects_a_signed_token_refuses_an_encrypted_one(settled):
    """JW-39: the type is the caller's decision, never the number of dots. Lesson 2.9."""
    service, backend = settled
    assert backend.verify(seal(service.pairs[0], mint(service.key))).startswith("refused")


@pytest.mark.parametrize(
    "token", ["a changed key", "a changed content", "a changed tag", "another recipient", "RSA1_5"]
)
def test_why_decryption_failed_is_not_told(settled, token):
    """JW-13: all failures look the same (RFC 7516 §11.5)."""
    service, backend = settled
    assert backend.open(BAD[token](service, 0)) == "refused not a token for this backend"
