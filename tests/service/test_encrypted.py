"""`format: jwe` over HTTP: only the backend reads its token, and it can tell that the token is ours."""

import json

import jwt
import pytest
from harness import ISSUER, minimal, unb64, wait_for
from recipient import Pair, jwks

from sts.settings import estimate, load

EVERY = [("ECDH-ES", "P-256"), ("ECDH-ES", "X25519"), ("ECDH-ES+A256KW", "X25519"), ("RSA-OAEP-256", "RSA")]


@pytest.fixture
def backend(make_idp):
    """A backend that publishes its encryption keys over HTTP."""
    backend = make_idp()
    backend.pair = Pair()
    backend.keys = [backend.pair.jwk]
    return backend


@pytest.fixture
def encrypted(make_service, configured, make_idp, backend):
    """A service whose audience `billing` is encrypted to the backend's keys."""

    def start(**changes):
        idp = make_idp()
        encryption = {"jwks_uri": backend.url, "alg": "ECDH-ES+A256KW"}
        wanted = {
            "workers": 1,
            "audiences/billing/format": "jwe",
            "audiences/billing/encryption": encryption,
            **changes,
        }
        service = make_service(configured(minimal(idp), wanted))
        service.idp = idp
        return service

    return start


def header_of(token):
    return json.loads(unb64(token.split(".")[0]))


def test_the_backend_decrypts_demands_a_signed_token_verifies_and_reads(encrypted, backend):
    """JW-06, JW-07, JW-11, JW-39, AT-01, JW-08."""
    service = encrypted()
    answer = service.exchange(service.idp.token(), "billing")
    assert (answer.status, answer.token.count(".")) == (200, 4)
    assert answer.json["token_type"] == "Bearer"
    claims = backend.pair.open(answer.token, service.jwks(), audience="billing", issuer=ISSUER)
    assert (claims["sub"], claims["scope"], claims["act"]["sub"]) == ("alice", "billing:read", "edge-gateway")
    assert set(header_of(answer.token)) == {"alg", "enc", "kid", "cty", "epk"}
    _, inner = backend.pair.decrypt(answer.token)
    assert jwt.get_unverified_header(inner)["typ"] == "at+jwt"
    with pytest.raises(jwt.InvalidAudienceError):
        backend.pair.open(answer.token, service.jwks(), audience="orders", issuer=ISSUER)
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever authlib raises for a wrong recipient
        Pair(kid=backend.pair.kid).decrypt(answer.token)
    assert backend.pair.kid not in service.log()


def test_both_doors_and_the_cache_hand_out_the_encrypted_token(encrypted, backend):
    service = encrypted()
    token = service.idp.token()
    first, second = service.forward(token, "/billing/1"), service.forward(token, "/billing/1")
    assert first.token == second.token
    assert [event["cached"] for event in service.events()[-2:]] == [False, True]
    assert backend.pair.open(first.token, service.jwks(), audience="billing")["sub"] == "alice"
    assert service.verified(service.exchange(token).token)["aud"] == "orders"  # the other audience is as before


@pytest.mark.parametrize(("alg", "kind"), EVERY)
def test_every_algorithm_with_keys_from_a_file_is_decrypted_by_an_independent_library(
    make_service, configured, idp, tmp_path, alg, kind
):
    """JW-08, JW-13."""
    pair = Pair(kind, alg=alg)
    file = tmp_path / "enc.jwks.json"
    file.write_text(json.dumps(jwks(pair)))
    encryption = {"jwks_file": str(file), "alg": alg}
    changes = {"workers": 1, "audiences/billing/format": "jwe", "audiences/billing/encryption": encryption}
    service = make_service(configured(minimal(idp), changes))
    answer = service.exchange(idp.token(), "billing")
    assert header_of(answer.token)["alg"] == alg
    assert pair.open(answer.token, service.jwks(), audience="billing")["sub"] == "alice"


def test_without_the_backends_keys_it_is_503_and_no_token_goes_out_plain(encrypted, backend):
    """BE-08. Lesson 3.3 (APISIX CVE-2026-49230), lesson 3.6 (Pomerium passed an empty assertion on)."""
    backend.keys = [{**backend.pair.jwk, "use": "sig"}]
    service = encrypted()
    token = service.idp.token()
    answer = service.exchange(token, "billing")
    assert (answer.status, answer.reason) == (503, "source_unreachable")
    assert answer.headers["retry-after"]
    assert service.forward(token, "/billing/1").status == 503
    assert "use is not enc" in service.get("/readyz").json["degraded"]["audience billing"]
    assert service.exchange(token).status == 200  # the others go on
    backend.keys = [backend.pair.jwk]
    wait_for(lambda: service.exchange(token, "billing").status == 200, every=0.5)


def test_a_reload_with_another_key_voids_the_cached_token(make_service, configured, idp, tmp_path):
    old, new = Pair(), Pair()
    file = tmp_path / "enc.jwks.json"
    file.write_text(json.dumps(jwks(old)))
    encryption = {"jwks_file": str(file), "alg": "ECDH-ES"}
    changes = {"workers": 1, "audiences/billing/format": "jwe", "audiences/billing/encryption": encryption}
    service = make_service(configured(minimal(idp), changes))
    token = idp.token()
    assert service.exchange(token, "billing").token == service.exchange(token, "billing").token
    file.write_text(json.dumps(jwks(new, old)))
    assert service.reload()["event"] == "reloaded"
    wait_for(lambda: header_of(service.exchange(token, "billing").token)["kid"] == new.kid)
    assert new.open(service.exchange(token, "billing").token, service.jwks(), audience="billing")["sub"] == "alice"


def test_the_limit_counts_the_encrypted_token_and_the_audit_has_its_size(encrypted):
    service = encrypted()
    size = len(service.exchange(service.idp.token(), "billing").token)
    service.stop()
    tight = encrypted(**{"audiences/billing/max_token_bytes": size - 100})
    answer = tight.exchange(tight.idp.token(), "billing")
    assert (answer.status, answer.reason) == (400, "token_too_large")
    facts = tight.events()[-1]
    assert abs(facts["facts"]["token_bytes"] - size) <= 4
    assert facts["facts"]["max_token_bytes"] == size - 100


def test_the_estimate_of_sts_check_comes_near(encrypted):
    service = encrypted(**{"audiences/billing/evidence": True})
    token = service.idp.token(auth_time=1_700_000_000, acr="urn:mfa", amr=["pwd", "otp"], jti="token-7")
    estimated = estimate(load(service.file, {}))
    for audience in ("orders", "billing"):
        real = len(service.exchange(token, audience).token)
        assert real * 0.8 < estimated[audience] < real * 1.6, audience


def test_audiences_share_a_token_only_where_it_is_encrypted_to_the_same_key(encrypted, backend):
    same = {"format": "jwe", "encryption": {"jwks_uri": backend.url, "alg": "ECDH-ES+A256KW"}, "multi": True}
    changes = {
        "audiences/billing/multi": True,
        "audiences/billing/allow": None,
        "audiences/twin": {**same, "ttl": "2m", "scopes": ["billing:read"]},
        "audiences/other": {**same, "scopes": ["billing:read"], "encryption": {**same["encryption"], "alg": "ECDH-ES"}},
        "audiences/plain": {"scopes": ["billing:read"], "multi": True},
        "clients/edge-gateway/audiences": ["*"],
    }
    service = encrypted(**changes)
    token = service.idp.token()

    def ask(*audiences):
        form = [("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"), ("subject_token", token)]
        form.append(("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"))
        return service.post([*form, *(("audience", name) for name in audiences)])

    shared = ask("billing", "twin")
    claims = backend.pair.open(shared.token, service.jwks(), audience="twin")
    assert claims["aud"] == ["billing", "twin"]
    for others in (("billing", "other"), ("billing", "plain"), ("plain", "twin")):
        assert ask(*others).reason == "no_consent"
