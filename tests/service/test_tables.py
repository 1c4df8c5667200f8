"""Look-ups in a running service: a file that is reloaded, a third party that fails, and what stays in the cache."""

import json

import pytest
from harness import Idp, Service, decoded, minimal, wait_for
from web import Web


class People(Web):
    """A trusted third party's API: GET /people/<key>."""

    def __init__(self):
        super().__init__()
        self.rows, self.status, self.asked = {}, 200, []
        self.url += "/people/{key}"

    def handle(self, handler):
        self.asked.append((handler.path, handler.headers.get("Authorization")))
        row = self.rows.get(handler.path.removeprefix("/people/"))
        status = self.status if row is not None or self.status != 200 else 404
        handler.reply(b"" if row is None else row, status)


STAFF = "external_id,employee_id\nalice,E7\nbob,E8\n"


@pytest.fixture
def people():
    people = People()
    yield people
    people.close()


@pytest.fixture
def provider():
    provider = Idp()
    yield provider
    provider.close()


@pytest.fixture
def service(provider, people, configured, tmp_path):
    (tmp_path / "employees.csv").write_text(STAFF)
    text = configured(
        minimal(provider),
        {
            "workers": 1,
            "tables/employees": {"file": "employees.csv", "key": "external_id"},
            "tables/hr": {"url": people.url, "client_id": "sts", "client_secret": "hush", "cache_ttl": "1s"},
            "sources/corporate-idp/identity/subject": "lookup('employees', claims.sub).employee_id",
            "audiences/billing/claims": {"cost_centre": "lookup('hr', identity.subject).cost_centre"},
            "audiences/billing/allow": "true",
        },
    )
    service = Service(tmp_path, text)
    yield service
    assert service.stop() == 0, service.log()


def test_an_external_id_becomes_the_internal_one_and_a_reload_reads_the_file_anew(service, provider, tmp_path):
    token = provider.token(sub="alice")
    first = service.exchange(token)
    assert decoded(first.token)[1]["sub"] == "E7"
    assert service.exchange(token).token == first.token  # from the cache
    (tmp_path / "employees.csv").write_text(STAFF.replace("E7", "E70"))
    assert service.exchange(token).token == first.token  # nobody reads it before a reload
    assert service.reload()["event"] == "reloaded"
    assert decoded(service.exchange(token).token)[1]["sub"] == "E70"


def test_a_faulty_file_refuses_the_reload_and_the_old_rows_stay(service, provider, tmp_path):
    (tmp_path / "employees.csv").write_text(STAFF + "alice,E9\n")
    assert service.reload()["event"].startswith("reload refused")
    assert decoded(service.exchange(provider.token(sub="alice")).token)[1]["sub"] == "E7"


def test_nobody_in_the_table_is_nobody(service, provider):
    answer = service.exchange(provider.token(sub="mallory"))
    assert (answer.status, answer.reason) == (400, "no_mapping")
    assert service.forward(provider.token(sub="mallory")).status == 403
    event = service.events()[-1]
    assert event["reason"] == "no_mapping"
    assert "mallory" not in json.dumps(event)


def test_a_third_party_says_what_a_claim_holds(service, provider, people):
    people.rows["E7"] = {"cost_centre": "4711"}
    token = provider.token(sub="alice", scope="billing:read", roles=["accountant"])
    first = service.exchange(token, "billing")
    assert decoded(first.token)[1]["cost_centre"] == "4711"
    assert people.asked == [("/people/E7", "Basic c3RzOmh1c2g=")]
    people.rows["E7"] = {"cost_centre": "4712"}
    wait_for(lambda: decoded(service.exchange(token, "billing").token)[1]["cost_centre"] == "4712")


def test_a_third_party_that_fails_is_503_and_never_a_missing_row(service, provider, people):
    people.rows["E7"], people.status = {"cost_centre": "4711"}, 500
    token = provider.token(sub="alice", scope="billing:read orders:read", roles=["accountant"])
    answer = service.exchange(token, "billing")
    assert (answer.status, answer.reason) == (503, "source_unreachable")
    assert service.exchange(token).status == 200  # orders looks nothing up there
    people.status = 200
    assert service.exchange(token, "billing").status == 200
    people.rows.clear()
    wait_for(lambda: service.exchange(token, "billing").reason == "no_mapping")


def test_accounts_of_partners_lie_in_redis(provider, configured, redis_server, tmp_path):
    redis_server.client().hset("partners:alice", mapping={"account": "A-1"})
    changes = {
        "workers": 1,
        "secret": {"env": "STS_SECRET"},
        "redis": redis_server.settings,
        "tables/partners": {"redis": "partners:{key}", "cache_ttl": "1s"},
        "sources/corporate-idp/identity/subject": "lookup('partners', claims.sub).account",
    }
    service = Service(tmp_path, configured(minimal(provider), changes), environment={"STS_SECRET": "0a" * 32})
    token = provider.token(sub="alice")
    assert decoded(service.exchange(token).token)[1]["sub"] == "A-1"
    redis_server.client().hset("partners:alice", mapping={"account": "A-2"})
    wait_for(lambda: decoded(service.exchange(token).token)[1]["sub"] == "A-2")
    assert service.exchange(provider.token(sub="mallory")).reason == "no_mapping"
    redis_server.stop()
    assert service.exchange(provider.token(sub="bob")).reason == "source_unreachable"
    assert "table partners" in service.get("/readyz").json["degraded"]
    rows = [line for line in service.get("/metrics").body.decode().splitlines() if "sts_table_rows_total{" in line]
    assert {'outcome="found"', 'outcome="missing"', 'outcome="failed"'} <= {
        part for line in rows for part in line.partition("{")[2].partition("}")[0].split(",")
    }
    redis_server.start()
    assert service.stop() == 0, service.log()
