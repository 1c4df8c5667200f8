"""Tokens that are minted after a revocation by a worker that has not seen it yet, or while it is being made."""

import hashlib
import json

import pytest
from harness import unb64
from in_process import World

from sts.labels import hashed
from sts.state.revocations import name_of, revoke

BACKEND = {"client_id": "orders-service", "client_secret": "orders-service-secret-for-tests-only"}


def backend(document):
    """One backend that may ask about its tokens and exchange them for the next audience's."""
    client = {"auth": "secret", "secrets": [f"sha256:{hashlib.sha256(BACKEND['client_secret'].encode()).hexdigest()}"]}
    document["clients"]["orders-service"] = {
        **client,
        "backend_of": ["orders"],
        "sources": [],
        "audiences": ["billing"],
    }
    document["audiences"]["billing"] = {"claims": {"tenant": "identity.tenant"}}
    del document["routes"]["billing"]
    return document


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, backend)
    yield made
    made.close()


@pytest.fixture
def revoked(world):
    """Record a revocation; the worker sees it with the next look at the store."""

    def revoked(kind, value):
        revoke(world.state.store, name_of(world.audit_key, kind, value), world.clock())

    return revoked


def again(world, token):
    """What comes of a token of ours that its backend exchanges for the next one's."""
    reply = world.exchange(token, **BACKEND, audience="billing")
    return json.loads(reply.body).get("error_reason", "exchanged")


def told(world, token):
    """What its backend is told of a token."""
    return world.introspect(token, *BACKEND.values())


NAMES = [("subject", "alice"), ("source", "corporate-idp")]


@pytest.mark.parametrize(("kind", "value"), NAMES, ids=str)
def test_a_token_born_after_its_revocation_ends_as_soon_as_the_worker_sees_it(world, revoked, kind, value):
    """RV-06: its own `iat` is younger than the revocation, the credential it was made from is not."""
    inbound = world.fresh()
    world.later(5)
    revoked(kind, value)
    world.later(1)
    token = world.minted(inbound)
    chained = world.minted(token, **BACKEND, audience="billing")
    assert told(world, token)["active"] is True
    world.state.revocations.refresh()
    assert told(world, token) == {"active": False}
    assert again(world, token) == "revoked"
    assert world.exchange(inbound).status == 400
    assert chained != token
    world.later(1)
    fresh = world.minted()  # who logs in again is let in
    assert told(world, fresh)["active"] is True
    assert again(world, fresh) == "exchanged"


def test_a_second_hop_is_as_old_as_the_credential_behind_the_first(world):
    """Exchanging again makes no login look younger."""
    inbound = world.fresh()
    born = int(world.clock())
    world.later(60)
    first = world.minted(inbound)
    world.later(60)
    second = world.minted(first, **BACKEND, audience="billing")
    for token in (first, second):
        claims = json.loads(unb64(token.split(".")[1]))
        assert born - 1 <= claims["src_iat"] <= born < claims["iat"]


def test_a_credential_without_a_time_makes_tokens_that_every_revocation_concerns(world, revoked):
    token = world.minted(world.idp.token(iat=None))
    assert json.loads(unb64(token.split(".")[1]))["src_iat"] == 0
    revoked("subject", "alice")
    world.state.revocations.refresh()
    assert told(world, token) == {"active": False}
    assert again(world, token) == "revoked"


def test_what_is_minted_for_a_client_after_its_revocation_goes_on(world, revoked):
    """A client's revocation concerns what was minted for it until then, whatever that was made from."""
    inbound = world.fresh()
    before = world.minted(inbound)
    world.later(5)
    revoked("client", "edge-gateway")
    world.state.revocations.refresh()
    world.later(5)
    after = world.minted(inbound)
    assert after != before
    assert told(world, before) == {"active": False}
    assert again(world, before) == "revoked"
    assert told(world, after)["active"] is True
    assert again(world, after) == "exchanged"


@pytest.mark.parametrize(("kind", "value"), [*NAMES, ("client", "edge-gateway")], ids=str)
def test_what_is_revoked_while_opa_is_asked_is_not_handed_out(tmp_path, fake_opa, kind, value):
    def change(document):
        backend(document)
        document["opa"] = {"url": fake_opa.url, "timeout": "5s"}
        document["audiences"]["orders"]["opa"] = True

    world = World(tmp_path, change)
    try:
        inbound = world.fresh()

        def says(handler):
            revoke(world.state.store, name_of(world.audit_key, kind, value), world.clock())
            world.state.revocations.refresh()
            handler.reply({"result": True}, headers={"Cache-Control": "max-age=60"})

        fake_opa.says = says
        reply = world.exchange(inbound)
        assert (reply.status, json.loads(reply.body)["error_reason"]) == (400, "revoked")
        assert len(fake_opa.asked) == 1
        assert len(world.app.memory) == 0
    finally:
        world.close()


@pytest.mark.parametrize("kind", ["subject", "source", "credential"])
def test_a_miss_hashes_only_the_credential_where_nothing_is_revoked_and_a_later_revocation_ends_the_token(
    world, revoked, monkeypatch, kind
):
    hashes = []
    monkeypatch.setattr("sts.state.revocations.hashed", lambda *parts: hashes.append(parts[1]) or hashed(*parts))
    inbound = world.idp.token()
    token = world.minted(inbound)
    assert world.minted(inbound) == token
    assert set(hashes) == {"credential"}
    revoked(kind, {"subject": "alice", "source": "corporate-idp", "credential": inbound}[kind])
    world.state.revocations.refresh()
    assert json.loads(world.exchange(inbound).body)["error_reason"] == "revoked"


def test_a_revocation_of_another_credential_leaves_a_cached_token_alone(world, revoked):
    inbound = world.idp.token()
    token = world.minted(inbound)
    revoked("credential", "another")
    world.state.revocations.refresh()
    assert world.minted(inbound) == token
