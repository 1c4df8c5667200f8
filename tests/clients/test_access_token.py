"""Clients with an access token of their own: whose token counts. What a token says is proven in tests/tls."""

import pytest
from pydantic import ValidationError

from sts.clients.access_token import AccessTokenClient
from sts.errors import BAD_SIGNATURE, SOURCE_UNREACHABLE, Refusal
from sts.model import Caller, Client, Peer


def client(**settings):
    written = {"auth": "access_token", "audiences": ["orders"], "source": "idp", "client_id": "partner"}
    return AccessTokenClient.model_validate(written | settings)


class Tokens:
    """Says of every token what it is told, and remembers which certificate it was asked with."""

    def __init__(self, source="idp", refuse=None, **claims):
        self.says = source, {"client_id": "partner", "sub": "partner"} | claims
        self.refuse, self.seen = refuse, []

    def prove(self, token, certificate, now):
        self.seen.append((token, certificate, now))
        if self.refuse is not None:
            raise Refusal(self.refuse, why="no")
        return self.says


def caller(client_id="gateway", **more):
    return Caller("token", client_id, None, more.pop("peer", Peer("127.0.0.1")), bearer="token", **more)


def test_the_token_of_the_configured_source_and_client_is_enough(proven):
    assert isinstance(proven(client(), caller(), tokens=Tokens()), Client)


@pytest.mark.parametrize(
    "says",
    [{"source": "other"}, {"sub": "alice"}, {"client_id": "else"}, {"sub": None}, {"client_id": ["partner"]}],
    ids=str,
)
def test_any_other_token_proves_nobody(proven, says):
    """Another source could name a client as it likes."""
    assert isinstance(proven(client(), caller(), tokens=Tokens(**says)), dict)


def test_a_token_that_proves_one_client_proves_no_other(proven):
    assert proven(client(), caller("another"), tokens=Tokens())["why"] == "unknown client"


def test_a_bound_token_is_judged_with_the_callers_certificate(proven):
    """MT-05."""
    tokens = Tokens()
    proven(client(), caller(peer=Peer("127.0.0.1", certificates=(b"der",))), tokens=tokens)
    ((_, certificate, _),) = tokens.seen
    assert len(certificate) == 43


def test_a_token_that_is_refused_is_a_client_that_is_refused(proven):
    assert proven(client(), caller(), tokens=Tokens(refuse=BAD_SIGNATURE))["fault"] == "bad_signature"
    with pytest.raises(Refusal) as caught:
        proven(client(), caller(), tokens=Tokens(refuse=SOURCE_UNREACHABLE))
    assert caught.value.reason is SOURCE_UNREACHABLE


@pytest.mark.parametrize("written", [{"client_id": ""}, {"source": ""}, {"client_id": None}])
def test_whose_token_it_is_must_be_written(written):
    with pytest.raises(ValidationError):
        client(**written)
