"""Several workers seen as one service, and who may look: /metrics, /readyz, /healthz."""

import re
import signal

import pytest
from harness import Service, free_port, minimal, wait_for
from prometheus_client.parser import text_string_to_metric_families

DOWN = "https://down.example.com"


@pytest.fixture(scope="module")
def text(idp, configured):
    """Two workers, and beside the provider one whose keys nobody serves."""
    down = {
        "type": "jwt",
        "issuer": DOWN,
        "jwks_uri": f"http://127.0.0.1:{free_port()}/jwks.json",
        "algorithms": ["RS256"],
        "audience": "api-gateway",
        "audiences": ["*"],
        "namespace": "down",
        "identity": {"subject": "claims.sub"},
    }
    known = {"clients/edge-gateway/sources": ["*"], "sources/corporate-idp/audiences": ["*"]}
    changes = {"workers": 2, "sources/corporate-idp/namespace": "", "sources/down-idp": down}
    return configured(minimal(idp), known | changes)


@pytest.fixture(scope="module")
def service(text, tmp_path_factory):
    running = Service(tmp_path_factory.mktemp("workers"), text)
    yield running
    assert running.stop() == 0, running.log()


def number(service, sample, **labels):
    """The sum of a sample's series with these labels."""
    text = service.get("/metrics").body.decode()
    return sum(
        one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == sample and labels.items() <= one.labels.items()
    )


def test_metrics_are_the_sum_over_all_workers_whichever_answers(service, idp):
    first, second = service.workers()
    token = idp.token()
    before = number(service, "sts_decisions_total")
    with service.only(first):
        assert [service.exchange(token).status for _ in range(3)] == [200] * 3
        assert service.exchange(idp.token(exp=1)).status == 400
    with service.only(second):
        assert [service.forward(token).status for _ in range(2)] == [200] * 2
        assert number(service, "sts_decisions_total") == before + 6
        assert number(service, "sts_decisions_total", door="token", outcome="allowed", cached="true") == 2
        assert number(service, "sts_decisions_total", reason="expired") == 1
        assert number(service, "sts_decision_seconds_count") == number(service, "sts_decisions_total")
        assert number(service, "sts_cache_entries") == 2
    with service.only(first):
        assert number(service, "sts_decisions_total") == before + 6


def test_what_a_killed_worker_counted_stays_and_its_cache_does_not(service, idp, replaced):
    survivor, killed = max(service.workers()), min(service.workers())
    with service.only(killed):
        assert service.exchange(idp.token()).status == 200
    decisions, entries = number(service, "sts_decisions_total"), number(service, "sts_cache_entries")
    with service.only(survivor):
        assert service.exchange(idp.token()).status == 200
    assert replaced(service, signal.SIGKILL) == killed
    assert number(service, "sts_decisions_total") == decisions + 1
    wait_for(lambda: number(service, "sts_cache_entries") <= entries)
    for _ in range(2):
        assert service.exchange(idp.token()).status == 200
    assert number(service, "sts_decisions_total") == decisions + 3


def test_the_keys_and_the_fetches_are_there_for_an_alarm(service, idp):
    assert service.exchange(idp.token()).status == 200
    assert number(service, "sts_keys_published") == 2
    assert number(service, "sts_key_due_seconds", algorithm="ES256") > 29 * 86400
    assert number(service, "sts_jwks_fetches_total", source="corporate-idp", outcome="fetched") >= 1
    assert number(service, "sts_audit_failures_total") == 0


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "X-Original-URI"],
)
def test_through_a_proxy_nobody_sees_metrics_or_detail(service, header):
    """Lesson 3.10."""
    through = {header: "127.0.0.1"}
    assert service.get("/metrics", through).status == 404
    assert service.get("/metrics", through).body == service.get("/nothing-there", through).body
    assert service.get("/readyz", through).json == {"status": "ready"}
    assert service.get("/healthz", through).json == {"status": "ok"}


def test_an_operator_sees_what_readiness_hangs_on(service):
    answer = service.get("/readyz")
    assert answer.headers["cache-control"] == "no-store"
    detail = answer.json
    ring = {"ring_version", "ring_unseen_s", "ring_fault", "jwks_for_s"}
    assert set(detail) == {"status", "revision", "revocations", *ring, "keys", "degraded"}
    assert set(detail["keys"]["ES256"]) == {"kid", "age_s", "due_in_s", "standby", "standby_ready_in_s"}
    assert (detail["ring_fault"], detail["jwks_for_s"] > 3600) == ("", True)
    assert re.fullmatch("[0-9a-f]{12}", detail["revision"])
    assert detail["keys"]["ES256"]["kid"] in {key["kid"] for key in service.jwks()["keys"]}


def test_a_key_store_that_cannot_be_read_is_told_as_long_as_it_lasts(make_service, idp):
    """Workers that run go on to sign; one that starts now would fail."""
    service = make_service(minimal(idp) + "\nworkers: 1\nkeys: {poll: 1s}\n")
    ring = service.directory / "var" / "keyring.json"
    whole = ring.read_bytes()
    ring.write_bytes(b"{")
    wait_for(lambda: "key store" in service.get("/readyz").json["degraded"])
    assert service.get("/readyz").status == 200
    assert service.exchange(idp.token()).status == 200
    ring.write_bytes(whole)
    wait_for(lambda: "key store" not in service.get("/readyz").json["degraded"])


def test_who_is_an_operator_is_configured_and_reloaded(service, text, configured):
    try:
        service.write(configured(text, {"ops_networks": ["10.0.0.0/8", "unix"]}))
        assert service.reload()["event"] == "reloaded"
        assert service.get("/metrics").status == 404
        assert service.get("/readyz").json == {"status": "ready"}
    finally:
        service.write(text)
        assert service.reload()["event"] == "reloaded"
    assert service.get("/metrics").status == 200


def test_an_issuer_that_is_down_is_told_and_takes_nothing_down(service, idp):
    with service.only(min(service.workers())):
        refused = service.exchange(idp.token(iss=DOWN))
        assert (refused.status, refused.reason) == (503, "source_unreachable")
        assert refused.headers["retry-after"]
        answer = service.get("/readyz")
        assert answer.status == 200
        assert list(answer.json["degraded"]) == ["down-idp"]
        assert service.get("/healthz").status == 200
        assert service.exchange(idp.token()).status == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_operators_pages_are_only_read(service, path):
    assert service.request("HEAD", path).status == 200
    assert service.request("POST", path, body=b"").status == 405
    assert service.request("OPTIONS", path).status == 405
