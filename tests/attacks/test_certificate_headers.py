"""Certificate headers that a stranger writes, at a service where nobody may hand certificates on (CC-03)."""

import base64
import time
from urllib.parse import quote

import pytest
from harness import b64
from pki import Authority

CERTIFICATE = "urn:sts:token-type:client_certificate"
VICTIM = Authority("Partner CA", now=time.time()).issue("admin")

FORGED = {
    "nginx": {"X-SSL-Client-Cert": quote(VICTIM.pem, safe=""), "X-SSL-Client-Verify": "SUCCESS"},
    "nginx, the verdict alone": {"X-SSL-Client-Verify": "SUCCESS"},
    "RFC 9440": {"Client-Cert": f":{base64.b64encode(VICTIM.der).decode()}:"},
    "RFC 9440, the chain alone": {"Client-Cert-Chain": "::"},
    "Envoy": {
        "X-Forwarded-Client-Cert": f'Hash=00;Cert="{quote(VICTIM.pem, safe="")}";URI=spiffe://partners.example/admin'
    },
    "empty": {"X-Forwarded-Client-Cert": ""},
}


@pytest.mark.parametrize("form", FORGED)
def test_a_forged_certificate_header_is_refused_and_stands_in_the_audit(service, idp, form):
    """CC-03: beside a good token too, which it could only be meant to change.

    Lesson 3.4, lesson 3.10: only from whom the configuration names.
    """
    for token in (None, idp.token()):
        named = {name.replace("-", "_"): value for name, value in FORGED[form].items()}
        answer = service.forward(token, **named)
        assert answer.status == 401
        assert "authorization" not in answer.headers
        assert service.events()[-1]["reason"] == "malformed"


@pytest.mark.parametrize("form", FORGED)
def test_it_is_refused_at_token_before_anything_else_is_looked_at(service, idp, form):
    """CC-03."""
    grant = "urn:ietf:params:oauth:grant-type:token-exchange"
    fields = {"grant_type": grant, "subject_token": idp.token(), "audience": "orders"}
    fields["subject_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
    for secret in ("edge-gateway-secret-for-tests-only", "wrong"):
        answer = service.post(fields, FORGED[form], secret=secret)
        assert (answer.status, answer.json["error_reason"]) == (400, "malformed")


def test_a_secret_beside_it_opens_nothing(service, idp):
    """The client's own secret is none of a proxy's."""
    headers = {**FORGED["nginx"], "X-Gateway-Secret": "edge-gateway-secret-for-tests-only"}
    answer = service.exchange(idp.token())
    assert answer.status == 200
    fields = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": b64(VICTIM.der)}
    answer = service.post({**fields, "subject_token_type": CERTIFICATE, "audience": "orders"}, headers)
    assert (answer.status, answer.json["error_reason"]) == (400, "malformed")


def test_a_certificate_that_somebody_else_was_shown_is_no_credential(service):
    answer = service.exchange(b64(VICTIM.der), token_type=CERTIFICATE)
    assert (answer.status, answer.json["error_reason"]) == (400, "unknown_issuer")
