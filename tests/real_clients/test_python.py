"""The Python clients of docs/clients.md as the page shows them, against the real service; PyJWT judges the tokens."""

import time

import authlib.integrations.base_client
import google.auth.credentials
import google.auth.exceptions
import google.auth.transport.requests
import pytest
import requests
import requests_oauth2client
from harness import CLIENT, ISSUER, JWT, SECRET

IDS = ["google_sts", "authlib_session", "oauth2client"]


def exchanges(service):
    return [event for event in service.events() if event.get("door") == "token"]


@pytest.fixture
def ask(service, snippets):
    """Exchange a token with one of the clients; returns (token, seconds left, scope)."""
    url = f"http://127.0.0.1:{service.port}/token"

    def by_google(secret, token, audience, scopes):
        answer = snippets["google_sts"]["exchange"](url, CLIENT, secret, token, audience, scopes)
        return answer["access_token"], answer["expires_in"], answer["scope"]

    def by_authlib(secret, token, audience, scopes):
        more = {"scope": " ".join(scopes)} if scopes else {}
        with snippets["authlib_session"]["session"](url, CLIENT, secret, token, audience, **more) as session:
            return session.token["access_token"], session.token["expires_in"], session.token["scope"]

    def by_oauth2client(secret, token, audience, scopes):
        defined = snippets["oauth2client"]
        with requests.Session() as session:
            client = defined["client"](url, CLIENT, secret, session=session, testing=True)  # http, to loopback
            answer = defined["exchange"](client, token, audience, **({"scope": " ".join(scopes)} if scopes else {}))
        return str(answer), answer.expires_in, answer.scope

    clients = dict(zip(IDS, (by_google, by_authlib, by_oauth2client), strict=True))

    def ask(client, token, audience="orders", scopes=(), secret=SECRET):
        return clients[client](secret, token, audience, scopes)

    return ask


@pytest.mark.parametrize("client", IDS)
def test_a_python_client_gets_an_internal_token(client, ask, service, idp):
    token, left, scope = ask(client, idp.token())
    claims = service.verified(token)
    assert (claims["sub"], claims["client_id"], claims["iss"]) == ("alice", CLIENT, ISSUER)
    assert abs(claims["exp"] - time.time() - left) < 3
    assert scope == claims["scope"] == "orders:read orders:write"


@pytest.mark.parametrize("client", IDS)
def test_a_python_client_gets_the_scopes_it_asks_for(client, ask, service, idp):
    token, _, scope = ask(client, idp.token(), scopes=["orders:read"])
    assert scope == service.verified(token)["scope"] == "orders:read"


REFUSALS = [
    ({"audience": "elsewhere"}, "invalid_target", "The audience is not available to this request."),
    ({"scopes": ["billing:read"]}, "invalid_scope", "The scope is not available to this request."),
    ({"secret": "wrong"}, "invalid_client", "The client could not be authenticated."),
]


@pytest.mark.parametrize(("asked", "error", "sentence"), REFUSALS, ids=lambda value: str(value)[:20])
def test_a_python_client_understands_a_refusal(ask, idp, asked, error, sentence):
    with pytest.raises(google.auth.exceptions.OAuthError) as by_google:
        ask("google_sts", idp.token(), **asked)
    assert by_google.value.args[0] == f"Error code {error}: {sentence}"
    assert '"error_reason"' in by_google.value.args[1]
    with pytest.raises(authlib.integrations.base_client.OAuthError) as by_authlib:
        ask("authlib_session", idp.token(), **asked)
    assert (by_authlib.value.error, by_authlib.value.description) == (error, sentence)
    with pytest.raises(requests_oauth2client.EndpointError) as by_oauth2client:
        ask("oauth2client", idp.token(), **asked)
    assert (by_oauth2client.value.error, by_oauth2client.value.description) == (error, sentence)
    assert type(by_oauth2client.value).__name__ == "".join(map(str.capitalize, error.split("_")))


def test_google_auth_can_send_all_it_knows(service, idp):
    """A resource beside its audience, options in double encoding, an actor, who is named."""
    proof = google.oauth2.utils.ClientAuthentication(google.oauth2.utils.ClientAuthType.request_body, CLIENT, SECRET)
    client = google.oauth2.sts.Client(f"http://127.0.0.1:{service.port}/token", proof)
    transport = google.auth.transport.requests.Request()
    grant = "urn:ietf:params:oauth:grant-type:token-exchange"
    options = {"userProject": "1 2", "bindCertFingerprint": "x%y"}
    answer = client.exchange_token(
        transport, grant, idp.token(), JWT, audience="orders", additional_options=options, requested_token_type=JWT
    )
    assert answer["issued_token_type"] == JWT
    actor = {"actor_token": idp.token(sub="robot"), "actor_token_type": JWT}
    named = idp.token(may_act={"iss": idp.issuer, "sub": "robot"})
    answer = client.exchange_token(transport, grant, named, JWT, audience="orders", **actor)
    assert service.verified(answer["access_token"])["act"] == {"sub": "robot", "iss": idp.issuer}


@pytest.fixture
def pool(snippets, idp, tmp_path):
    """google-auth's credentials over a file with a fresh token, and a way to use them for one request."""

    def make(service, audience):
        file = tmp_path / "token"
        file.write_text(idp.token(), encoding="ascii")
        url = f"http://127.0.0.1:{service.port}/token"
        made = snippets["google_pool"]["credentials"](url, CLIENT, SECRET, str(file), audience)
        transport = google.auth.transport.requests.Request()

        def use():
            headers = {}
            made.before_request(transport, "GET", "https://orders.example.internal/", headers)
            return headers["authorization"].removeprefix("Bearer ")

        return use

    return make


def test_identity_pool_credentials_carry_the_internal_token(pool, lasting):
    """And they keep it: with the lifetimes that the page advises, one exchange serves request after request."""
    use = pool(lasting, "orders")
    before = len(exchanges(lasting))
    tokens = [use() for _ in range(3)]
    assert lasting.verified(tokens[0])["sub"] == "alice"
    assert len(set(tokens)) == 1
    assert len(exchanges(lasting)) == before + 1


def test_identity_pool_asks_every_time_for_a_token_of_less_than_225_seconds(pool, service):
    """What the page says of short lifetimes: every request is an exchange."""
    use = pool(service, "billing")  # ttl: 2m
    before = len(exchanges(service))
    for _ in range(3):
        assert service.verified(use(), "billing")["sub"] == "alice"
    assert len(exchanges(service)) == before + 3


@pytest.mark.parametrize(
    ("seconds", "audience", "kept"), [(3600, "orders", True), (250, "orders", False), (3600, "billing", False)]
)
def test_no_answer_from_the_cache_has_less_life_left_than_the_configuration_says(lasting, idp, seconds, audience, kept):
    """`cache.min_remaining: 5m`, so that google-auth-library, which keeps nothing of 300 s or less, can keep them.

    Neither a credential that ends earlier nor a ttl of two minutes gives a token that could be kept here.
    """
    token = idp.token(exp=int(time.time()) + seconds)
    for _ in range(8):  # each worker has a cache of its own
        assert lasting.exchange(token, audience).status == 200
    assert any(event["cached"] for event in exchanges(lasting)[-8:]) is kept


def test_an_authlib_session_goes_on_until_a_minute_before_the_end_and_then_refuses(snippets, service, idp):
    """It has no refresh token to renew itself with: the page says to exchange again."""
    url = f"http://127.0.0.1:{service.port}/token"
    define = snippets["authlib_session"]["session"]
    with define(url, CLIENT, SECRET, idp.token(exp=int(time.time()) + 100), "orders") as session:
        assert session.get(f"http://127.0.0.1:{service.port}/healthz").status_code == 200
        sent = session.get(f"http://127.0.0.1:{service.port}/healthz").request.headers["Authorization"]
        assert sent == f"Bearer {session.token['access_token']}"
    with (
        define(url, CLIENT, SECRET, idp.token(exp=int(time.time()) + 50), "orders") as session,
        pytest.raises(authlib.integrations.base_client.InvalidTokenError),
    ):
        session.get(f"http://127.0.0.1:{service.port}/healthz")
