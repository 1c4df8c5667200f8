"""A token of ours is for backends: here it is no credential, at any door, under any name (TE-33, RFC 8725 §3.12)."""

import pytest
from harness import ISSUER, b64, decoded, unb64

TYPES = ("access_token", "jwt", "id_token", "refresh_token", "saml2")


@pytest.fixture
def own(doors, idp):
    """Tokens that the service has minted at either door."""
    return [doors.at_token(idp.token()).token, doors.at_forward(idp.token()).token]


def test_a_token_of_ours_is_refused_at_both_doors(doors, own):
    """TE-33, lesson 2.3 (Keycloak #52691: an exchanged token exchanged again lost what it had been)."""
    for token in own:
        doors.refuse(token, "unknown_issuer")


@pytest.mark.parametrize("declared", TYPES)
def test_a_token_of_ours_is_refused_whatever_it_is_called(doors, own, declared):
    answer = doors.at_token(own[0], f"urn:ietf:params:oauth:token-type:{declared}")
    reason = "bad_type" if declared in ("refresh_token", "saml2") else "unknown_issuer"
    doors.refused(answer, reason, own[0])


def test_a_token_of_ours_under_the_providers_name_is_no_token_of_the_provider(doors, idp, own):
    """JW-20: with our signature, with our key id, with the provider's."""
    header, claims = decoded(own[0])
    renamed = {**claims, "iss": idp.issuer, "aud": "api-gateway"}
    signature = own[0].rpartition(".")[2]
    for kid, typ, reason in (
        (header["kid"], "at+jwt", "unknown_key"),
        ("ec-1", "at+jwt", "bad_signature"),
        (None, "JWT", "bad_signature"),
    ):
        named = {"alg": "ES256", "typ": typ, **({"kid": kid} if kid else {})}
        doors.refuse(f"{b64(named)}.{b64(renamed)}.{signature}", reason)


def test_a_token_of_the_provider_under_our_name_is_refused(doors, idp):
    """Our issuer is no source: what says it is of us is not even looked at further."""
    for name in (ISSUER, f"{ISSUER}/", ISSUER.upper()):
        doors.refuse(idp.token(iss=name), "unknown_issuer")


def test_the_claims_of_a_token_of_ours_cannot_be_changed_unseen(service, own):
    """What backends rely on: PyJWT refuses it, too."""
    header, claims, signature = own[0].split(".")
    text = unb64(claims).replace(b'"sub":"alice"', b'"sub":"mallo"')
    assert text != unb64(claims)
    with pytest.raises(Exception, match="Signature verification failed"):
        service.verified(f"{header}.{b64(text)}.{signature}")


def test_a_token_names_who_acted_before_and_no_more_than_four(doors, idp):
    """TE-22, TE-23, TE-24, lesson 2.3: `act` is kept, reduced and bounded; it is never laundered away."""
    inner = {"sub": "batch", "iss": "https://other.example", "exp": 1, "aud": "x", "act": {"sub": "cron"}}
    for claims in doors.accept(idp.token(act=inner)):
        assert claims["act"] == {
            "sub": "edge-gateway",
            "iss": ISSUER,
            "act": {"sub": "batch", "iss": "https://other.example", "act": {"sub": "cron"}},
        }
    deep = {"sub": "a", "act": {"sub": "b", "act": {"sub": "c", "act": {"sub": "d"}}}}
    doors.refuse(idp.token(act=deep), "actor_refused")


@pytest.mark.parametrize(
    "act", [{}, {"sub": ""}, {"sub": 1}, {"sub": "a", "act": "b"}, {"sub": "a", "iss": 1}], ids=repr
)
def test_a_malformed_actor_is_refused_and_not_dropped(doors, idp, act):
    """TE-25, lesson 2.3."""
    doors.refuse(idp.token(act=act), "actor_refused")


@pytest.mark.parametrize(
    "may_act", [{}, {"sub": "somebody"}, {"sub": "edge-gateway"}, {"sub": "edge-gateway", "iss": "https://x.example"}]
)
def test_a_token_that_names_who_may_act_is_refused_to_others(doors, idp, may_act):
    """TE-26, lesson 2.3 (Keycloak #52691): at both doors, though no actor token came along."""
    doors.refuse(idp.token(may_act=may_act), "actor_refused")


def test_a_token_that_names_this_client_as_its_actor_passes(doors, idp):
    """TE-26."""
    doors.accept(idp.token(may_act={"sub": "edge-gateway", "iss": ISSUER}))


@pytest.mark.parametrize("subject", ["edge-gateway"])
def test_a_user_who_is_called_like_a_client_is_refused(doors, idp, subject):
    """AT-04."""
    doors.refuse(idp.token(sub=subject), "subject_collision")
