"""What others say to the service, bent: whole HTTP answers, JWK sets, CRLs, OCSP answers, certificates.

HTTP answers are sent to the whole service in this process; documents to the parsers that it gives them to.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args
from unittest import mock

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import strategies as st

from scripts.fuzz.inputs import any_json, extension, some_bytes
from scripts.fuzz.places import Here, exchange, judge
from scripts.fuzz.world import GOOD, World, answer
from sts.errors import Refusal
from sts.jose import SUPPORTED, KeyManagement, UnfitError, encrypt, import_encryption_jwks, import_jwks
from sts.model import TYPE_ACCESS_TOKEN
from sts.options import KeptFile
from sts.resilience.breaker import Breaker
from sts.trust.remote_jwks import LookUp
from sts.x509.chain import read_chain
from sts.x509.crl import UnfitCrlError, read_crls
from sts.x509.names import attributes, check_names
from sts.x509.ocsp import UnfitAnswerError, responder
from sts.x509.ocsp import judge as judge_ocsp
from sts.x509.roots import Roots

Answers = st.SearchStrategy[bytes]
Try = Callable[[bytes], str]
"""Takes one input; returns the name of what came of it. Whatever it raises is a fault."""

_HEADS: Final = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 OK\r\nCache-Control: max-age=0",
    b"HTTP/1.1 200 OK\r\nCache-Control: max-age=999999999999, Age: -1\r\nAge: x",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked",
    b"HTTP/1.1 200 OK\r\nContent-Length: 7",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/",
    *(b"HTTP/1.1 %d X" % status for status in (204, 400, 401, 403, 404, 418, 429, 500, 503, 999)),
    b"HTTP/9.9 200 OK",
    b"",
]


def http_answers(path: str) -> Answers:
    """Whole HTTP answers around the good one of `path`."""
    names = ["active", "sub", "aud", "exp", "iat", "nbf", "scope", "cnf", "act", "may_act", "iss", "jti", "token_type"]
    names += ["amr", "acr", "auth_time", "client_id", "username", "token_use", "typ", "scopes", "tenant", "result"]

    def changed(changes: dict[str, object]) -> bytes:
        return json.dumps({**GOOD[path], **changes}).encode()

    changes = st.dictionaries(st.sampled_from(names), any_json, max_size=3)
    body = changes.map(changed) | any_json.map(lambda one: json.dumps(one).encode()) | some_bytes
    return st.builds(answer, body, st.sampled_from(_HEADS))


@contextlib.contextmanager
def said(here: Here, path: str) -> Iterator[Try]:
    """Send a good request that asks at `path`, and be answered there with the input."""
    numbers = itertools.count()

    def attempt(data: bytes) -> str:
        outside = here.who.world.outside
        outside.says[path] = data
        try:
            if path == "introspect":
                request = exchange(b"op_%d" % next(numbers), declared=TYPE_ACCESS_TOKEN)
            else:
                request = exchange(here.who.world.person(), "guarded" if path == "opa" else "mapped")
            return judge(here.send(request), here.who.token, bent_source=True)
        finally:
            outside.says[path] = answer(json.dumps(GOOD[path]).encode())

    with mock.patch.object(Breaker, "admit"):  # else nothing is asked after three bad answers
        yield attempt


def jwk_sets() -> Answers:
    """JWK sets with members left out, replaced and added; cut and sprinkled ones come of bending."""
    keys = [
        jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True)
        for name, key in (
            ("RS256", rsa.generate_private_key(65537, 2048)),
            ("ES256", ec.generate_private_key(ec.SECP256R1())),
            ("ES384", ec.generate_private_key(ec.SECP384R1())),
            ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
        )
    ]
    keys.append({"kty": "OKP", "crv": "X25519", "x": _text(x25519.X25519PrivateKey.generate())})
    keys = [{name: value for name, value in key.items() if name != "key_ops"} for key in keys]
    names = ["kty", "kid", "use", "alg", "key_ops", "crv", "x", "y", "n", "e", "d", "k", "x5c"]
    texts = ["RSA", "EC", "OKP", "oct", "sig", "enc", "P-256", "X25519", "Ed25519", "RS256", "ECDH-ES", "AQAB", "AA"]
    changes = st.dictionaries(st.sampled_from(names), any_json | st.sampled_from(texts), max_size=3)
    entry = st.builds(lambda key, kid, more: {**key, **kid, **more}, st.sampled_from(keys), _KIDS, changes)
    sets = st.lists(entry | any_json, max_size=4).map(lambda some: {"keys": some})
    return (sets | any_json).map(lambda one: json.dumps(one).encode())


_KIDS: Final = st.sampled_from([{}, {"kid": "a"}, {"kid": "b", "use": "sig"}, {"kid": "c", "use": "enc"}])


def _text(key: x25519.X25519PrivateKey) -> str:
    number = int.from_bytes(key.public_key().public_bytes_raw(), "big")
    found: str = jwt.utils.to_base64url_uint(number).decode()
    return found


def take_jwks(data: bytes) -> str:
    """As an issuer's keys."""
    try:
        keys = import_jwks(data, SUPPORTED)
    except UnfitError:
        return "refused"
    look = LookUp(keys)
    for key in keys.keys:
        with contextlib.suppress(Refusal):
            look.find(key.kid, next(iter(key.algorithms)))
        assert key.proves(next(iter(key.algorithms)), b"signed", b"x" * 64) is False
    return "taken"


def take_recipient(data: bytes) -> str:
    """As a backend's encryption keys."""
    found = "refused"
    for algorithm in get_args(KeyManagement):
        try:
            keys = import_encryption_jwks(data, algorithm)
        except UnfitError:
            continue
        found = "taken"
        for key in keys.keys:
            assert encrypt("a.b.c", key).count(".") == 4
    return found


@dataclass(frozen=True)
class Documents:
    """Parsers of what a CA says."""

    world: World
    roots: Roots

    @classmethod
    def of(cls, world: World, directory: Path) -> Documents:
        """With the CA of `world`, whose file is put into `directory`."""
        (directory / "ca.pem").write_bytes(world.ca.public_bytes(Encoding.PEM))
        return cls(world, Roots(KeptFile.of(directory / "ca.pem")))

    def take_crl(self, data: bytes) -> str:
        """As a file of CRLs."""
        try:
            lists = read_crls(data)
        except UnfitCrlError:
            return "refused"
        return "taken" if all(one.speaks_for(self.world.ca) for one in lists) else "nobody's"

    def take_ocsp(self, data: bytes) -> str:
        """As a responder's answer."""
        try:
            return type(judge_ocsp(data, self.world.leaf, self.world.ca, self._now())).__name__
        except UnfitAnswerError:
            return "refused"

    def take_certificate(self, data: bytes) -> str:
        """As a client's certificate, alone and below another one."""
        for ders in ([data], [self.world.leaf_der, data], [data, self.world.ca.public_bytes(Encoding.DER)]):
            try:
                path = self.roots.validate(read_chain(ders), self._now())
                check_names(path.leaf, "spiffe://partners.example/")
                attributes(path.leaf)
                responder(path.leaf)
            except Refusal as refusal:
                found = refusal.reason.name
        return "taken" if "path" in locals() else found

    @staticmethod
    def _now() -> float:
        return dt.datetime.now(dt.UTC).timestamp()

    def crls(self) -> Answers:
        """The good list in both forms; bending does the rest."""
        der, pem = self.world.crl.public_bytes(Encoding.DER), self.world.crl.public_bytes(Encoding.PEM)
        return _spoilt(der) | _spoilt(pem) | st.just(pem + pem) | some_bytes

    def ocsps(self) -> Answers:
        """Good answers, signed by the CA over whatever extension; unsuccessful ones."""
        now = dt.datetime.now(dt.UTC)
        day = dt.timedelta(days=1)
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=self.world.leaf, issuer=self.world.ca, cert_status=ocsp.OCSPCertStatus.GOOD,
            algorithm=hashes.SHA1(),  # noqa: S303 - it only names the issuer
            this_update=now - day, next_update=now + day, revocation_time=None, revocation_reason=None,
        )  # fmt: skip
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self.world.ca)
        good = builder.certificates([self.world.leaf]).sign(self.world.key, hashes.SHA256())
        bad = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
        der = good.public_bytes(Encoding.DER)
        return _spoilt(der) | st.just(bad.public_bytes(Encoding.DER)) | some_bytes

    def certificates(self) -> Answers:
        """Leaves of the CA, and those that it signed with nonsense in an extension."""
        oids = st.sampled_from(["2.5.29.17", "2.5.29.37", "2.5.29.15", "2.5.29.19", "2.5.29.30", "1.3.6.1.5.5.7.1.1"])
        content = extension | _spoilt(b"\x30\x22\x86\x20spiffe://partners.example/billing") | some_bytes
        odd = st.builds(self.world.odd_leaf, oids, content).map(lambda leaf: leaf.public_bytes(Encoding.DER))
        return odd | _spoilt(self.world.leaf_der) | some_bytes


def _spoilt(good: bytes) -> Answers:
    """These bytes, with some of them replaced, removed or put in, as they are, too."""

    def spoil(edits: list[tuple[int, bytes, int]]) -> bytes:
        data = good
        for where, piece, cut in edits:
            data = data[:where] + piece + data[where + cut :]
        return data

    edit = st.tuples(st.integers(0, len(good)), st.binary(max_size=3), st.integers(0, 3))
    return st.lists(edit, max_size=3).map(spoil)
