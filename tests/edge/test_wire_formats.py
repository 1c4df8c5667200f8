"""The request shapes of real RFC 8693 clients, byte for byte as they leave those clients."""

import base64
import json

import pytest

from sts.edge.token import TokenDoor
from sts.model import TYPE_ACCESS_TOKEN, TYPE_JWT, Ask, Credential

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln"
URN = b"urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3A"
GRANT = b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange"
RAW = "Basic " + base64.b64encode(b"edge-gateway:edge-gateway-secret-for-tests-only").decode()
SPRING = RAW  # URLEncoder leaves letters, digits, ".", "-", "*" and "_" alone
NODE = "Basic " + base64.b64encode(b"edge%2Dgateway:edge%2Dgateway%2Dsecret%2Dfor%2Dtests%2Donly").decode()
FORM = "application/x-www-form-urlencoded"

CLIENTS = {
    "google-auth identity_pool": (
        {
            "Content-Type": FORM,
            "Accept": "*/*",
            "Accept-Encoding": "gzip, deflate",
            "x-goog-api-client": "gl-python/3.11 google-byoid-sdk sa-impersonation/false config-lifetime/false source/file",
            "Authorization": RAW,
        },
        GRANT
        + b"&audience=orders&scope=orders%3Aread+orders%3Awrite&requested_token_type="
        + URN
        + b"access_token&subject_token="
        + TOKEN.encode()
        + b"&subject_token_type="
        + URN
        + b"jwt",
        Ask("token", Credential(TYPE_JWT, TOKEN), ("orders",), (), ("orders:read", "orders:write")),
    ),
    "google-auth with options": (
        {"Content-Type": FORM, "Authorization": RAW},
        GRANT
        + b"&audience=orders&requested_token_type="
        + URN
        + b"access_token&subject_token="
        + TOKEN.encode()
        + b"&subject_token_type="
        + URN
        + b"jwt&options=%257B%2522userProject%2522%253A%2B%2522123%2522%257D",
        Ask("token", Credential(TYPE_JWT, TOKEN), ("orders",)),
    ),
    "Go externalaccount": (
        {"Content-Type": FORM, "Accept-Encoding": "gzip", "User-Agent": "Go-http-client/1.1", "Authorization": RAW},
        b"audience=orders&"
        + GRANT
        + b"&options=%7B%22userProject%22%3A%22123%22%7D&requested_token_type="
        + URN
        + b"access_token&scope=&subject_token="
        + TOKEN.encode()
        + b"&subject_token_type="
        + URN
        + b"jwt",
        Ask("token", Credential(TYPE_JWT, TOKEN), ("orders",)),
    ),
    "Spring Security": (
        {"Content-Type": f"{FORM};charset=UTF-8", "Accept": "application/json", "Authorization": SPRING},
        GRANT
        + b"&scope=orders%3Aread&requested_token_type="
        + URN
        + b"access_token&subject_token="
        + TOKEN.encode()
        + b"&subject_token_type="
        + URN
        + b"jwt",
        Ask("token", Credential(TYPE_JWT, TOKEN), scopes=("orders:read",)),
    ),
    "openid-client, client_secret_post": (
        {"Content-Type": f"{FORM};charset=UTF-8", "Accept": "application/json", "User-Agent": "openid-client/6.8.9"},
        b"subject_token="
        + TOKEN.encode()
        + b"&subject_token_type="
        + URN
        + b"access_token&audience=orders&audience=billing&"
        + GRANT
        + b"&client_id=edge-gateway&client_secret=edge-gateway-secret-for-tests-only",
        Ask("token", Credential(TYPE_ACCESS_TOKEN, TOKEN), ("orders", "billing")),
    ),
    "openid-client, client_secret_basic": (
        {"Content-Type": f"{FORM};charset=UTF-8", "Accept": "application/json", "Authorization": NODE},
        b"subject_token=" + TOKEN.encode() + b"&subject_token_type=" + URN + b"jwt&resource=https%3A%2F%2Forders.example&" + GRANT,
        Ask("token", Credential(TYPE_JWT, TOKEN), (), ("https://orders.example",)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS)
def test_the_request_of_a_real_client_is_understood(client, request_to, answer):
    headers, body, ask = CLIENTS[client]
    reply = answer(TokenDoor(), request_to("POST", "/token", headers, body))
    assert reply.status == 200
    assert answer.asks == [ask]


@pytest.mark.parametrize("client", CLIENTS)
def test_the_answer_suits_a_real_client(client, request_to, answer):
    headers, body, _ = CLIENTS[client]
    reply = answer(TokenDoor(), request_to("POST", "/token", headers, body))
    document = json.loads(reply.body)
    assert type(document["expires_in"]) is int  # Go takes no text
    assert document["expires_in"] > 0
    assert document["token_type"] == "Bearer"  # Spring and openid-client take no N_A
    assert isinstance(document["scope"], str)
    assert dict(reply.headers)["Content-Type"] == "application/json"
