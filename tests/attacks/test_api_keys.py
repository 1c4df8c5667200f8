"""Attacks on API keys: where a key may not be, what a stranger can find out, what a writer to the store can do."""

import contextlib
import json
import sqlite3
import time
from dataclasses import replace

import pytest
import yaml
from harness import Service, Trap, minimal

from sts import labels
from sts.state import key_records
from sts.state.key_records import LABEL, ApiKey, KeyRecords
from sts.state.sqlite import SqliteState

API_KEY = "urn:sts:token-type:api_key"
OWN = {"date", "x-request-id"}


def keys(prefix, **more):
    identity = {"subject": "key.owner", "scopes": "key.scopes"}
    return {
        "type": "api_key",
        "prefix": prefix,
        "audiences": ["orders"],
        "namespace": prefix,
        "identity": identity,
        **more,
    }


@pytest.fixture(scope="module")
def service(idp, tmp_path_factory):
    trap = Trap()
    document = yaml.safe_load(minimal(idp))
    document["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
    document["sources"].update(
        first=keys("sk_live_"),
        second=keys("pk_live_", header="X-Partner-Key"),
        asleep=keys("zk_live_", header="X-Old-Key", enabled=False),
        opaque={  # takes whatever has no prefix; a key must not get there
            "type": "introspection",
            "endpoint": trap.url,
            "client_id": "sts",
            "client_secret": "s",
            "audience": "api-gateway",
            "audiences": ["orders"],
            "namespace": "opaque",
            "identity": {"subject": "claims.sub"},
        },
    )
    document["clients"]["edge-gateway"]["sources"] = ["*"]
    running = Service(tmp_path_factory.mktemp("keys"), json.dumps(document))
    running.trap = trap
    yield running
    assert running.stop() == 0, running.log()
    trap.socket.close()


@pytest.fixture(scope="module")
def records(service):
    var = service.directory / "var"
    state = SqliteState(var / "state.db", time.time)
    yield KeyRecords(state, labels.read(var / "secret").keys(LABEL))
    state.close()


@pytest.fixture(scope="module")
def settled(service, records):
    """Wait until every worker has seen what was written so far: they see changes in their order, and one more last."""

    def settled():
        key_id, text = key_records.make("sk_live_")
        facts = {"owner": "last", "scopes": ("orders:read",), "created_at": int(time.time())}
        records.put(ApiKey(key_id, "first", digest=key_records.digest(text), **facts))
        service.everywhere(lambda: service.exchange(text, token_type=API_KEY).status == 200)

    return settled


@pytest.fixture(scope="module")
def make(records, settled):
    """Make a key that every worker knows; returns its record and text."""

    def make(prefix="sk_live_", source="first", **facts):
        key_id, text = key_records.make(prefix)
        usual = {"owner": "acme", "scopes": ("orders:read",), "created_at": int(time.time()), **facts}
        key = records.put(ApiKey(key_id, source, digest=key_records.digest(text), **usual))
        settled()
        return key, text

    return make


@pytest.fixture(scope="module")
def key(make):
    return make()[1]


def seen(answer):
    """All that a stranger sees but what is every answer's own."""
    own = answer.headers["x-request-id"].encode()
    headers = {name: value for name, value in answer.headers.items() if name not in OWN}
    return answer.status, headers, answer.body.replace(own, b"")


def test_a_key_is_good_in_its_own_header_and_there_alone(service, key):
    """AK-01, BE-05."""
    assert service.forward(None, X_API_Key=key).status == 200
    for refused in (
        service.forward(key),
        service.forward(None, uri=f"/orders/7?X-API-Key={key}&key={key}&access_token={key}"),
        service.forward(None, Cookie=f"X-API-Key={key}"),
        service.forward(None, Authorization=f"ApiKey {key}"),
        service.forward(None, Authorization=f"Basic {key}"),
        service.forward(None, X_Api_Token=key),
    ):
        assert refused.status == 401
        assert "authorization" not in refused.headers
    body = f"X-API-Key={key}&api_key={key}".encode()
    head = {"X-Gateway-Secret": "edge-gateway-secret-for-tests-only", "X-Original-Method": "GET"}
    head |= {"X-Original-URI": "/orders/7", "X-Original-Host": "api.example.com"}
    head["Content-Type"] = "application/x-www-form-urlencoded"
    assert service.request("POST", "/forward-auth/edge-gateway", head, body).status == 401
    assert service.trap.connections == 0  # and no part of it went to a server that explains opaque tokens


@pytest.mark.parametrize("declared", ["access_token", "jwt", "id_token"])
def test_a_key_under_another_type_goes_nowhere(service, key, declared):
    answer = service.exchange(key, token_type=f"urn:ietf:params:oauth:token-type:{declared}")
    assert answer.status == 400
    assert service.trap.connections == 0


def test_a_token_under_the_type_of_keys_is_none(service, idp):
    answer = service.exchange(idp.token(), token_type=API_KEY)
    assert (answer.status, answer.reason) == (400, "too_large" if len(idp.token()) > 256 else "unknown_issuer")


def test_two_credentials_in_one_request_are_none_in_whatever_headers(service, key, make, idp):
    """AK-03; the header of a source that is disabled counts, or enabling it would change what passes."""
    partner = make("pk_live_", "second")[1]
    assert service.forward(None, X_Partner_Key=partner).status == 200
    for headers in (
        {"X_API_Key": key, "X_Partner_Key": partner},
        {"X_API_Key": key, "X_Old_Key": "anything"},
        {"X_API_Key": key, "X_Partner_Key": ""},
        {"X_API_Key": f"{key},{partner}"},
        {"X_API_Key": f"{key}, {key}"},
        {"X_API_Key": key, "Authorization": "Basic YTpi"},
    ):
        answer = service.forward(None, **headers)
        assert (answer.status, service.events()[-1]["reason"]) == (401, "malformed"), headers
    answer = service.forward(idp.token(), X_Old_Key="zk_live_anything")
    assert (answer.status, service.events()[-1]["reason"]) == (401, "malformed")


def test_a_header_sent_twice_on_the_wire_is_refused(service, key):
    head = "GET /forward-auth/edge-gateway HTTP/1.1\r\nHost: sts\r\nConnection: close\r\n"
    head += "X-Gateway-Secret: edge-gateway-secret-for-tests-only\r\nX-Original-Method: GET\r\n"
    head += "X-Original-URI: /orders/7\r\nX-Original-Host: api.example.com\r\n"
    twice = service.raw(f"{head}X-API-Key: {key}\r\nX-API-Key: {key}\r\n\r\n".encode())
    assert twice.startswith(b"HTTP/1.1 401")
    once = service.raw(f"{head}X-API-Key: {key}\r\n\r\n".encode())
    assert once.startswith(b"HTTP/1.1 200")


def test_a_stranger_cannot_tell_a_known_id_a_revoked_or_a_mistyped_key_from_a_made_up_one(service, make):
    """FA answers one and the same; only who has the audit knows."""
    known, revoked = make()[1], make(revoked_at=int(time.time()))[1]
    body = known[:20] + "x" * 32
    forged = body + key_records._checksum(body)
    texts = [key_records.make("sk_live_")[1], forged, revoked, known[:-1], "sk_live_made-up", "xx_live_made-up", ""]
    first, *others = [seen(service.forward(None, X_API_Key=text)) for text in texts]
    assert first[0] == 401
    assert all(other == first for other in others)
    assert len({event["reason"] for event in service.events()[-len(texts) :]}) > 2


def test_a_key_of_one_source_opens_nothing_through_another(service, make):
    """A record moved between sources, or a text under another prefix, is no key there."""
    other_prefix = "pk_live_" + make()[1].removeprefix("sk_live_")
    assert service.exchange(other_prefix, token_type=API_KEY).reason == "malformed"  # the checksum covers the prefix
    misplaced = make("pk_live_", "first")[1]
    assert service.exchange(misplaced, token_type=API_KEY).reason == "unknown_key"


def test_a_writer_to_the_store_makes_no_key_and_revives_none(service, make, records, settled):
    """AK-01: everything but the MAC is known to whoever reads this file."""
    key, text = make()
    file = service.directory / "var" / "state.db"

    def value(key_id):
        with contextlib.closing(sqlite3.connect(file)) as store:
            return store.execute("SELECT value FROM record WHERE key = ?", (key_id,)).fetchone()[0]

    living = value(key.id)
    records.put(replace(key, revoked_at=int(time.time())))
    service.everywhere(lambda: service.exchange(text, token_type=API_KEY).reason == "revoked")
    own_id, own = key_records.make("sk_live_")
    for key_id, written in (
        (key.id, living),  # its former record
        (own_id, living),  # another's record under one's own id
        (own_id, living.replace(key_records.digest(text).encode(), key_records.digest(own).encode())),
    ):
        records.state.put("api_keys", key_id, written, expected=None)
        settled()
        for one in (text, own):
            reasons = set(service.each(lambda one=one: service.exchange(one, token_type=API_KEY).reason))
            assert reasons <= {"revoked", "unknown_key"}, reasons
    assert "was put back to before its latest change" in service.log()
    assert "is not authentic: another writer changed it in the store" in service.log()
    assert text not in service.log() + service.audit_file.read_text()
