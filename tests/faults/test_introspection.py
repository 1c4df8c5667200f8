"""Drills with a server of opaque tokens: down, slow, back, and wrong about us. Nothing else suffers, nothing passes."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import yaml
from harness import Idp, Service, minimal, wait_for
from opaque import AuthorizationServer, Bent, source
from storms import at_one_moment, storm

from sts.resilience.breaker import FAILURES, PAUSE
from sts.trust.upstream import STRICT

THREADS = 16
QUARTER = THREADS // 4
TTL_S = 3


class World:
    """A service with a JWT issuer, a real authorization server (`op_`), and one that a test may bend (`bent_`)."""

    def __init__(self, folder, cache_ttl):
        self.idp, self.real, self.bent = Idp(), AuthorizationServer(), Bent()
        document = yaml.safe_load(minimal(self.idp))
        document["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
        document["sources"]["real"] = source(self.real, match={"prefix": "op_"}, cache_ttl=cache_ttl)
        document["sources"]["bent"] = source(self.bent, match={"prefix": "bent_"}, namespace="bent")
        document["clients"]["edge-gateway"]["sources"] = ["*"]
        document.update({"threads": THREADS, "workers": 1})
        self.service = Service(folder, json.dumps(document))
        self.count = 0

    def close(self):
        assert self.service.stop() == 0, self.service.log()
        for one in (self.idp, self.real, self.bent):
            one.close()

    def fresh(self):
        """A token of the bent server that nobody has asked about."""
        self.count += 1
        return f"bent_{self.count}"

    def others_go_on(self):
        """JWTs, none of them cached, pass at both doors."""
        for door in (self.service.exchange, self.service.forward):
            answer = door(self.idp.token(jti=str(time.monotonic_ns())))
            assert answer.status == 200, answer

    def storm(self, tokens):
        """Ask for all at once, at the two doors by turns: none passes; from when to when some of them were held."""
        doors = (self.service.exchange, self.service.forward)
        asks = [partial(doors[number % 2], token) for number, token in enumerate(tokens)]
        answers, spans = storm(self.service, asks, self.others_go_on)
        assert all(unreachable(answer) for answer in answers)
        return spans

    def heals(self):
        """Wait until the bent server is asked again."""
        self.bent.says(says(self))
        wait_for(lambda: self.service.exchange(self.fresh()).status == 200, every=0.2)


def says(_world):
    now = int(time.time())
    return {
        "active": True,
        "sub": "bob",
        "aud": "api-gateway",
        "scope": "orders:read",
        "exp": now + 600,
        "iss": "https://as.example.com",
    }


@pytest.fixture
def world(request, tmp_path):
    made = World(tmp_path, getattr(request, "param", f"{TTL_S}s"))
    made.others_go_on()
    yield made
    made.close()


def unreachable(answer):
    """The documented answer of either door."""
    assert (answer.status, answer.reason) == (503, "source_unreachable"), answer
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["cache-control"] == "no-store"
    return True


def test_a_server_that_goes_down_is_503_after_what_is_known_is_over_and_serves_again_when_it_is_back(world):
    """IN-03, IN-08, IN-12."""
    known, new = world.real.token(), world.real.token()
    assert world.service.exchange(known).status == 200
    known_at = last_asked = time.monotonic()
    world.real.close()
    assert unreachable(world.service.exchange(new))
    assert unreachable(world.service.forward(new))
    asking = time.monotonic()
    while (answer := world.service.exchange(known)).status == 200:
        last_asked = asking
        time.sleep(0.05)
        asking = time.monotonic()
    assert last_asked - known_at < TTL_S  # not a moment longer than it may be believed
    assert unreachable(answer)
    world.others_go_on()
    assert world.service.get("/readyz").json["degraded"]["real"]
    assert world.service.get("/readyz").status == 200
    world.real.again()
    wait_for(lambda: world.service.exchange(known).status == 200, every=0.2)
    assert world.service.exchange(new).status == 200
    assert "real" not in world.service.get("/readyz").json["degraded"]


def test_a_revocation_while_the_server_is_down_is_felt_when_it_is_back_and_nothing_passes_between(world):
    """IN-12: stale answers are never served."""
    token = world.real.token()
    assert world.service.exchange(token).status == 200
    world.real.revoke(token)
    world.real.close()
    wait_for(lambda: world.service.exchange(token).status == 503)
    world.real.again()
    answer = wait_for(lambda: found if (found := world.service.exchange(token)).status != 503 else None, every=0.1)
    assert answer.reason == "revoked"


def test_a_slow_server_holds_a_quarter_of_the_threads_and_the_others_are_told_at_once(world):
    """IN-12."""
    world.bent.answer = lambda handler: handler.owner.over.wait(20)
    assert at_one_moment(world.storm([world.fresh() for _ in range(2 * THREADS)])) <= QUARTER
    world.heals()


def test_the_same_token_many_times_is_one_question_and_holds_no_more_threads(world):
    """IN-12."""
    token = world.fresh()

    def slowly(handler):
        time.sleep(0.5)
        handler.reply(says(world))

    world.bent.answer = slowly
    with ThreadPoolExecutor(3) as pool:  # two minted tokens in the making, and one more request for the first
        asked = [
            pool.submit(ask, token) for ask in (world.service.exchange, world.service.exchange, world.service.forward)
        ]
        assert [one.result().status for one in asked] == [200] * 3
    assert world.bent.asked == [{"token": token, "token_type_hint": "access_token"}]
    world.bent.answer = lambda handler: handler.owner.over.wait(20)
    token = world.fresh()
    assert at_one_moment(world.storm([token] * (2 * THREADS))) <= QUARTER


def test_a_crowd_with_one_token_is_one_question(world):
    """IN-12: whoever finds no place to wait is told so, and does not ask as well."""

    def slowly(handler):
        time.sleep(0.2)
        handler.reply(says(world))

    world.bent.answer = slowly
    token = world.fresh()
    with ThreadPoolExecutor(2 * THREADS) as pool:
        answered = list(pool.map(lambda _: world.service.exchange(token), range(2 * THREADS)))
    assert all(answer.status == 200 or unreachable(answer) for answer in answered)
    assert any(answer.status == 200 for answer in answered)
    assert len(world.bent.asked) == 1


def test_a_burst_of_new_tokens_passes_while_the_server_is_quick(world):
    """More than may be under way at once wait a moment for their turn."""
    world.bent.says(says(world))
    assert world.service.exchange(world.fresh()).status == 200  # so that it is known to be quick

    def burst():
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(world.service.exchange, world.fresh()) for _ in range(12)]
            return [one.result().status for one in asked]

    wait_for(lambda: burst() == [200] * 12, every=STRICT)  # a busy machine may need longer than a moment


def test_a_dead_server_is_not_asked_at_each_request(world):
    """IN-12: three failures, then a pause."""
    world.bent.says(b"", 500)
    began = time.monotonic()
    for _ in range(20):
        assert unreachable(world.service.exchange(world.fresh()))
    took = time.monotonic() - began
    assert len(world.bent.asked) <= FAILURES + took / PAUSE
    world.heals()


def test_that_the_server_refuses_our_own_credentials_is_an_alarm_and_no_verdict(world):
    """IN-03."""
    world.bent.says({"error": "invalid_client"}, 401)
    assert unreachable(world.service.exchange(world.fresh()))
    assert "our own credentials" in world.service.get("/readyz").json["degraded"]["bent"]
    alarms = [json.loads(line) for line in world.service.log().splitlines() if '"introspection server"' in line]
    assert [(line["level"], line["source"]) for line in alarms] == [("error", "bent")]
    metric = 'sts_introspections_total{outcome="unauthorized",source="bent"} 1.0'
    assert metric in world.service.get("/metrics").body.decode()
    world.others_go_on()
    world.heals()
    assert "bent" not in world.service.get("/readyz").json["degraded"]


@pytest.mark.parametrize("world", ["5m"], indirect=True)
def test_a_reload_forgets_neither_what_is_known_nor_that_a_server_is_down(world):
    token = world.real.token()
    assert world.service.exchange(token).status == 200
    world.bent.says(b"", 500)
    for _ in range(3):
        unreachable(world.service.exchange(world.fresh()))
    document = json.loads(world.service.file.read_text())
    document["audiences"]["orders"]["ttl"] = "4m"  # voids the minted token, and nothing of the sources
    world.service.write(json.dumps(document))
    assert world.service.reload()["event"] == "reloaded"
    asked = len(world.bent.asked)
    assert world.service.exchange(token).status == 200
    assert world.real.times(token) == 1
    unreachable(world.service.exchange(world.fresh()))
    assert len(world.bent.asked) - asked <= 1
