"""Fingerprints and revision: they change with what they stand for, and with nothing else."""

import copy

import pytest

ENTRIES = {
    "client/edge",
    "source/idp",
    "source/other",
    "audience/orders",
    "audience/billing",
    "route/orders",
    "route/health",
}
CHANGES = [
    ("clients.edge.secrets", ["sha256:" + "b" * 64], {"client/edge"}),
    ("clients.edge.enabled", False, {"client/edge"}),
    ("clients.edge.audiences", ["*"], {"client/edge"}),
    ("clients.edge.networks", ["10.0.0.0/8"], {"client/edge"}),
    ("sources.idp.identity.tenant", "claims.tid", {"source/idp"}),
    ("sources.idp.leeway", "11s", {"source/idp"}),
    ("sources.other.namespace", "third", {"source/other"}),
    ("audiences.orders.ttl", "4m", {"audience/orders"}),
    ("audiences.orders.claims", {"a": "identity.roles"}, {"audience/orders"}),
    ("audiences.billing.enabled", False, {"audience/billing"}),
    ("defaults.audience.multi", True, {"audience/orders", "audience/billing"}),
    ("routes.orders.allow", "true", {"route/orders"}),
    ("issuer", "https://new.example.internal", {"client/edge", "audience/orders", "audience/billing"}),
    ("threads", 3, set()),
    ("cache.memory", "1MB", set()),
    ("keys.rotate_every", "9d", set()),
]


@pytest.fixture
def config(two_sources):
    two_sources["audiences"]["billing"] = {}
    two_sources["routes"]["health"] = {"path": "/health", "public": True}
    return two_sources


def changed(config, path, value):
    *parents, key = path.split(".")
    place = config = copy.deepcopy(config)
    for parent in parents:
        place = place.setdefault(parent, {})
    place[key] = value
    return config


@pytest.mark.parametrize(("path", "value", "touched"), CHANGES)
def test_a_change_touches_exactly_the_fingerprints_of_what_it_changes(config, loaded, path, value, touched):
    old, new = loaded(config), loaded(changed(config, path, value))
    before, after = old.fingerprints(), new.fingerprints()
    assert set(before) == ENTRIES
    assert {name for name in ENTRIES if before[name] != after[name]} == touched
    assert old.revision != new.revision


def test_the_same_configuration_written_otherwise_has_the_same_fingerprints(config, loaded):
    old = loaded(config)
    config["audiences"]["billing"]["ttl"] = "300s"
    config["audiences"] = dict(reversed(config["audiences"].items()))
    config["clients"]["edge"]["audiences"] = "orders"
    assert loaded(config).fingerprints() == old.fingerprints()


def test_a_secret_from_elsewhere_counts_by_its_value(config, loaded):
    config["clients"]["edge"]["secrets"] = [{"env": "DIGEST"}]
    one, same, other = (
        loaded(config, {"DIGEST": "sha256:" + letter * 64}).fingerprints()["client/edge"] for letter in "aab"
    )
    assert one == same != other


def test_a_new_client_touches_every_source_since_no_subject_may_have_its_name(config, loaded):
    before = loaded(config).fingerprints()
    config["clients"]["alice"] = {"auth": "secret", "secrets": ["sha256:" + "c" * 64], "audiences": [], "sources": []}
    after = loaded(config).fingerprints()
    assert {name for name in before if before[name] != after[name]} == {"source/idp", "source/other"}


def test_who_a_client_is_at_a_source_touches_every_source_since_only_it_may_have_that_name(config, loaded):
    config["clients"]["batch"] = {"auth": "access_token", "source": "idp", "client_id": "batch", "audiences": []}
    config["clients"]["batch"]["sources"] = ["idp"]
    before = loaded(config)
    assert before.own_subjects() == {"batch": ("idp", "batch")}
    config["clients"]["batch"]["client_id"] = "another"
    after = loaded(config).fingerprints()
    changed = {name for name, found in before.fingerprints().items() if after[name] != found}
    assert changed == {"client/batch", "source/idp", "source/other"}
    config["clients"]["batch"]["enabled"] = False
    assert loaded(config).own_subjects() == {}


def test_a_second_source_touches_the_first_since_it_was_alone(config, loaded):
    del config["sources"]["other"]
    alone = loaded(config).fingerprints()["source/idp"]
    config["sources"]["other"] = copy.deepcopy(config["sources"]["idp"]) | {
        "issuer": "https://b.example",
        "namespace": "b",
    }
    assert loaded(config).fingerprints()["source/idp"] != alone


def test_the_revision_is_short_and_does_not_hang_on_the_deployment_secret(config, loaded):
    config["secret"] = {"env": "STS_SECRET"}
    one, other = (loaded(config, {"STS_SECRET": letter * 42 + "A"}).revision for letter in "AB")
    assert one == other
    assert len(one) == 12


def test_the_longest_ttl_counts_disabled_audiences(config, loaded):
    config["audiences"]["billing"] = {"ttl": "1h", "enabled": False}
    assert loaded(config).longest_ttl() == 3600
    assert loaded({"issuer": config["issuer"]}).longest_ttl() == 0
