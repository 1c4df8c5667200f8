"""The snippets of docs/verify.md are run as they stand there, against a JWKS server and tokens that are not ours."""

import hashlib
import hmac
import time

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from snippets import ISSUER, Key, base64url, mint, part

pytestmark = pytest.mark.timeout(300)  # the first build of Go's standard library takes a while on two busy cores


def unsigned(spelling):
    body = mint(Key("x")).split(".")[1]
    return f"{part({'alg': spelling, 'typ': 'at+jwt', 'kid': 'first'})}.{body}."


def signed_with_public_key(key):
    """HS256 whose secret is the public key: what a verifier believes that takes `alg` from the token."""
    body = mint(key).split(".")[1]
    signed = f"{part({'alg': 'HS256', 'typ': 'at+jwt', 'kid': key.kid})}.{body}"
    return f"{signed}.{base64url(hmac.new(key.pem, signed.encode(), hashlib.sha256).digest())}"


def sign(key, signed):
    """The signature of ES256 over `signed`, in DER."""
    return key.private.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))


def signed(key, algorithm):
    """A token with a good ES256 signature whose header names another algorithm."""
    signed = f"{part({'alg': algorithm, 'typ': 'at+jwt', 'kid': key.kid})}.{mint(key).split('.')[1]}"
    r, s = utils.decode_dss_signature(sign(key, signed))
    return f"{signed}.{base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def der_signature(key):
    signed = mint(key).rpartition(".")[0]
    return f"{signed}.{base64url(sign(key, signed))}"


GOOD = {
    "plain": lambda key, _: mint(key),
    "signed by hand": lambda key, _: signed(key, "ES256"),
    "several audiences": lambda key, _: mint(key, aud=["billing", "orders"]),
    "expired within the clock skew": lambda key, now: mint(key, exp=now - 10),
    "begins within the clock skew": lambda key, now: mint(key, nbf=now + 10),
    "fractional times": lambda key, now: mint(key, exp=now + 100.5, nbf=now - 0.5),
}
BAD = {
    "expired": lambda key, now: mint(key, exp=now - 60),
    "no exp": lambda key, _: mint(key, without=["exp"]),
    "exp as a word": lambda key, _: mint(key, exp="tomorrow"),
    "not valid yet": lambda key, now: mint(key, nbf=now + 100),
    "another audience": lambda key, _: mint(key, aud="billing"),
    "other audiences": lambda key, _: mint(key, aud=["billing", "orders2"]),
    "audience as part of a text": lambda key, _: mint(key, aud="orders billing"),
    "no audience": lambda key, _: mint(key, without=["aud"]),
    "another issuer": lambda key, _: mint(key, iss="https://sts.example.com"),
    "issuer with a slash more": lambda key, _: mint(key, iss=ISSUER + "/"),
    "no issuer": lambda key, _: mint(key, without=["iss"]),
    "typ JWT": lambda key, _: mint(key, header={"typ": "JWT"}),
    "typ of a logout token": lambda key, _: mint(key, header={"typ": "logout+jwt"}),
    "no typ": lambda key, _: mint(key, header={"typ": None}),
    "a critical extension": lambda key, _: mint(key, header={"crit": ["exp"]}),
    "alg none": lambda *_: unsigned("none"),
    "alg nOnE": lambda *_: unsigned("nOnE"),
    "a good signature under the name of none": lambda key, _: signed(key, "none"),
    "a good signature under the name of ES384": lambda key, _: signed(key, "ES384"),
    "HS256 with the public key": lambda key, _: signed_with_public_key(key),
    "a foreign key under our kid": lambda *_: mint(Key("first")),
    "a foreign key under its own kid": lambda *_: mint(Key("foreign")),
    "a foreign key in the header": lambda *_: mint(stranger := Key("foreign"), header={"jwk": stranger.jwk}),
    "no kid": lambda key, _: mint(key, header={"kid": None}),
    "a changed payload": lambda key, _: swap_payload(mint(key), mint(key, sub="u|mallory")),
    "a signature of zeros": lambda key, _: mint(key).rpartition(".")[0] + "." + base64url(bytes(64)),
    "a signature in DER": lambda key, _: der_signature(key),
    "no signature": lambda key, _: mint(key).rpartition(".")[0] + ".",
    "four parts": lambda key, _: mint(key) + ".x",
    "no token": lambda *_: "x",
    "a header that is a list": lambda key, _: f"{part(['ES256'])}.{mint(key).partition('.')[2]}",
    "a header nested deeply": lambda key, _: (
        f"{base64url(b'[' * 50_000 + b']' * 50_000)[:60_000]}.{mint(key).partition('.')[2]}"
    ),
    "a scope too few": lambda key, _: mint(key, scope="orders:write"),
    "a scope that only begins alike": lambda key, _: mint(key, scope="orders:read2 orders"),
    "no scope": lambda key, _: mint(key, without=["scope"]),
}


def swap_payload(token, other):
    head, _, signature = token.split(".")
    return f"{head}.{other.split('.')[1]}.{signature}"


@pytest.mark.parametrize("token", GOOD)
def test_a_good_token_passes(settled, token):
    service, backend = settled
    assert backend.verify(GOOD[token](service.key, int(time.time()))) == "good u|alice"


@pytest.mark.parametrize("token", BAD)
def test_a_bad_token_is_refused(settled, token):
    service, backend = settled
    assert backend.verify(mint(service.key)) == "good u|alice"
    assert backend.verify(BAD[token](service.key, int(time.time()))).startswith("refused")


def test_keys_are_fetched_once_and_invented_key_ids_do_not_flood_the_service(backend, service):
    assert backend.verify(mint(service.key)) == "good u|alice"
    for number in range(20):
        assert backend.verify(mint(Key(f"invented-{number}"))).startswith("refused")
        assert backend.verify(mint(service.key)) == "good u|alice"
    assert service.fetches == 1


def test_a_new_key_is_fetched_after_the_floor(backend, service):
    assert backend.verify(mint(service.key)) == "good u|alice"
    new = Key("second")
    service.published = [service.key.jwk, new.jwk]
    assert backend.verify(mint(new)).startswith("refused")
    assert backend.ask("zero floor") == "done"
    assert backend.verify(mint(new)) == "good u|alice"
    assert backend.verify(mint(service.key)) == "good u|alice"
    assert service.fetches == 2


def test_keys_of_other_kinds_in_the_set_do_no_harm(backend, service):
    service.published = [
        {"kty": "AKP", "alg": "ML-DSA-65", "use": "sig", "kid": "pq", "pub": "AA"},
        {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "Ed25519", "kid": "ed", "x": base64url(bytes(32))},
        service.key.jwk,
        Key("encryption").jwk | {"use": "enc", "alg": "ECDH-ES"},
    ]
    assert backend.verify(mint(service.key)) == "good u|alice"


def test_a_key_for_encryption_verifies_nothing(backend, service):
    other = Key("encryption")
    service.published = [service.key.jwk, other.jwk | {"use": "enc"}]
    assert backend.verify(mint(other)).startswith("refused")
    assert backend.verify(mint(service.key)) == "good u|alice"


def test_the_last_good_keys_serve_on_while_the_service_fails(backend, service):
    assert backend.verify(mint(service.key)) == "good u|alice"
    service.status = 503
    assert backend.ask("zero floor") == backend.ask("zero maxAge") == "done"
    assert backend.verify(mint(service.key)) == "good u|alice"
    assert backend.verify(mint(Key("unknown"))).startswith("refused")
    assert service.fetches == 3
    assert backend.verify(mint(service.key)) == "good u|alice"


def test_the_last_good_keys_do_not_serve_for_ever(backend, service):
    assert backend.verify(mint(service.key)) == "good u|alice"
    service.status = 503
    assert backend.ask("zero stale") == "done"
    assert backend.verify(mint(service.key)).startswith("refused")


def test_a_key_that_was_taken_back_verifies_nothing_once_the_set_is_fetched_again(backend, service):
    assert backend.verify(mint(service.key)) == "good u|alice"
    service.published = [Key("second").jwk]
    assert backend.verify(mint(service.key)) == "good u|alice"
    assert backend.ask("zero floor") == backend.ask("zero maxAge") == "done"
    assert backend.verify(mint(service.key)).startswith("refused")


def test_without_keys_nothing_passes(backend, service):
    service.status = 503
    assert backend.verify(mint(service.key)).startswith("refused")
    service.status = 200
    assert backend.ask("zero floor") == "done"
    assert backend.verify(mint(service.key)) == "good u|alice"
