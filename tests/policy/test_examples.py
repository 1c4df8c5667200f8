"""docs/policy.md does what it says: each fragment is a configuration, each row of a table what it comes to."""

import copy
import json
import re
import urllib.request
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from harness import MINIMAL

from sts.errors import REASONS, Refusal
from sts.lookups.opa import Said
from sts.model import Admitted, RequestFacts
from sts.settings import load

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(yaml|rego|json)\n(.*?)```\n", re.DOTALL)


def table_below(text):
    """The rows of the table that begins `text`, each by column; none if something else stands there."""
    lines = []
    for line in text.lstrip("\n").splitlines():
        if not line.startswith("|"):
            break
        lines.append([cell.strip() for cell in line.strip("|").split("|")])
    if len(lines) < 3:
        return []
    return [dict(zip(lines[0], row, strict=True)) for row in lines[2:]]


def blocks(language):
    return [(found[2], table_below(PAGE[found.end() :])) for found in BLOCK.finditer(PAGE) if found[1] == language]


FRAGMENTS = [(yaml.safe_load(text), rows) for text, rows in blocks("yaml")]
ROWS = [(fragment, row) for fragment, rows in FRAGMENTS for row in rows]


def cell(row, column):
    """What stands in a cell between backticks, read as YAML; None for an empty one."""
    text = row.get(column, "").strip("`")
    return yaml.safe_load(text) if text and column != "at" else text or None


def merged(below, above):
    for key, value in above.items():
        below[key] = merged(below.get(key, {}), value) if isinstance(value, dict) else value
    return below


def outcome(world, fragment, row):
    """What the rules of `fragment` make of the row's identity, request and time: "passes" or the reason's name."""
    claims = {"sub": "alice", **(cell(row, "claims") or {}), **(cell(row, "identity") or {})}
    source = {"identity": {"subject": "claims.sub", **{name: f"claims.{name}" for name in claims if name != "sub"}}}
    source.update(fragment.get("sources", {}).get("corporate-idp", {}))
    routes = {name: route["allow"] for name, route in fragment.get("routes", {}).items()}
    policy = world.policy(fragment.get("audiences", {"orders": {}}), source, routes)
    facts = cell(row, "request")
    usual = {"method": "GET", "host": "api.example.com", "path": "/orders/7"}
    request = None if facts is None else RequestFacts(**{**usual, **facts})
    ask = replace(world.ask, request=request, route=next(iter(routes), None))
    now = 0.0 if "at" not in row else datetime.fromisoformat(cell(row, "at")).timestamp()
    admitted = Admitted(replace(world.principal, attributes=claims), float("inf"), float("inf"))
    try:
        policy.decide(
            world.client,
            policy.identify(admitted, world.rows),
            admitted,
            policy.target(world.client, ask),
            ask,
            now,
            world.rows,
        )
    except Refusal as refusal:
        return f"`{refusal.reason.name}`"
    return "passes"


@pytest.mark.parametrize(("fragment", "row"), ROWS, ids=lambda one: str(one.get("", "")))
def test_each_row_comes_to_what_the_page_says(world, fragment, row):
    assert outcome(world, fragment, row) == row[""]


@pytest.mark.parametrize(("fragment", "rows"), FRAGMENTS)
def test_each_fragment_is_a_configuration(tmp_path, fragment, rows):
    document = merged(yaml.safe_load(MINIMAL.read_text()), copy.deepcopy(fragment))
    mapped = {name: f"claims.{name}" for row in rows for name in cell(row, "identity") or {}}
    merged(document["sources"]["corporate-idp"]["identity"], mapped)
    (tmp_path / "sts.yaml").write_text(json.dumps(document))
    load(tmp_path / "sts.yaml", {})


def test_each_example_has_rows_that_pass_and_rows_that_do_not():
    for fragment, rows in FRAGMENTS:
        if rows:
            assert {row[""] == "passes" for row in rows} == {True, False}, fragment
    assert {row[""].strip("`") for _, row in ROWS} - {"passes"} <= REASONS.keys()
    assert len(ROWS) > 25


def test_what_opa_is_told_is_what_the_page_shows(world):
    ((text, _),) = blocks("json")
    asked = []

    class Opa:
        def ask(self, question):
            asked.append(json.loads(json.dumps(question)))
            return Said({"result": True}, None)

    shown = json.loads(text)
    policy = replace(world.policy({"orders": {"opa": True, "scopes": ["read"]}}, routes={"r": None}), opa=Opa())
    facts = RequestFacts("GET", "api.example.com", "/orders/7", "https", "10.20.30.40")
    ask = replace(world.ask, door="forward_auth", route="r", request=facts)
    admitted = Admitted(world.principal, float("inf"), float("inf"))
    identity, target = policy.identify(admitted, world.rows), policy.target(world.client, ask)
    grant = policy.decide(world.client, identity, admitted, target, ask, 0.0, world.rows)
    policy.narrow(grant, world.client, identity, admitted, target, ask, 0.0)

    def shape(value):
        return {name: shape(member) for name, member in value.items()} if isinstance(value, dict) else type(value)

    assert [shape(question) for question in asked] == [shape(shown)]


def test_a_real_opa_comes_to_what_the_page_says(make_opa):
    ((rego, rows),) = blocks("rego")
    opa = make_opa(rego)
    assert len(rows) > 3
    for row in rows:
        body = json.dumps({"input": cell(row, "input")}).encode()
        request = urllib.request.Request(opa.url(), body, {"Content-Type": "application/json"})  # noqa: S310 - loopback
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            assert json.load(answer)["result"] is (row[""] == "`true`"), row
