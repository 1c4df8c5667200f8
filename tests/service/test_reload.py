"""SIGHUP on a real process: what is right is in force with the next request, what is faulty changes nothing."""

import hashlib
import http.client
import itertools
import json
import os
import signal
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

import pytest
from harness import ACCESS_TOKEN, CLIENT, GRANT, SECRET, Idp, Key, Service, decoded, minimal, wait_for

SECRETS = {CLIENT: SECRET, "batch": "batch-secret-for-tests-only", "new": "new-secret-for-tests-only"}
DIGESTS = {client: "sha256:" + hashlib.sha256(secret.encode()).hexdigest() for client, secret in SECRETS.items()}
OTHER = "https://other.example.com"
GONE = None

ENVIRONMENT = {"GATEWAY_DIGEST": DIGESTS[CLIENT], "DEPLOYMENT_SECRET": "A" * 43}

TWO_OF_EACH = {
    "workers": 1,  # one token cache, so that a hit is certain
    "secret": {"env": "DEPLOYMENT_SECRET"},
    "clients/edge-gateway/secrets": [{"env": "GATEWAY_DIGEST"}],
    "clients/edge-gateway/sources": ["*"],
    "clients/batch": {"auth": "secret", "secrets": [DIGESTS["batch"]], "audiences": ["orders"], "sources": ["*"]},
    "sources/corporate-idp/audiences": ["*"],
    "sources/corporate-idp/namespace": "",
    "sources/other-idp": {
        "type": "jwt",
        "issuer": OTHER,
        "algorithms": ["RS256"],
        "audience": "api-gateway",
        "audiences": ["*"],
        "namespace": "other",
        "identity": {"subject": "claims.sub", "scopes": "claims.scope", "roles": "claims.roles"},
    },
}


@pytest.fixture(scope="module")
def provider():
    provider = Idp()
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def base(provider, configured):
    return configured(minimal(provider), {**TWO_OF_EACH, "sources/other-idp/jwks_uri": provider.url})


@pytest.fixture(scope="module")
def running(base, tmp_path_factory):
    running = Service(tmp_path_factory.mktemp("reload"), base, environment=ENVIRONMENT)
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture
def service(running, base):
    """The service of this module on its first configuration, which it goes back to after each test."""
    yield running
    running.write(base)
    assert running.reload()["event"] == "reloaded", running.log()


@pytest.fixture
def change(service, base, configured):
    """Reload with a change; returns the line in which the service says that it did."""

    def change(changes):
        service.write(configured(base, changes))
        line = service.reload()
        assert line["event"] == "reloaded", service.log()
        return line

    return change


def refused(service):
    """Reload what must be refused; returns the faults that the log lists."""
    before = len(service.log())
    line = service.reload()
    assert line["event"] == "reload refused, nothing has changed"
    told = [json.loads(each) for each in service.log()[before:].splitlines()]
    faults = [each["fault"] for each in told if each["event"] == "reload refused"]
    assert line["faults"] == len(faults) > 0
    return faults


def revision(service):
    return service.get("/readyz").json["revision"]


def exchange(service, token, audience="orders", client=CLIENT):
    form = {
        "grant_type": GRANT,
        "subject_token": token,
        "subject_token_type": ACCESS_TOKEN,
        "audience": audience,
        "scope": "orders:read" if audience == "orders" else "billing:read",
    }
    return service.post(form, client=client, secret=SECRETS[client])


def counted(service, outcome):
    name = f'sts_reloads_total{{outcome="{outcome}"}} '
    lines = service.get("/metrics").body.decode().splitlines()
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


ASKS = {
    "orders": lambda service, corporate, _: exchange(service, corporate),
    "billing": lambda service, corporate, _: exchange(service, corporate, "billing"),
    "orders by the other client": lambda service, corporate, _: exchange(service, corporate, client="batch"),
    "orders from the other source": lambda service, _, other: exchange(service, other),
    "the route to orders": lambda service, corporate, _: service.forward(corporate),
    "the route to billing": lambda service, corporate, _: service.forward(corporate, "/billing/1"),
}
OF_ORDERS = {name for name in ASKS if "orders" in name}
OF_BILLING = set(ASKS) - OF_ORDERS


@pytest.mark.parametrize(
    ("changes", "touched"),
    [
        ({"audiences/orders/ttl": "4m"}, OF_ORDERS),
        ({"audiences/billing/allow": "'accountant' in identity.roles || false"}, OF_BILLING),
        ({"clients/batch/default_audience": "orders"}, {"orders by the other client"}),
        ({"sources/other-idp/max_lifetime": "24h"}, {"orders from the other source"}),
        ({"routes/orders-read/allow": "identity.subject != ''"}, {"the route to orders"}),
        ({"routes/more": {"path": "/more", "public": True}, "cache/min_remaining": "10s"}, set()),
        ({"audiences/more": {"ttl": "1m"}}, set()),
    ],
    ids=["audience", "another audience", "client", "source", "route", "a new route", "a new audience"],
)
def test_a_change_voids_the_cached_tokens_that_it_touched_and_no_other(service, provider, change, changes, touched):
    tokens = provider.token(), provider.token(iss=OTHER)
    first = {name: ask(service, *tokens).token for name, ask in ASKS.items()}
    assert {name: ask(service, *tokens).token for name, ask in ASKS.items()} == first
    fetches = provider.fetches
    change(changes)
    assert {name for name, ask in ASKS.items() if ask(service, *tokens).token != first[name]} == touched
    assert [event["cached"] for event in service.events()[-len(ASKS) :]] == [name not in touched for name in ASKS]
    assert provider.fetches == fetches  # the issuer's keys are no reload's victims


def test_a_new_audience_client_and_route_serve_from_the_next_request(service, provider, change):
    token = provider.token(scope="stock:read")
    assert service.exchange(token, "stock").reason == "no_consent"
    line = change(
        {
            "clients/edge-gateway/audiences": ["orders", "billing", "stock"],
            "clients/new": {"auth": "secret", "secrets": [DIGESTS["new"]], "audiences": ["stock"], "sources": ["*"]},
            "audiences/stock": {"ttl": "1m", "scopes": ["stock:read"]},
            "routes/stock": {"path": "/stock/*", "audience": "stock", "scopes": ["stock:read"]},
        }
    )
    assert service.verified(service.exchange(token, "stock").token, "stock")["scope"] == "stock:read"
    assert service.verified(service.forward(token, "/stock/1").token, "stock")
    form = {"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS_TOKEN, "audience": "stock"}
    assert service.post(form, client="new", secret=SECRETS["new"]).status == 200
    assert {event["revision"] for event in service.events()[-3:]} == {line["revision"]}


def test_another_ttl_holds_from_the_next_request(service, provider, change):
    token = provider.token()
    exchange(service, token)
    change({"audiences/orders/ttl": "90s"})
    _, claims = decoded(exchange(service, token).token)
    assert claims["exp"] - claims["iat"] == 90


NO_BILLING = {
    "audiences/billing": GONE,
    "routes/billing": GONE,
    "clients/edge-gateway/audiences": ["orders"],
}


@pytest.mark.parametrize(
    ("changes", "ask", "status", "reason"),
    [
        ({"clients/batch/enabled": False}, "orders by the other client", 401, "client_refused"),
        ({"clients/batch": GONE}, "orders by the other client", 401, "client_refused"),
        ({"clients/edge-gateway/enabled": False}, "the route to orders", 403, "client_refused"),
        ({"sources/other-idp/enabled": False}, "orders from the other source", 400, "unknown_issuer"),
        ({"sources/other-idp": GONE}, "orders from the other source", 400, "unknown_issuer"),
        ({"sources/corporate-idp/enabled": False}, "the route to orders", 401, "invalid_credential"),
        ({"audiences/orders/enabled": False}, "orders", 400, "no_consent"),
        ({"audiences/orders/enabled": False}, "the route to orders", 403, "no_consent"),
        (NO_BILLING, "billing", 400, "no_consent"),
        ({"routes/orders-read/enabled": False}, "the route to orders", 403, "no_route"),
        ({"routes/orders-read": GONE}, "the route to orders", 403, "no_route"),
    ],
)
def test_what_is_disabled_or_gone_gets_nothing_not_even_from_the_cache(
    service, provider, change, changes, ask, status, reason
):
    """CA-07."""
    tokens = provider.token(), provider.token(iss=OTHER)
    assert ASKS[ask](service, *tokens).status == 200
    change(changes)
    answer = ASKS[ask](service, *tokens)
    assert (answer.status, answer.reason) == (status, reason)


@pytest.mark.parametrize(
    "entry", ["clients/batch", "sources/other-idp", "audiences/orders", "routes/orders-read", "clients/edge-gateway"]
)
def test_what_is_enabled_again_serves_again_and_not_what_disabling_it_made_void(service, provider, change, entry):
    tokens = provider.token(), provider.token(iss=OTHER)
    before = {ask(service, *tokens).token for ask in ASKS.values()}
    change({f"{entry}/enabled": False})
    change({})
    answers = [ask(service, *tokens) for ask in ASKS.values()]
    assert {answer.status for answer in answers} == {200}
    assert {answer.token for answer in answers} != before


def test_every_fault_of_a_faulty_file_is_told_and_nothing_changes(service, provider, base, configured):
    token = provider.token()
    before, pids, refusals = revision(service), service.workers(), counted(service, "refused")
    minted = exchange(service, token).token
    service.write(
        configured(
            base,
            {"audiences/orders/tttl": "1m", "clients/batch/audiences": ["nowhere"], "audiences/billing/ttl": 5},
        )
    )
    faults = refused(service)
    assert len(faults) == 3
    for path in ("audiences.orders.tttl", "clients.batch.audiences", "audiences.billing.ttl"):
        (fault,) = (fault for fault in faults if path in fault)
        line = int(fault.partition(f"{service.file}:")[2].partition(" ")[0])
        assert path.rpartition(".")[2] in service.file.read_text().splitlines()[line - 1] or "nowhere" in fault
    assert (revision(service), service.workers()) == (before, pids)
    assert exchange(service, token).token == minted
    assert counted(service, "refused") == refusals + 1


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a: [", b"- a\n- b\n", b"&a [*a]\n", None])
def test_a_file_that_is_no_configuration_changes_nothing(service, provider, content):
    pids = service.workers()
    service.file.unlink()
    if content is not None:
        service.file.write_bytes(content)
    refused(service)
    assert service.workers() == pids
    assert exchange(service, provider.token()).status == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("issuer", "https://elsewhere.example.internal"),
        ("workers", 2),
        ("threads", 8),
        ("var", "elsewhere"),
        ("secret", {"file": "another-secret"}),
    ],
)
def test_a_fixed_setting_is_refused_by_name_and_all_that_comes_with_it(
    service, provider, base, configured, name, value
):
    (service.directory / "another-secret").write_text("E" * 43)
    pids = service.workers()
    service.write(configured(base, {name: value, "audiences/orders/ttl": "90s"}))
    assert refused(service) == [f"{name} cannot change without a restart"]
    _, claims = decoded(exchange(service, provider.token()).token)
    assert (claims["exp"] - claims["iat"], claims["iss"]) == (300, "https://sts.example.internal")
    assert service.workers() == pids
    assert not (service.directory / "elsewhere").exists()


def test_a_worker_that_starts_after_a_refused_reload_has_what_was_accepted(service, base, configured, replaced):
    before = revision(service)
    service.write(configured(base, {"audiences/orders/tttl": "1m"}))
    refused(service)
    replaced(service, signal.SIGKILL)
    assert revision(service) == before


def test_a_worker_that_starts_after_a_reload_has_what_was_accepted_and_not_the_file(
    service, provider, base, configured, change, replaced
):
    accepted = change({"audiences/orders/ttl": "90s"})["revision"]
    service.write(configured(base, {"audiences/orders/ttl": "80s"}))  # right, but nobody has said so
    replaced(service, signal.SIGKILL)
    assert revision(service) == accepted
    _, claims = decoded(exchange(service, provider.token()).token)
    assert claims["exp"] - claims["iat"] == 90


def test_a_reload_reaches_a_worker_that_came_later(service, change, replaced):
    replaced(service, signal.SIGKILL)
    assert change({"audiences/orders/ttl": "90s"})["replaced"] == 0
    assert revision(service) == change({"audiences/orders/ttl": "90s"})["revision"]


def test_sighup_for_every_process_of_the_service_kills_no_worker(service, change):
    pids = service.workers()
    for pid in pids:
        os.kill(pid, signal.SIGHUP)
    change({"audiences/orders/ttl": "90s"})
    assert service.workers() == pids


def test_sigusr2_replaces_nothing(service, change):
    pids = service.workers()
    service.process.send_signal(signal.SIGUSR2)
    wait_for(lambda: "SIGUSR2 is not supported" in service.log())
    change({})
    assert service.workers() == pids


def test_no_request_fails_during_ten_reloads(make_service, provider, configured, base):
    first, second = (configured(base, {"workers": 2, "audiences/orders/ttl": ttl}) for ttl in ("5m", "90s"))
    service = make_service(first, environment=ENVIRONMENT)
    over, statuses = threading.Event(), []
    body = urllib.parse.urlencode(
        {
            "grant_type": GRANT,
            "subject_token": provider.token(),
            "subject_token_type": ACCESS_TOKEN,
            "audience": "orders",
            "client_id": CLIENT,
            "client_secret": SECRET,
        }
    )

    def hammer():
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        connection.connect()
        connection.auto_open = 0  # the connection must live through all reloads
        try:
            while not over.is_set():
                connection.request("POST", "/token", body, {"Content-Type": "application/x-www-form-urlencoded"})
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
        except Exception as fault:  # noqa: BLE001 - told by the test's own thread
            statuses.append(fault)
        finally:
            connection.close()

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    revisions = set()
    for text in itertools.islice(itertools.cycle((second, first)), 10):
        service.write(text)
        line = service.reload()
        assert (line["event"], line["workers"], line["replaced"]) == ("reloaded", 2, 0)
        revisions.add(line["revision"])
        before = len(statuses)
        wait_for(lambda: len(statuses) >= before + 5)  # noqa: B023 - used at once
    over.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    assert len(revisions) == 2
    assert {event["revision"] for event in service.events()} == revisions


def test_a_secret_from_the_environment_is_still_there_at_a_reload(service, provider, change):
    """As all tests here show: client and deployment of this service have their secrets from there."""
    token = provider.token()
    before = exchange(service, token)
    change({"audiences/billing/ttl": "90s"})
    assert exchange(service, token).token == before.token
    assert not (service.directory / "var" / "secret").exists()


def test_the_audit_moves_with_a_reload_and_a_rotated_file_is_made_anew(service, provider, change, base, configured):
    def ask(path):
        answer = exchange(service, provider.token())
        wait_for(lambda: answer.headers["x-request-id"] in path.read_text())  # the event of a hit may wait

    first, second = service.directory / "first.jsonl", service.directory / "second.jsonl"
    before = len(service.events())
    change({"audit/file": "first.jsonl"})
    ask(first)
    change({"audit/file": "second.jsonl"})
    ask(second)
    second.rename(service.directory / "second.jsonl.1")
    change({"audit/file": "second.jsonl"})
    ask(second)
    assert (len(first.read_text().splitlines()), len(second.read_text().splitlines())) == (1, 1)
    assert len(service.events()) == before

    service.write(configured(base, {"audit/file": "no/such/folder/audit.jsonl"}))
    (fault,) = refused(service)
    assert "no/such/folder" in fault
    ask(second)


def test_a_worker_that_cannot_start_is_tried_again_and_does_not_end_the_service(service, provider, change):
    logs, moved = service.directory / "logs", service.directory / "moved"
    logs.mkdir()
    change({"audit/file": "logs/audit.jsonl"})
    (killed,) = service.workers()
    logs.rename(moved)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: "worker cannot start" in service.log())
    moved.rename(logs)
    wait_for(service.is_ready)
    assert exchange(service, provider.token()).status == 200


def test_a_worker_that_starts_later_believes_the_key_file_that_was_accepted(service, provider, change, replaced):
    file = service.directory / "keys.json"
    file.write_text(json.dumps({"keys": provider.keys}))
    change({"sources/other-idp/jwks_uri": GONE, "sources/other-idp/jwks_file": "keys.json"})
    file.write_text(json.dumps({"keys": [Key("new").jwk]}))  # nobody has said so
    token = provider.token(iss=OTHER)
    assert exchange(service, token).status == 200
    replaced(service, signal.SIGKILL)
    assert exchange(service, token).status == 200


def metrics_of(service):
    """Where the service's processes count together: the folder with a file of the master's own."""
    folders = (Path("/dev/shm"), Path(tempfile.gettempdir()))  # noqa: S108 - looked into, not written to
    files = [path for folder in folders for path in folder.glob(f"sts-metrics-*/*_{service.process.pid}.db")]
    (found,) = {path.parent for path in files}
    return found


def test_sigterm_finishes_what_is_in_flight_and_leaves_nothing_behind(make_service, make_idp):
    slow, asked = make_idp(), threading.Event()

    def answer(handler):
        asked.set()
        time.sleep(0.7)
        handler.reply(json.dumps({"keys": slow.keys}).encode())

    service = make_service(minimal(slow))
    folder = metrics_of(service)
    rotated = Key("rotated", "ES256")  # so that its token waits for a fetch
    slow.keys, slow.answer = [rotated.jwk], answer
    answers = []
    thread = threading.Thread(target=lambda: answers.append(service.exchange(slow.token(rotated))))
    thread.start()
    assert asked.wait(60)
    service.process.terminate()
    thread.join()
    assert [one.status for one in answers] == [200], (service.log(), service.events())
    assert service.process.wait(120) == 0
    assert service.events()[-1]["outcome"] == "allowed"
    assert not folder.exists()
