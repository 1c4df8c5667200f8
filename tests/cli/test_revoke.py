"""`sts revoke` and `sts revocations list`: what they take, say and refuse."""

import json
import time
from pathlib import Path

import pytest
import yaml
from harness import free_port

from sts.audit.log import LABEL
from sts.mint.keystore import open_secret
from sts.settings import load
from sts.state.revocations import KINDS, name_of


@pytest.fixture
def config(sts, offline):
    """A configuration whose secret and ring were made."""
    assert sts("keys", "init", "-c", offline).exit_code == 0
    return offline


@pytest.fixture
def key(config):
    return open_secret(None, load(config).var).key(LABEL)


def listed(sts, config):
    return json.loads(sts("revocations", "list", "--json", "-c", config).stdout)["revocations"]


@pytest.mark.parametrize(
    ("options", "kind", "value", "source"),
    [
        (["--subject", "alice"], "subject", "alice", ""),
        (["--sid", "s-1"], "sid", "s-1", ""),
        (["--jti", "j-1"], "jti", "j-1", ""),
        (["--client", "edge-gateway"], "client", "edge-gateway", ""),
        (["--source", "corporate-idp"], "source", "corporate-idp", ""),
        (["--source", "corporate-idp", "--subject", "4711"], "source_subject", "4711", "corporate-idp"),
        (["--source", "corporate-idp", "--sid", "s-1"], "source_sid", "s-1", "corporate-idp"),
        (["--credential-hash", "hmac:" + "a" * 32], "credential", "hmac:" + "a" * 32, ""),
    ],
)
def test_each_thing_has_its_name(sts, config, key, options, kind, value, source):
    done = sts("revoke", *options, "-c", config, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["done"] is True
    assert f"{told['what']}:{told['name']}" == name_of(key, kind, value, source)
    (found,) = listed(sts, config)
    assert found["what"] == kind
    assert kind in KINDS
    assert abs(found["until"] - time.time() - 30 * 86400) < 60


def test_a_credential_is_read_from_a_file_or_standard_input_and_never_shown(sts, config, tmp_path):
    (tmp_path / "leaked").write_text("head.payload.signature\n")
    first = sts("revoke", "--credential", tmp_path / "leaked", "-c", config)
    again = sts("revoke", "--credential", "-", "-c", config, input="head.payload.other")
    assert (first.exit_code, first.stdout) == (0, again.stdout)
    assert "payload" not in first.stdout
    assert len(listed(sts, config)) == 1


def test_a_dry_run_changes_nothing(sts, config):
    said = sts("revoke", "--subject", "alice", "--dry-run", "-c", config)
    assert (said.exit_code, "would be revoked" in said.stdout) == (0, True)
    assert listed(sts, config) == []
    assert sts("revocations", "list", "-c", config).stdout == "nothing is revoked\n"


def test_a_revocation_is_audited_as_it_is_kept_and_a_dry_run_is_not(sts, config, tmp_path):
    document = json.loads(config.read_text())
    config.write_text(json.dumps({**document, "audit": {"file": "audit.jsonl"}}))
    for options in (["--dry-run"], ["--reason", "laptop stolen"]):
        assert sts("revoke", "--subject", "alice", *options, "-c", config).stderr == ""
    (event,) = map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines())
    (kept,) = listed(sts, config)
    assert kept.items() <= event.items()
    assert (event["event"], event["action"], event["reason"]) == ("revocations", "revoked", "laptop stolen")
    assert event["by"]
    assert event["revision"]


def test_a_credential_in_the_reason_is_masked_in_the_audit_as_a_service_would(sts, config):
    document = json.loads(config.read_text())
    identity = dict.fromkeys(document["sources"]["corporate-idp"]["identity"], "key.owner")
    document["sources"] = {"corporate-idp": {"type": "api_key", "prefix": "shop_", "identity": identity}}
    config.write_text(json.dumps(document))
    said = sts("revoke", "--subject", "alice", "--reason", "shop_hunter2hunter2 leaked", "-c", config)
    assert json.loads(said.stderr.splitlines()[0])["reason"] == "shop_*** leaked"


def test_without_a_file_for_the_audit_a_revocation_is_told_on_standard_error(sts, config):
    (event,) = map(json.loads, sts("revoke", "--subject", "alice", "-c", config).stderr.splitlines())
    assert (event["event"], event["what"]) == ("revocations", "subject")


def test_reason_and_life_are_kept_and_shown(sts, config):
    said = sts("revoke", "--subject", "alice", "--reason", "laptop stolen", "--for", "7d", "-c", config)
    assert said.stdout.endswith("revoked, kept for 7d\n")
    assert "laptop stolen" in sts("revocations", "list", "-c", config).stdout
    (found,) = listed(sts, config)
    assert (found["reason"], round(found["until"] - found["at"])) == ("laptop stolen", 7 * 86400)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "Name one of"),
        (["--subject", ""], "Name one of"),
        (["--subject", "a", "--jti", "b"], "Name one of"),
        (["--jti", "a", "--source", "corporate-idp"], "is used alone"),
        (["--client", "edge-gatewya"], "There is no client"),
        (["--source", "corporate"], "There is no source"),
        (["--subject", "a", "--for", "7"], "a duration is"),
        (["--credential-hash", "a"], "hmac:"),
        (["--subject", "a", "--reason", "x" * 201], "at most 200"),
    ],
)
def test_what_would_revoke_nothing_is_a_fault_of_usage(sts, config, options, says):
    done = sts("revoke", *options, "-c", config)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr


def test_without_the_secret_nothing_is_revoked(sts, offline):
    done = sts("revoke", "--subject", "alice", "-c", offline)
    assert done.exit_code == 1
    assert "there is no deployment secret" in done.stderr


def test_without_the_secret_nothing_is_listed_and_nothing_is_made(sts, offline):
    """A command that looks in the wrong place must not say that nothing is revoked."""
    done = sts("revocations", "list", "-c", offline)
    var = Path(offline).resolve().parent / "var"
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"there is no deployment secret at {var / 'secret'}" in done.stderr
    assert not (var / "state.db").exists()


def test_what_could_not_be_written_is_not_said_to_be_revoked(sts, config):
    """RV-04."""
    file = Path(config).resolve()
    written = {"redis": {"url": f"redis://127.0.0.1:{free_port()}/0"}, "state": {"store": "redis"}}
    document = yaml.safe_load(file.read_text("utf-8")) | {"secret": {"file": "var/secret"}} | written
    file.write_text(json.dumps(document), "utf-8")
    done = sts("revoke", "--subject", "alice", "-c", config)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "cannot be reached" in done.stderr


@pytest.mark.parametrize(
    ("options", "noted"),
    [
        (["--source", "partner-keys"], True),
        (["--source", "partner-keys", "--subject", "acme"], True),
        (["--subject", "key|acme"], True),
        (["--credential", "-"], True),
        (["--source", "corporate-idp"], False),
        (["--source", "corporate-idp", "--subject", "4711"], False),
        (["--jti", "j-1"], False),
        (["--client", "edge-gateway"], False),
    ],
)
def test_whoever_revokes_api_keys_so_is_told_that_they_outlive_it(sts, config, options, noted):
    """A revocation is kept for a month, and a key may live for good."""
    document = json.loads(config.read_text())
    key = {
        "type": "api_key",
        "prefix": "sk_",
        "namespace": "key",
        "audiences": ["*"],
        "identity": {"subject": "key.owner"},
    }
    document["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
    document["sources"]["partner-keys"] = key
    document["clients"]["edge-gateway"]["sources"] = ["*"]
    config.write_text(json.dumps(document))
    done = sts("revoke", *options, "--json", "-c", config, input="sk_of-somebody")
    assert (done.exit_code, json.loads(done.stdout)["done"]) == (0, True)
    assert ("`sts api-keys revoke` is permanent" in done.stderr) is noted


def test_a_store_that_may_not_be_used_is_one_that_cannot_be_reached(sts, config):
    """As for `sts keys` and `sts api-keys`: a script tells a refusal from a store by the exit status."""
    assert sts("revoke", "--subject", "alice", "-c", config).exit_code == 0
    (load(config).var / "state.db").chmod(0o644)
    for command in (["revoke", "--subject", "alice"], ["revocations", "list"]):
        done = sts(*command, "-c", config)
        assert (done.exit_code, done.stdout) == (3, "")
        assert "state.db" in done.stderr
