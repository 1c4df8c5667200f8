"""A load balancer forgets idle connections without a word: no request is refused for it, and no server blamed."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from forgetful import Forgetful
from harness import CLIENT, Idp, minimal
from opaque import AS_ISSUER, Bent, source
from web import Web

from sts.trust import fetch
from sts.trust.fetch import Bounds, Fetcher, UnreachableError

BOUNDS = Bounds(connect=20.0, read=40.0, total=2.0)


@pytest.fixture
def between():
    """Make forgetful load balancers."""
    made = []

    def make(server):
        made.append(Forgetful(server.port))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def server():
    made = Web(lambda handler: handler.reply({"answer": handler.path}))
    yield made
    made.close()


def asked(fetcher, url, count):
    """Ask `count` times at once."""
    with ThreadPoolExecutor(count) as pool:
        return [one.status for one in pool.map(lambda _: fetcher.ask("GET", url, {}), range(count))]


def test_a_question_on_a_forgotten_connection_is_asked_again_and_its_siblings_are_dropped(between, server):
    balancer, fetcher = between(server), Fetcher(None, BOUNDS)
    server.answer = lambda handler: (time.sleep(0.2), handler.reply({}))
    assert asked(fetcher, balancer.url, 8) == [200] * 8
    balancer.forget()
    before = balancer.connections
    assert [fetcher.ask("GET", balancer.url, {}).status for _ in range(10)] == [200] * 10
    assert balancer.connections == before + 1  # the other seven are not tried one after the other
    fetcher.close()


def test_the_second_attempt_stays_within_the_time_of_the_first(between, server):
    balancer, fetcher = between(server), Fetcher(None, BOUNDS)
    fetcher.ask("GET", balancer.url, {})
    balancer.forget()
    server.answer = lambda handler: handler.owner.over.wait(60)
    with pytest.raises(UnreachableError, match="too long"):
        fetcher.ask("GET", balancer.url, {})
    fetcher.close()


def test_a_connection_that_has_been_idle_for_too_long_is_not_used_again(between, server, monkeypatch):
    balancer, fetcher = between(server), Fetcher(None, BOUNDS)
    fetcher.ask("GET", balancer.url, {})
    fetcher.ask("GET", balancer.url, {})
    assert balancer.connections == 1
    monkeypatch.setattr(fetch, "MAX_IDLE", 0.0)
    fetcher.ask("GET", balancer.url, {})
    assert balancer.connections == 2
    fetcher.close()


def test_a_kept_connection_is_watched_by_the_kernel(server):
    fetcher = Fetcher(None, BOUNDS)
    fetcher.ask("GET", server.url, {})
    ((_, connection, _),) = fetcher._kept._idle
    options = {option[:2]: connection.sock.getsockopt(*option[:2]) for option in fetch._SOCKET_OPTIONS}
    assert all(options[option[:2]] == option[2] for option in fetch._SOCKET_OPTIONS)
    fetcher.close()


def says(handler):
    time.sleep(0.1)
    said = {"active": True, "sub": "bob", "aud": "api-gateway", "scope": "orders:read", "iss": AS_ISSUER}
    handler.reply({**said, "exp": int(time.time()) + 600})


def test_no_request_of_many_in_a_row_is_refused_after_connections_were_forgotten(between, make_service):
    """For opaque tokens, and for rows of a table, with eight kept connections each."""
    idp, bent, people = Idp(), Bent(), Web(lambda handler: (time.sleep(0.1), handler.reply({"team": "red"})))
    bent.answer = says
    balancers = (between(bent), between(people))
    document = yaml.safe_load(minimal(idp))
    document["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
    opaque = source(balancers[0], cache_ttl="0s", endpoint=f"{balancers[0].url}/introspect")
    document["sources"]["bent"] = opaque
    document["tables"] = {"people": {"url": f"{balancers[1].url}/{{key}}", "cache_ttl": "1s"}}
    document["sources"]["bent"]["identity"]["tenant"] = "lookup('people', claims.sub).team"
    document["clients"][CLIENT]["sources"] = ["*"]
    service = make_service(json.dumps({**document, "workers": 1}))
    try:
        with ThreadPoolExecutor(8) as pool:
            first = list(pool.map(lambda number: service.exchange(f"op_first_{number}"), range(8)))
        assert [one.status for one in first] == [200] * 8, first
        for balancer in balancers:
            balancer.forget()
        answers = [service.exchange(f"op_{number}").status for number in range(63)]
        assert answers == [200] * 63
        assert service.get("/readyz").json["degraded"] == {}
        failed = 'sts_introspections_total{outcome="unreachable"'
        assert failed not in service.get("/metrics").body.decode()
    finally:
        for one in (idp, bent, people):
            one.close()
