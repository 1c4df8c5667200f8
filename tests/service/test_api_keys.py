"""API keys at both doors of a real service, made and revoked by the command beside it."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml
from harness import SECRET, Service, decoded, in_time, minimal, wait_for
from redis_servers import KINDS, RedisServer

from scripts import servers
from sts import labels
from sts.state import key_records
from sts.state.key_records import LABEL, ApiKey, KeyRecords
from sts.state.sqlite import SqliteState

API_KEY = "urn:sts:token-type:api_key"
STS = [sys.executable, "-m", "sts"]
KEYS = """
  partner-keys:
    type: api_key
    prefix: sk_live_
    audiences: [orders]
    namespace: key
    identity: {subject: key.owner, scopes: key.scopes, tenant: key.tenant}
"""


def configured(idp):
    text = minimal(idp).replace("audiences:                                # the backends", KEYS + "audiences:  #")
    text = text.replace("    profile: nginx\n", "    profile: nginx\n    sources: ['*']\n")
    return text.replace(
        "    audience: api-gateway\n", "    audience: api-gateway\n    audiences: ['*']\n    namespace: ''\n"
    )


def typed(service, *arguments, **environment):
    """Run the command beside a service."""
    done = subprocess.run(
        [*STS, "api-keys", *arguments, "-c", str(service.file)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def with_keys(idp, tmp_path_factory):
    running = Service(tmp_path_factory.mktemp("keys"), "workers: 2\n" + configured(idp))
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture(scope="module")
def command(with_keys):
    def run(*arguments, fails=False):
        done = subprocess.run(
            [*STS, "api-keys", *arguments, "-c", str(with_keys.file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert bool(done.returncode) == fails, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def make(with_keys):
    """Put a key into the store as the command does, without the time that a process takes to start."""
    var = with_keys.directory / "var"
    state = SqliteState(var / "state.db", time.time)
    records = KeyRecords(state, labels.read(var / "secret").keys(LABEL))

    def make_key(**facts):
        key_id, text = key_records.make("sk_live_")
        usual = {"owner": "acme", "scopes": ("orders:read",), "created_at": int(time.time())}
        records.put(ApiKey(key_id, "partner-keys", digest=key_records.digest(text), **usual | facts))
        return {"key": text, "id": key_id, **facts}

    yield make_key
    state.close()


def exchanged(service, key, **fields):
    return service.exchange(key, token_type=API_KEY, **fields)


def outcome(service, key):
    """The reason of a refusal, or nothing."""
    answer = exchanged(service, key)
    return "" if answer.status == 200 else answer.reason


def asked(service, key, **headers):
    return service.forward(None, **{"X_API_Key": key, **headers})


def known(service, key):
    """Wait until every worker has seen the key."""
    service.everywhere(lambda: exchanged(service, key).status == 200)


def test_a_key_becomes_a_token_at_both_doors(with_keys, make):
    """AK-01, AK-02."""
    made = make(tenant="acme-inc")
    known(with_keys, made["key"])
    claims = with_keys.verified(exchanged(with_keys, made["key"]).token)
    assert (claims["sub"], claims["scope"], claims["tenant"]) == ("key|acme", "orders:read", "acme-inc")
    answer = asked(with_keys, made["key"])
    assert answer.status == 200
    assert with_keys.verified(answer.token)["sub"] == "key|acme"
    assert made["key"] not in with_keys.log() + with_keys.audit_file.read_text()


def test_a_key_is_read_from_its_header_only(with_keys, make):
    """AK-01, BE-05: neither as a Bearer token nor from the query."""
    key = make()["key"]
    known(with_keys, key)
    assert with_keys.forward(key).status == 401
    assert with_keys.forward(None, uri=f"/orders/7?api_key={key}").status == 401
    assert with_keys.exchange(key).reason == "unknown_issuer"


def test_every_event_of_a_known_key_names_its_id_and_no_other_text_is_named(with_keys, make):
    """Who has a leaked key's id finds what it did, from the cache too; a stranger's text leaves no trace but a hash."""
    made, narrow, over = make(), make(scopes=()), make(expires_at=int(time.time()) - 5)
    known(with_keys, made["key"])
    other_secret = made["key"][:20] + "x" * 32
    forged = other_secret + key_records._checksum(other_secret)
    for text, reason in (
        (made["key"], None),
        (narrow["key"], "insufficient_scope"),
        (over["key"], "expired"),
        (forged, "unknown_key"),
    ):
        exchanged(with_keys, text)
        event = with_keys.events()[-1]
        assert (event["reason"], event["credential_id"]) == (reason, text[8:20])
    asked(with_keys, made["key"])
    assert with_keys.events()[-1]["credential_id"] == made["id"]
    for text in (key_records.make("sk_live_")[1], made["key"][:-1], "sk_live_a-password-of-somebody"):
        exchanged(with_keys, text)
        assert "credential_id" not in with_keys.events()[-1]
        assert text[8:20] not in json.dumps(with_keys.events()[-1])


def test_a_key_that_is_sent_in_another_place_stands_in_no_event(with_keys, make, idp):
    ours, theirs = make()["key"], "sk_live_legacy-0123456789abcdef"
    for text in (ours, theirs):
        for fields in ({"audience": text}, {"resource": f"https://{text}/x", "audience": None}, {"scope": text}):
            assert with_keys.exchange(idp.token(), **fields).status == 400
        assert with_keys.forward(idp.token(), X_Request_ID=text).status == 200
    told = with_keys.audit_file.read_text() + with_keys.log()
    assert [text for text in (ours, theirs) if text.removeprefix("sk_live_") in told] == []
    assert "sk_live_***" in told


def test_a_key_beside_a_token_is_refused(with_keys, make, idp):
    """AK-03."""
    key = make()["key"]
    known(with_keys, key)
    assert with_keys.forward(idp.token()).status == 200
    answer = with_keys.forward(idp.token(), X_API_Key=key)
    assert (answer.status, answer.headers["x-auth-reason"]) == (401, "invalid_credential")
    assert with_keys.events()[-1]["reason"] == "malformed"


def test_two_keys_in_one_header_are_refused(with_keys, make):
    key = make()["key"]
    known(with_keys, key)
    for doubled in (f"{key},{key}", f"{key}, {key}"):
        assert asked(with_keys, doubled).status == 401


def test_a_mistyped_key_is_malformed_and_a_made_up_one_unknown(with_keys, make):
    key = make()["key"]
    known(with_keys, key)
    assert exchanged(with_keys, key[:-1] + ("a" if key[-1] != "a" else "b")).reason == "malformed"
    assert exchanged(with_keys, "sk_live_made-up-elsewhere").reason == "unknown_key"
    assert exchanged(with_keys, "pk_test_0123456789").reason == "unknown_issuer"
    assert exchanged(with_keys, "sk_live_" + "x" * 400).reason == "too_large"


def test_a_revocation_is_felt_on_every_worker_and_by_every_cached_token(with_keys, make, command):
    """AK-02. Lesson 3.10 (WSO2-2021-1487: a key worked on after its end)."""
    made = make()
    known(with_keys, made["key"])
    assert [answer.status for answer in with_keys.each(lambda: exchanged(with_keys, made["key"]))] == [200, 200]
    command("revoke", made["id"])
    with_keys.everywhere(lambda: exchanged(with_keys, made["key"]).reason == "revoked")


def test_a_key_reaches_only_the_audiences_it_lists(with_keys, make, command):
    """AK-02."""
    command("create", "--owner", "acme", "--audience", "billing", fails=True)  # its source does not list it
    key = make(audiences=("orders",))["key"]
    known(with_keys, key)
    assert exchanged(with_keys, key, audience="billing").reason == "no_consent"


def test_an_expired_key_is_refused_and_its_tokens_end_with_it(with_keys, make):
    """AK-02, TE-30."""

    def used(seconds):
        made = make(expires_at=int(time.time()) + seconds)
        answers = []
        wait_for(lambda: answers.append(exchanged(with_keys, made["key"])) or answers[-1].reason != "unknown_key")
        return (made, answers[-1]) if answers[-1].status == 200 else None

    made, answer = in_time(used)
    assert decoded(answer.token)[1]["exp"] <= made["expires_at"]
    with_keys.everywhere(lambda: outcome(with_keys, made["key"]) == "expired")


def test_a_rotated_key_has_a_successor_at_once_and_works_on_for_its_grace(with_keys, command):
    made = [json.loads(command("create", "--owner", "acme", "--scope", "orders:read", "--json")) for _ in range(2)]
    for old, grace, then in zip(made, ("1h", "1s"), ("", "expired"), strict=True):
        known(with_keys, old["key"])
        new = json.loads(command("rotate", old["id"], "--grace", grace, "--json"))
        known(with_keys, new["key"])
        assert decoded(exchanged(with_keys, new["key"]).token)[1]["scope"] == "orders:read"
        with_keys.everywhere(lambda old=old, then=then: outcome(with_keys, old["key"]) == then)
        assert outcome(with_keys, new["key"]) == ""


def test_an_imported_key_works_like_one_of_ours(with_keys, command, tmp_path):
    text = "sk_live_legacy-0123456789abcdef0123456789abcdef"
    file = tmp_path / "keys.csv"
    file.write_text(f"key,owner,scopes\n{text},legacy,orders:read orders:write\n")
    assert "1 would be imported" in command("import", "--dry-run", str(file))
    assert "1 imported, 0 there already" in command("import", str(file))
    assert "0 imported, 1 there already" in command("import", str(file))
    known(with_keys, text)
    assert decoded(exchanged(with_keys, text).token)[1]["sub"] == "key|legacy"


def test_the_list_tells_who_may_do_what_and_never_a_key(make, command):
    made = make(tier="gold")
    listed = json.loads(command("list", "--owner", "acme", "--json"))
    mine = next(one for one in listed if one["id"] == made["id"])
    assert (mine["tier"], mine["scopes"], mine["state"], mine["last_used"]) == ("gold", ["orders:read"], "live", None)
    assert made["key"] not in command("list", "--all")
    assert made["id"] in command("list")


def test_explain_walks_a_key_through(with_keys, make):
    key = make()["key"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sts",
            "explain",
            "-c",
            str(with_keys.file),
            "--audience",
            "orders",
            "--type",
            "api_key",
        ],
        input=key,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "key.owner" in done.stdout
    assert SECRET not in done.stdout


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_two_machines_over_one_redis_feel_each_others_changes(make_service, idp, tmp_path, kind):
    """AK-02: a key that one machine makes opens the other one, until the other revokes it."""
    if servers.find(KINDS[kind]) is None:
        pytest.skip(f"no {kind}-server is installed, and none could be")
    server = RedisServer(kind, tmp_path / "redis").start()
    secrets = {"STS_SECRET": "A" * 43, "REDIS_PASSWORD": server.settings["password"]}
    document = yaml.safe_load(configured(idp)) | {"workers": 1, "secret": {"env": "STS_SECRET"}}
    document["redis"] = {"url": server.settings["url"], "password": {"env": "REDIS_PASSWORD"}}
    document["state"] = {"store": "redis"}
    try:
        one, two = (make_service(json.dumps(document), environment=secrets) for _ in range(2))
        made = json.loads(typed(one, "create", "--owner", "acme", "--scope", "orders:read", "--json", **secrets))
        for machine in (one, two):
            wait_for(lambda machine=machine: exchanged(machine, made["key"]).status == 200)
            assert asked(machine, made["key"]).status == 200
        typed(two, "revoke", made["id"], **secrets)
        for machine in (one, two):
            wait_for(lambda machine=machine: exchanged(machine, made["key"]).reason == "revoked")
            assert asked(machine, made["key"]).status == 401
        server.stop()  # what was seen counts for `max_stale`, and nothing that was revoked comes back
        assert exchanged(one, made["key"]).reason == "revoked"
    finally:
        server.stop()
