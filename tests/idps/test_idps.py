"""Tokens shaped like those of the usual identity providers, through the configurations of examples/idps."""

import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from harness import ACCESS_TOKEN, ISSUER, decoded

from sts.cli.check import check
from sts.expressions import compile_rule

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "idps.md"
EXAMPLES = HERE.parents[1] / "examples" / "idps"
SHAPES = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(HERE.glob("shapes/*.yaml"))}
NAMES = sorted(SHAPES)

CASES = [(name, what, case) for name, shapes in SHAPES.items() for what, case in shapes["refused"].items()]
VARIANTS = [(name, what, case) for name, shapes in SHAPES.items() for what, case in shapes.get("also", {}).items()]

# What each internal token holds beside the mapped claims.
ALWAYS = {"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope", "act", "src_iat"}


def ids(value):
    return value if isinstance(value, str) else ""


def passes(service, vendor, now, case=None):
    """Send a token through both doors and compare what the internal ones hold."""
    token, expected = vendor.token(now, case), vendor.minted(now)
    answer = service.exchange(token, token_type=vendor.token_type)
    assert answer.status == 200, (answer, service.events()[-1])
    claims = service.verified(answer.token)
    assert {name: claims[name] for name in expected} == expected
    assert set(claims) == ALWAYS | set(expected)
    assert (claims["iss"], claims["client_id"]) == (ISSUER, "edge-gateway")
    forwarded = service.forward(token)
    assert forwarded.status == 200, (forwarded, service.events()[-1])
    claims = service.verified(forwarded.token)
    assert {name: claims[name] for name in expected} == {**expected, "scope": "orders:read"}


@pytest.mark.parametrize("name", NAMES)
def test_a_token_of_this_shape_gives_these_internal_claims(service, vendors, now, name):
    passes(service, vendors[name], now)


@pytest.mark.parametrize(("name", "what", "case"), VARIANTS, ids=ids)
def test_another_shape_of_the_same_provider_gives_the_same(service, vendors, now, name, what, case):  # noqa: ARG001 - an id
    passes(service, vendors[name], now, case)


@pytest.mark.parametrize(("name", "what", "case"), CASES, ids=ids)
def test_what_this_provider_signs_for_another_purpose_is_refused(service, vendors, now, name, what, case):  # noqa: ARG001 - an id
    vendor, reason = vendors[name], case["reason"]
    token = vendor.token(now, case)
    answer = service.exchange(token, token_type=vendor.token_type)
    assert (answer.status, answer.reason) == (400, reason), service.events()[-1]
    forwarded = service.forward(token)
    assert forwarded.status == (403 if reason in {"no_mapping", "insufficient_scope"} else 401)
    assert [event["reason"] for event in service.events()[-2:]] == [reason, reason]


@pytest.mark.parametrize("name", NAMES)
def test_a_token_that_another_provider_signed_is_refused(service, vendors, now, name):
    """The key of one issuer says nothing under another's name (RFC 8725 §3.8)."""
    vendor = vendors[name]
    other = vendors[NAMES[NAMES.index(name) - 1]]
    answer = service.exchange(vendor.token(now, key=other.key), token_type=vendor.token_type)
    assert (answer.status, answer.reason) == (400, "bad_signature")
    assert service.forward(vendor.token(now, key=other.key)).status == 401


def test_an_id_token_comes_in_only_where_it_is_named(service, vendors, now):
    """`Authorization: Bearer` declares it an access token; it is known by its content."""
    google = vendors["google"]
    assert service.exchange(google.token(now), token_type=ACCESS_TOKEN).status == 200
    unmarked = google.token(now, {"claims": {"at_hash": None}})
    assert service.exchange(unmarked, token_type=ACCESS_TOKEN).reason == "bad_type"
    assert service.exchange(unmarked, token_type=google.token_type).status == 200


def test_one_person_is_one_subject_in_both_versions_of_entra(service, vendors, now):
    minted = [service.exchange(vendors[name].token(now)).token for name in ("entra-v1", "entra-v2")]
    assert len({service.verified(token)["sub"] for token in minted}) == 1


BASE = """
issuer: https://sts.example.internal
listen: 127.0.0.1:8080
include: [{file}]
clients:
  edge-gateway:
    auth: secret
    secrets: ["sha256:0000000000000000000000000000000000000000000000000000000000000000"]
    audiences: [orders]
audiences:
  orders: {{scopes: [orders:read, orders:write]}}
"""


def test_the_examples_together_pass_the_check():
    done = CliRunner().invoke(check, [str(EXAMPLES / "sts.yaml")])
    assert done.exit_code == 0, done.output
    assert f"{len(NAMES)} sources" in done.output


@pytest.mark.parametrize("name", NAMES)
def test_each_example_passes_the_check_by_itself(tmp_path, name):
    (tmp_path / "sts.yaml").write_text(BASE.format(file=EXAMPLES / f"{name}.yaml"), encoding="utf-8")
    done = CliRunner().invoke(check, [str(tmp_path / "sts.yaml")])
    assert done.exit_code == 0, done.output


def test_every_example_has_its_shapes_and_its_place_on_the_page():
    files = {file.stem for file in EXAMPLES.glob("*.yaml")} - {"sts"}
    assert files == set(NAMES)
    page = PAGE.read_text(encoding="utf-8")
    assert files == set(re.findall(r"\]\(\.\./examples/idps/([a-z0-9-]+)\.yaml\)", page)) - {"sts"}


def test_the_page_says_what_the_examples_say():
    """Its table is compared with the files: audience, where keys come from, subject."""
    page = PAGE.read_text(encoding="utf-8")
    for name in NAMES:
        (source,) = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"))["sources"].values()
        row = next(line for line in page.splitlines() if line.startswith(f"| [{name}](#"))
        claim = source.get("audience_claim", "aud")
        keys = "discovery" if source.get("discovery") else "jwks_uri"
        assert f"| `{claim}` |" in row
        assert f"| `{keys}` |" in row
        subject = source["identity"]["subject"].removeprefix("claims.")
        assert f"| `{subject}` |" in row


def mapped(vendor, now, case):
    """What the mappings that the page offers beside the example's give for a token of this shape."""
    section = (
        PAGE.read_text(encoding="utf-8").partition(f"../examples/idps/{vendor.name}.yaml)\n")[2].partition("\n## ")[0]
    )
    block = re.search(r"^  ```yaml\n(  identity:.*?)^  ```", section, re.MULTILINE | re.DOTALL)[1]
    claims = decoded(vendor.token(now, case))[1]
    rules = yaml.safe_load(block)["identity"]
    return {name: compile_rule(rule, frozenset({"claims"})).value({"claims": claims}) for name, rule in rules.items()}


def test_the_other_mapping_for_okta_tells_people_from_applications(vendors, now):
    okta = vendors["okta"]
    assert mapped(okta, now, {}) == {"subject": "00uixa271s6x7qt8I0h7"}
    assert mapped(okta, now, {"claims": {"uid": None}}) == {"subject": "0oaoesxtxmPf08QHk0h7"}


def test_the_other_mapping_for_entra_tells_people_from_applications(vendors, now):
    entra = vendors["entra-v2"]
    assert mapped(entra, now, {}) == {"scopes": ["orders:read"], "roles": ["Accountant"]}
    application = {"claims": {"scp": None, "roles": ["Orders.Read.All", "Accountant"]}}
    assert mapped(entra, now, application) == {"scopes": ["orders:read"], "roles": []}
