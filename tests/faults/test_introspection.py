"""Drills with a server of opaque tokens: down, slow, back, and wrong about us. Nothing else suffers, nothing passes."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from harness import Idp, Service, minimal, wait_for
from opaque import AuthorizationServer, Bent, source

THREADS = 16
QUARTER = THREADS // 4
AT_ONCE_S = 1.5
TTL_S = 3


class World:
    """A service with a JWT issuer, a real authorization server (`op_`), and one that a test may bend (`bent_`)."""

    def __init__(self, folder):
        self.idp, self.real, self.bent = Idp(), AuthorizationServer(), Bent()
        self.bent.server.owner = self.bent
        document = yaml.safe_load(minimal(self.idp))
        document["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
        document["sources"]["real"] = source(self.real, match={"prefix": "op_"}, cache_ttl=f"{TTL_S}s")
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

    def timed(self, token, door="token"):
        began = time.monotonic()
        answer = self.service.exchange(token) if door == "token" else self.service.forward(token)
        return answer, time.monotonic() - began

    def others_go_on(self):
        """JWTs, none of them cached, pass at both doors and at once."""
        for door in ("token", "forward_auth"):
            answer, took = self.timed(self.idp.token(jti=str(time.monotonic_ns())), door)
            assert answer.status == 200, answer
            assert took < AT_ONCE_S

    def heals(self):
        """Wait until the bent server is asked again."""
        self.bent.says(says(self))
        wait_for(lambda: self.service.exchange(self.fresh()).status == 200, 40, every=0.2)


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
def world(tmp_path):
    made = World(tmp_path)
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
    began = time.monotonic()
    world.real.close()
    assert unreachable(world.service.exchange(new))
    assert unreachable(world.service.forward(new))
    while (answer := world.service.exchange(known)).status == 200:
        time.sleep(0.05)
    assert time.monotonic() - began < TTL_S + 0.5  # not a moment longer than it may be believed
    assert unreachable(answer)
    world.others_go_on()
    assert world.service.get("/readyz").json["degraded"]["real"]
    assert world.service.get("/readyz").status == 200
    world.real.again()
    wait_for(lambda: world.service.exchange(known).status == 200, 20, every=0.2)
    assert world.service.exchange(new).status == 200
    assert "real" not in world.service.get("/readyz").json["degraded"]


def test_a_revocation_while_the_server_is_down_is_felt_when_it_is_back_and_nothing_passes_between(world):
    """IN-12: stale answers are never served."""
    token = world.real.token()
    assert world.service.exchange(token).status == 200
    world.real.revoke(token)
    world.real.close()
    wait_for(lambda: world.service.exchange(token).status == 503, TTL_S + 2)
    world.real.again()
    answer = wait_for(lambda: found if (found := world.service.exchange(token)).status != 503 else None, 20, every=0.1)
    assert answer.reason == "revoked"


def test_a_slow_server_holds_a_quarter_of_the_threads_and_the_others_are_told_at_once(world):
    """IN-12."""
    world.bent.answer = lambda handler: handler.server.owner.over.wait(20)
    with ThreadPoolExecutor(2 * THREADS) as pool:
        asked = [pool.submit(world.timed, world.fresh(), ("token", "forward_auth")[n % 2]) for n in range(2 * THREADS)]
        time.sleep(0.3)
        world.others_go_on()
        answered = [one.result() for one in asked]
    assert all(unreachable(answer) for answer, _ in answered)
    slow = [took for _, took in answered if took >= AT_ONCE_S]
    assert 1 <= len(slow) <= QUARTER
    assert max(slow) < 8
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
    world.bent.answer = lambda handler: handler.server.owner.over.wait(20)
    token = world.fresh()
    with ThreadPoolExecutor(2 * THREADS) as pool:
        asked = [pool.submit(world.timed, token, ("token", "forward_auth")[n % 2]) for n in range(2 * THREADS)]
        time.sleep(0.3)
        world.others_go_on()
        answered = [one.result() for one in asked]
    assert all(unreachable(answer) for answer, _ in answered)
    assert 1 <= sum(took >= AT_ONCE_S for _, took in answered) <= QUARTER


def test_a_burst_of_new_tokens_passes_while_the_server_is_quick(world):
    """More than may be under way at once wait a moment for their turn."""
    world.bent.says(says(world))
    assert world.service.exchange(world.fresh()).status == 200  # so that it is known to be quick
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(world.service.exchange, world.fresh()) for _ in range(12)]
        assert [one.result().status for one in asked] == [200] * 12


def test_a_dead_server_is_not_asked_at_each_request(world):
    """IN-12: three failures, then a pause."""
    world.bent.says(b"", 500)
    for _ in range(20):
        assert unreachable(world.service.exchange(world.fresh()))
    assert len(world.bent.asked) <= 3 + 2  # the pauses of one and two seconds may have passed meanwhile
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
