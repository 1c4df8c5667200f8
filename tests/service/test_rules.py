"""What a stranger's credential can make the rules of a running service do."""

import pytest
from harness import Idp, Service, decoded, minimal

GROUPS = "claims.groups.split(',').map(g, g.trim()).filter(g, g != '')"


@pytest.fixture
def provider():
    provider = Idp()
    yield provider
    provider.close()


@pytest.fixture
def running(provider, configured, tmp_path):
    def running(roles):
        changes = {
            "workers": 1,
            "sources/corporate-idp/identity/roles": roles,
            "audiences/orders/claims": {"roles": "identity.roles"},
        }
        started.append(Service(tmp_path, configured(minimal(provider), changes)))
        return started[-1]

    started = []
    yield running
    for service in started:
        assert service.stop() == 0, service.log()


def count(service):
    """What `sts_rules_over_budget_total` says, by source."""
    lines = service.get("/metrics").body.decode().splitlines()
    found = [line for line in lines if line.startswith("sts_rules_over_budget_total{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in found}


def test_a_token_that_a_rule_would_work_on_for_long_is_refused_told_apart_and_counted(running, provider):
    service = running(GROUPS)
    usual = service.exchange(provider.token(sub="alice", groups=" clerk, manager,"))
    assert decoded(usual.token)[1]["roles"] == ["clerk", "manager"]
    assert service.exchange(provider.token(sub="alice", groups=["clerk"])).reason == "no_mapping"
    assert count(service) == {}
    hostile = provider.token(sub="alice", groups="," * 5000)
    assert service.exchange(hostile).reason == "no_mapping"
    assert service.forward(hostile).status == 403
    first, second = service.events()[-2:]
    assert first["facts"] == second["facts"] == {"attribute": "roles", "why": "budget"}
    assert (first["reason"], first["source"]) == ("no_mapping", "corporate-idp")
    assert count(service) == {"corporate-idp": 2.0}


def test_lists_of_nulls_end_no_worker(running, provider):
    service = running("claims.roles.filter(r, r != null)")
    workers = service.workers()
    for number in range(60):
        assert service.exchange(provider.token(sub=f"user{number}", roles=[None] * 2000)).status == 200
    assert service.workers() == workers
