"""Two replicas that hold different mappings for a while, as in a rolling change of the configuration."""

import hashlib
import json

import pytest
import yaml
from harness import ACCESS_TOKEN, CLIENT, GRANT, SECRET, decoded, minimal

BACKEND = "orders-service"
BACKEND_SECRET = "orders-service-secret-for-tests-only"


def configuration(idp, var, role):
    """`role` is what the backend is told in its claim of that name."""
    document = yaml.safe_load(minimal(idp))
    digest = hashlib.sha256(BACKEND_SECRET.encode()).hexdigest()
    backend = {"auth": "secret", "secrets": [f"sha256:{digest}"], "backend_of": ["orders"], "sources": []}
    document["clients"][BACKEND] = {**backend, "audiences": ["billing"]}
    document["audiences"]["orders"]["claims"] = {"role": role}
    document["audiences"]["billing"] = {"claims": {"role": "identity.roles", "tenant": "identity.tenant"}}
    del document["routes"]["billing"]
    return json.dumps({**document, "var": str(var), "workers": 1})


@pytest.fixture
def ask():
    def ask(replica, token, audience="orders", client=CLIENT, secret=SECRET):
        form = {"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS_TOKEN, "audience": audience}
        return replica.post(form, client=client, secret=secret)

    return ask


@pytest.fixture
def again(ask):
    """What becomes of a token that its backend exchanges: the claims of the next one, or why there is none."""

    def again(replica, token):
        answer = ask(replica, token, "billing", BACKEND, BACKEND_SECRET)
        return decoded(answer.token)[1] if answer.status == 200 else answer.reason

    return again


def test_no_replica_reads_a_token_by_another_mapping_than_the_one_that_wrote_it(
    make_service, idp, tmp_path, ask, again
):
    """A user of the tenant "admin" must not get a role of that name from whichever replica comes next."""
    user = idp.token(agency_id="admin", roles=["clerk"])
    var = tmp_path / "var"
    tenants, roles = (configuration(idp, var, f"identity.{attribute}") for attribute in ("tenant", "roles"))
    old, new = make_service(tenants), make_service(roles)
    assert old.jwks() == new.jwks()
    by_old, by_new = ask(old, user).token, ask(new, user).token
    assert (decoded(by_old)[1]["role"], decoded(by_new)[1]["role"]) == ("admin", ["clerk"])
    assert again(old, by_old)["tenant"] == "admin"
    assert again(new, by_new)["role"] == ["clerk"]
    assert (again(new, by_old), again(old, by_new)) == ("no_mapping", "no_mapping")
    old.write(roles)
    assert old.reload()["event"] == "reloaded"
    assert again(old, by_old) == "no_mapping"  # whatever was kept of it before
    assert again(old, by_new)["role"] == ["clerk"]
    assert again(old, ask(old, user).token)["role"] == ["clerk"]  # a new token is as good as ever
