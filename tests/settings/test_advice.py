"""Warnings of `sts check`: what is no fault but may well be a mistake."""

import copy

import pytest

from sts.settings import estimate, examine, load

SECOND_SECRET = "sha256:" + "1" * 64


@pytest.fixture
def warnings(write):
    return lambda config, **beside: examine(write(config, **beside), {})[1]


def test_a_configuration_of_defaults_has_no_warnings(base, warnings):
    assert warnings(base) == ()


def test_a_limit_below_a_typical_token_is_told_with_its_place(base, warnings):
    base["audiences"]["orders"]["max_token_bytes"] = 256
    (only,) = warnings(base)
    assert only.path == "audiences.orders.max_token_bytes"
    assert only.line
    assert "would be refused: the limit is 256 bytes" in only.problem


@pytest.mark.parametrize(("limit", "told"), [(3072, 0), (3073, 1)])
def test_a_limit_that_a_gateways_buffer_does_not_hold_is_told(base, warnings, limit, told):
    base["audiences"]["orders"]["max_token_bytes"] = limit
    assert [one.path for one in warnings(base)] == ["audiences.orders.max_token_bytes"] * told


def test_a_disabled_audience_is_not_advised_on(base, warnings):
    base["audiences"]["off"] = {"enabled": False, "max_token_bytes": 256}
    assert warnings(base) == ()


def test_a_token_is_estimated_from_what_its_audience_maps(base, write):
    few = estimate(load(write(base), {}))["orders"]
    base["audiences"]["orders"]["claims"] = {
        "roles": "identity.roles",
        "text": "'" + "x" * 300 + "'",
        "odd": "identity.subject.substring(90)",
        "late": "now + 60",
    }
    assert few + 400 * 4 // 3 < estimate(load(write(base), {}))["orders"] < few + 700 * 4 // 3


def test_actors_that_no_rule_holds_to_anything_are_told(two_sources, warnings):
    client, audience = two_sources["clients"]["edge"], two_sources["audiences"]["orders"]
    client["actors"] = ["other"]
    (only,) = warnings(two_sources)
    assert only.path == "clients.edge.actors"
    assert "no `allow` of orders reads `actor`" in only.problem
    audience["allow"] = "identity.subject != 'root'"
    assert len(warnings(two_sources)) == 1
    for rule in ("actor.subject == 'job'", "!has(actor.subject) || actor.subject == 'job'"):
        audience["allow"] = rule
        assert warnings(two_sources) == ()
    client["sources"] = ["idp"]
    assert [one.path for one in warnings(two_sources) if "actors" in one.path] == ["clients.edge.actors[0]"]


def test_sources_without_a_namespace_that_reach_one_audience_are_told(two_sources, warnings):
    first, second = two_sources["sources"]["idp"], two_sources["sources"]["other"]
    assert warnings(two_sources) == ()
    second["namespace"] = ""
    first["same_subjects"] = second["same_subjects"] = True
    (only,) = warnings(two_sources)
    assert only.path == "sources.idp.namespace"
    assert "from those of other, at orders" in only.problem
    second["audiences"] = []
    assert warnings(two_sources) == ()
    second.update(audiences=["orders"], enabled=False)
    assert warnings(two_sources) == ()


def test_a_claim_that_looks_a_row_up_is_estimated_without_asking_anybody(base, write):
    base["tables"] = {"hr": {"url": "https://hr.example.com/{key}"}}
    base["audiences"]["orders"]["claims"] = {"cost_centre": "lookup('hr', identity.subject).cost_centre"}
    assert estimate(load(write(base), {}))["orders"] > 300


def test_a_source_that_no_client_lists_is_told(two_sources, warnings):
    client, other = two_sources["clients"]["edge"], two_sources["sources"]["other"]
    client["sources"] = ["idp"]
    (only,) = warnings(two_sources)
    assert only.path == "sources.other"
    assert only.line
    assert "no client lists it" in only.problem
    two_sources["clients"]["second"] = {**copy.deepcopy(client), "secrets": [SECOND_SECRET], "sources": ["other"]}
    assert warnings(two_sources) == ()
    two_sources["clients"]["second"]["enabled"] = False
    assert [one.path for one in warnings(two_sources)] == ["sources.other"]
    other["enabled"] = False
    assert warnings(two_sources) == ()


def test_a_source_by_which_a_client_proves_itself_is_of_use(two_sources, warnings):
    client = two_sources["clients"]["edge"]
    client["sources"] = ["idp"]
    proven = {"auth": "access_token", "source": "other", "client_id": "itself", "audiences": ["orders"]}
    two_sources["clients"]["itself"] = {**proven, "sources": ["idp"]}
    assert warnings(two_sources) == ()


def test_a_source_without_scopes_for_backends_that_have_some_is_told(base, warnings):
    """Scopes that nobody maps are none, and never all."""
    del base["sources"]["idp"]["identity"]["scopes"]
    (only,) = warnings(base)
    assert only.path == "sources.idp.identity"
    assert "maps no `scopes`, but its audiences (orders) need some" in only.problem
    base["audiences"]["plain"] = {}
    assert warnings(base) == (), "it is of use for a backend without scopes"
    base["audiences"]["plain"]["enabled"] = False
    assert warnings(base) != ()
    base["sources"]["idp"]["enabled"] = False
    assert warnings(base) == ()


def test_thousands_of_audiences_are_estimated_with_one_look_at_the_sources(base, write):
    """With a look at all sources for each audience, 10 000 of both took minutes."""

    class Counted(dict):
        looks = 0

        def values(self):
            Counted.looks += 1
            return super().values()

    settings = load(write(base), {})
    audience = settings.audiences["orders"]
    looks = []
    for count in (1, 20):
        Counted.looks = 0
        audiences = {f"audience-{number}": audience for number in range(count)}
        many = settings.model_copy(update={"audiences": audiences, "sources": Counted(settings.sources)})
        assert len(estimate(many)) == count
        looks.append(Counted.looks)
    assert looks[0] == looks[1] > 0
