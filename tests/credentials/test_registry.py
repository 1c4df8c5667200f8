"""A new kind of credential is one file and a line in the registry, from which every part of the service learns it."""

import ast
import json
import secrets
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import CLIENT, ISSUER, SECRET, decoded
from in_process import PEER, World
from shared_token import NAME, TYPE, SharedTokenSettings

from sts.cli.main import cli
from sts.credentials import registry
from sts.credentials.kind import SourceSettings
from sts.model import Incoming
from sts.settings import SettingsError, load
from sts.telemetry import mask, redaction

TOKEN = "shr_partner.correct-horse-battery"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    """All that is needed to add a kind."""
    monkeypatch.setitem(registry.KINDS, NAME, SharedTokenSettings)
    monkeypatch.setattr(redaction, "_prefixes", set())
    monkeypatch.setattr(redaction, "_prefixed", [])


def partner(**changed):
    """One source of shared tokens."""
    identity = {"subject": "shared.name", "scopes": "['orders:read']", "tenant": "'t'", "roles": "[]"}
    written = {"type": NAME, "prefix": "shr_", "token": TOKEN, "identity": identity}
    return written | {"audiences": ["*"], "namespace": "partner"} | changed


def with_partner(document, **changed):
    document["sources"]["corporate-idp"] |= {"audiences": ["*"], "namespace": ""}
    document["clients"][CLIENT]["sources"] = ["*"]
    document["sources"]["partner"] = partner(**changed)


@pytest.fixture
def world(tmp_path):
    """A service with a source of the new kind beside a JWT source."""
    made = World(tmp_path, with_partner)
    yield made
    made.close()


@pytest.fixture
def faults(tmp_path, world):
    """What loading says of this source of the new kind, and of others beside it."""

    def faults(more=None, **changed):
        document = json.loads(world.file.read_text())
        with_partner(document, **changed)
        document["sources"].update(more or {})
        file = tmp_path / "faulty.yaml"
        file.write_text(json.dumps(document))
        with pytest.raises(SettingsError) as caught:
            load(file)
        return [(fault.path, fault.problem) for fault in caught.value.faults]

    return faults


def forward(world, **headers):
    asked = {"x-original-method": "GET", "x-original-uri": "/orders/1", "x-original-host": "api.example.com"}
    sent = {"x-gateway-secret": SECRET, **asked, **{name.replace("_", "-"): value for name, value in headers.items()}}
    incoming = Incoming("GET", f"/forward-auth/{CLIENT}", sent, PEER, secrets.token_hex(16))
    return world.app.current.exchange.answer(world.app.current.forward_auth_door, incoming)


def test_a_credential_of_a_new_kind_passes_at_both_doors(world):
    reply = forward(world, x_shared_token=TOKEN)
    assert reply.status == 200
    for token in (world.minted(TOKEN, subject_token_type=TYPE), dict(reply.headers)["Authorization"].split()[1]):
        _, claims = decoded(token)
        assert (claims["iss"], claims["sub"]) == (ISSUER, "partner|partner")
    assert [json.loads(event)["kind"] for event in world.events] == [NAME, NAME]


@pytest.mark.parametrize("wrong", [TOKEN + "x", "zz_" + TOKEN])
def test_a_wrong_credential_of_a_new_kind_is_refused_at_both_doors(world, wrong):
    assert world.exchange(wrong, subject_token_type=TYPE).status == 400
    assert forward(world, x_shared_token=wrong).status == 401


def test_a_credential_of_a_new_kind_beside_a_bearer_token_is_refused(world):
    """AK-03."""
    assert dict(forward(world, x_shared_token=TOKEN, authorization="Bearer abc").headers)["X-Auth-Reason"] != ""
    assert json.loads(world.events[-1])["reason"] == "malformed"


def test_a_disabled_source_of_a_new_kind_is_refused_after_a_reload(world):
    document = json.loads(world.file.read_text())
    document["sources"]["partner"]["enabled"] = False
    world.file.write_text(json.dumps(document))
    world.app.swap(load(world.file))
    assert world.exchange(TOKEN, subject_token_type=TYPE).status == 400


def test_the_log_masks_what_follows_the_prefix_of_a_new_kind(world):
    assert world.app.current
    assert mask(f"the caller sent {TOKEN} to us") == "the caller sent shr_*** to us"


def test_faults_of_a_new_kind_are_listed_with_those_of_all_others(faults):
    assert faults(token="other") == [("sources.partner.token", "does not begin with shr_")]
    assert [path for path, _ in faults(header="Cookie")] == ["sources.partner.header"]
    assert [path for path, _ in faults(prefix=None)] == ["sources.partner.prefix"]


def test_two_sources_of_a_new_kind_that_cannot_stand_side_by_side_are_a_fault(faults):
    twin = partner(namespace="twin", prefix="shr")
    prefix, token = sorted(faults({"twin": twin}))
    assert prefix[0] == "sources.twin.prefix"
    assert token[0] == "sources.twin.token"
    assert "is also the token of partner (" in token[1]


def test_a_prefix_or_a_header_of_a_new_kind_cannot_be_that_of_another_kind(faults):
    keys = {"type": "api_key", "audiences": ["*"], "namespace": "k", "identity": {"subject": "key.owner"}}
    assert [path for path, _ in faults({"keys": {**keys, "prefix": "shr_x_"}})] == ["sources.keys.prefix"]
    found = faults({"keys": {**keys, "prefix": "sk_", "header": "x-shared-token"}})
    assert found == [
        ("sources.keys.header", "x-shared-token is also the header of partner, whose credentials are of another type")
    ]


@pytest.mark.parametrize("target", [["--audience", "orders"], ["--request", "GET https://api.example.com/orders/7"]])
def test_explain_walks_a_credential_of_a_new_kind(world, target):
    arguments = ["explain", "-c", str(world.file), *target, "--type", NAME]
    result = CliRunner().invoke(cli, arguments, input=TOKEN)
    assert result.exit_code == 0, result.output
    assert "kind: shared_token" in result.stdout
    assert "subject: partner|partner" in result.stdout
    assert TOKEN not in result.output


def test_check_shows_a_source_of_a_new_kind_without_its_secret(world):
    result = CliRunner().invoke(cli, ["check", str(world.file), "--effective"])
    assert result.exit_code == 0, result.output
    assert "shared_token" in result.stdout
    assert TOKEN not in result.output


def test_no_module_but_its_own_asks_for_the_class_of_a_sources_settings():
    """A kind that other modules know by its class is more than one file."""
    kinds = {model.__name__: model.__module__ for model in registry.KINDS.values()}
    for path in sorted((ROOT / "sts").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        named = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        foreign = {name for name in named & kinds.keys() if kinds[name] != module}
        assert not foreign or module == registry.__name__, (module, foreign)


def test_every_kind_says_what_it_reads():
    for name, model in registry.KINDS.items():
        assert issubclass(model, SourceSettings)
        assert model.credential_types, name
