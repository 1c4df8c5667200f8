"""docs/cookbook.md does what it says: each fragment is a configuration, each row of a table what it comes to."""

import json
import re
import time
from datetime import datetime
from urllib.parse import unquote

import pytest
import yaml
from cookbook import PAGE, RECIPES
from harness import MINIMAL
from web import Web

from sts.app import policy as policy_of
from sts.errors import REASONS, Refusal
from sts.expressions import compile_rule
from sts.expressions.words import FUNCTIONS
from sts.lookups.rows import Rows
from sts.lookups.tables import Tables
from sts.model import NOT_APPLICABLE, TYPE_JWT, Admitted, Ask, Client, Credential, Principal, RequestFacts
from sts.settings import examine

PEOPLE = {"alice": {"cost_centre": "4711"}}
ENVIRONMENT = {"HR_SECRET": "hush", "STS_SECRET": "0a" * 32}


ROWS = [(recipe, row) for recipe in RECIPES for row in recipe.rows]


def merged(below, above):
    for key, value in above.items():
        below[key] = merged(below.get(key, {}), value) if isinstance(value, dict) else value
    return below


@pytest.fixture(scope="module")
def people():
    """The third party of the page: what it answers is in `PEOPLE`."""

    def answer(handler):
        name = unquote(handler.path.removeprefix("/people/"))
        row = PEOPLE.get(name)
        handler.reply(row or b"", 500 if name == "broken" else 404 if row is None else 200)

    server = Web(answer)
    yield server.url
    server.close()


@pytest.fixture
def loaded(tmp_path, partner_ca, people):
    """Load a fragment, merged into the small configuration; the addresses are of this machine."""

    def loaded(fragment, files):
        (tmp_path / "partner-ca.pem").write_text(partner_ca.pem)
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        document = merged(yaml.safe_load(MINIMAL.read_text()), fragment)
        written = json.dumps(document).replace("https://hr.example.com", people)
        (tmp_path / "sts.yaml").write_text(written)
        return examine(tmp_path / "sts.yaml", ENVIRONMENT)

    return loaded


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.title)
def test_each_fragment_is_a_configuration_without_faults_and_warnings(loaded, recipe):
    for fragment in recipe.fragments:
        assert loaded(fragment, recipe.files)[1] == ()


def decide(settings, row):
    """What one row of a table comes to: what the token holds, or a refusal."""
    kind = "certificate" if "certificate" in row else "claims"
    source = "partner-certificates" if kind == "certificate" else "corporate-idp"
    said = {"sub": "alice", "scope": "orders:read orders:write"} if kind == "claims" else {}
    said |= yaml.safe_load(row[kind])
    said = {name: value for name, value in said.items() if value is not None}
    now = datetime.fromisoformat(row["at"]).timestamp() if "at" in row else time.time()
    absent = dict.fromkeys(Principal.__dataclass_fields__, NOT_APPLICABLE)
    principal = Principal(**absent | {"kind": "jwt", "source": source, "subject": None, "attributes": said})
    admitted = Admitted(principal, now + 600, now + 600)
    facts = {"method": "GET", "host": "api.example.com", "path": "/orders/7"}
    request = RequestFacts(**facts | yaml.safe_load(row["request"])) if "request" in row else None
    door = "token" if request is None else "forward_auth"
    ask = Ask(door, Credential(TYPE_JWT, "x"), audiences=("orders",), request=request)
    client = Client("edge-gateway", frozenset({"*"}), frozenset({"*"}), None, "nginx")
    policy = policy_of(settings, settings.fingerprints())
    tables = Tables(lambda: now, 4, settings.redis).put(settings.tables)
    rows = Rows(tables, lambda: now)
    try:
        identity = rows.given(lambda: policy.identify(admitted, rows))
        target = policy.target(client, ask)
        grant = rows.given(lambda: policy.decide(client, identity, admitted, target, ask, now, rows))
    finally:
        for table in tables.values():
            getattr(table.table, "close", lambda: None)()
    scope = {"scope": " ".join(grant.scopes)} if grant.scopes is not None else {}
    return {"sub": grant.subject, **scope, **grant.claims, **grant.headers}


@pytest.mark.parametrize(("recipe", "row"), ROWS, ids=lambda one: getattr(one, "title", None) or one[""])
def test_each_row_comes_to_what_the_page_says(loaded, recipe, row):
    settings, _ = loaded(recipe.fragments[0], recipe.files)
    if row[""] in REASONS:
        with pytest.raises(Refusal) as caught:
            decide(settings, row)
        assert caught.value.reason.name == row[""], caught.value.facts
        return
    found = json.loads(json.dumps(decide(settings, row)))  # lists as a token has them
    said = yaml.safe_load(row[""])
    assert {name: found.get(name) for name in said} == said


def test_each_recipe_has_its_rows_and_most_have_some_that_are_refused():
    assert len(RECIPES) > 12
    assert all(recipe.fragments and recipe.rows for recipe in RECIPES)
    refused = [recipe for recipe in RECIPES if any(row[""] in REASONS for row in recipe.rows)]
    assert len(refused) > len(RECIPES) - 4


def test_the_page_shows_how_a_mapping_cannot_leak(loaded):
    """A claim leaves only where its audience maps it: the page's example has one that stays."""
    (recipe,) = [one for one in RECIPES if one.title == "Claims and identity headers"]
    settings, _ = loaded(recipe.fragments[0], recipe.files)
    mapped = {*settings.audiences["orders"].claims, *settings.audiences["orders"].headers}
    assert set(decide(settings, recipe.rows[0])) <= {"sub", "scope"} | mapped


def test_the_functions_that_the_page_lists_are_there():
    """Each word is a name that is offered to whoever misspells it, a macro of CEL, or a whole expression."""
    listed = PAGE.partition("**Functions**")[2].partition("\n## ")[0]
    words = set(re.findall(r"`([^`]+)`", listed.partition("\n\n")[2]))
    variables = frozenset({"claims", "request", "now"})
    others = {"'a' in list": "'a' in claims.list", "+": "[] + []", "map": "[1].map(x, x)", "all": "[1].all(x, true)"}
    others["int"] = "int('1')"
    for word in words - FUNCTIONS:
        compile_rule(others.get(word, word), variables)
    assert len(words & FUNCTIONS) > 20
