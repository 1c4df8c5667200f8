"""The request shapes of real RFC 8693 clients, byte for byte as they leave those clients."""

import base64
import json

import pytest

from sts.edge.token import TokenDoor
from sts.model import TYPE_JWT, Ask, Credential

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln"
FORM = "application/x-www-form-urlencoded"

GRANT = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange"
URN = "urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3A"
SUBJECT = f"subject_token={TOKEN}&subject_token_type={URN}jwt"
REQUESTED = f"requested_token_type={URN}access_token"

POSTED = "client_id=edge-gateway&client_secret=edge-gateway-secret-for-tests-only"


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


RAW = basic("edge-gateway:edge-gateway-secret-for-tests-only")
GOOGLE_API_CLIENT = "gl-python/3.11 google-byoid-sdk sa-impersonation/false config-lifetime/false source/file"

CLIENTS = {
    "google-auth identity_pool": (
        {"Content-Type": FORM, "Accept": "*/*", "x-goog-api-client": GOOGLE_API_CLIENT, "Authorization": RAW},
        f"{GRANT}&audience=orders&scope=orders%3Aread+orders%3Awrite&{REQUESTED}&{SUBJECT}",
        Ask("token", Credential(TYPE_JWT, TOKEN), ("orders",), (), ("orders:read", "orders:write")),
    ),
    # JSON in percent-encoding, and that form-encoded once more
    "google-auth with options": (
        {"Content-Type": FORM, "Accept": "*/*", "Authorization": RAW},
        f"{GRANT}&audience=orders&{REQUESTED}&{SUBJECT}&options=%257B%2522userProject%2522%253A%2B%2522123%2522%257D",
        Ask("token", Credential(TYPE_JWT, TOKEN), ("orders",)),
    ),
    # an empty scope, and JSON form-encoded once
    "Go externalaccount": (
        {"Content-Type": FORM, "Accept-Encoding": "gzip", "User-Agent": "Go-http-client/1.1", "Authorization": RAW},
        f"audience=orders&{GRANT}&options=%7B%22userProject%22%3A%22123%22%7D&{REQUESTED}&scope=&{SUBJECT}",
        Ask("token", Credential(TYPE_JWT, TOKEN), ("orders",)),
    ),
    # URLEncoder leaves letters, digits, ".", "-", "*" and "_" alone, so its Basic looks like the raw one here
    "Spring Security": (
        {"Content-Type": f"{FORM};charset=UTF-8", "Accept": "application/json", "Authorization": RAW},
        f"{GRANT}&scope=orders%3Aread&{REQUESTED}&{SUBJECT}",
        Ask("token", Credential(TYPE_JWT, TOKEN), scopes=("orders:read",)),
    ),
    "openid-client, client_secret_post": (
        {"Content-Type": f"{FORM};charset=UTF-8", "Accept": "application/json", "User-Agent": "openid-client/6.8.9"},
        f"{SUBJECT}&audience=orders&audience=billing&{GRANT}&{POSTED}",
        Ask("token", Credential(TYPE_JWT, TOKEN), ("orders", "billing")),
    ),
    # percent-encodes even "-"
    "openid-client, client_secret_basic": (
        {
            "Content-Type": f"{FORM};charset=UTF-8",
            "Accept": "application/json",
            "Authorization": basic("edge%2Dgateway:edge%2Dgateway%2Dsecret%2Dfor%2Dtests%2Donly"),
        },
        f"{SUBJECT}&resource=https%3A%2F%2Forders.example&{GRANT}",
        Ask("token", Credential(TYPE_JWT, TOKEN), (), ("https://orders.example",)),
    ),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_the_request_of_a_real_client_is_understood(client, request_to, answer):
    headers, body, ask = CLIENTS[client]
    reply = answer(TokenDoor(), request_to("POST", "/token", headers, body.encode()))
    assert reply.status == 200
    assert answer.asks == [ask]


@pytest.mark.parametrize("client", CLIENTS)
def test_the_answer_suits_a_real_client(client, request_to, answer):
    headers, body, _ = CLIENTS[client]
    reply = answer(TokenDoor(), request_to("POST", "/token", headers, body.encode()))
    document = json.loads(reply.body)
    assert type(document["expires_in"]) is int  # Go takes no text
    assert document["expires_in"] > 0
    assert document["token_type"] == "Bearer"  # Spring and openid-client take no N_A
    assert isinstance(document["scope"], str)
    assert dict(reply.headers)["Content-Type"] == "application/json"
