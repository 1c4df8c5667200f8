"""An issuer that fails, in whatever way, harms its own tokens only: eight threads, one good issuer, many bad ones."""

import json
import socket
import time
from collections import Counter
from functools import partial

import pytest
import yaml
from harness import Idp, Service, Trap, minimal, wait_for
from storms import at_one_moment, storm

THREADS = 8
QUARTER = THREADS // 4
MORE_THAN_A_BODY = 2 * 1024 * 1024


def hang(handler):
    handler.owner.over.wait(30)


def drip(handler):
    handler.send_response(200)
    handler.end_headers()
    while not handler.owner.over.wait(0.2):
        handler.wfile.write(b" ")


def drip_head(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
    while not handler.owner.over.wait(0.2):
        handler.wfile.write(b"a")


def huge(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(MORE_THAN_A_BODY))
    handler.end_headers()
    handler.wfile.write(b" " * MORE_THAN_A_BODY)


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    while not handler.owner.over.is_set():
        handler.wfile.write(b" " * 65536)


def huge_head(handler):
    handler.send_response(200)
    for number in range(500):
        handler.send_header(f"X-{number}", "x" * 1000)
    handler.end_headers()


def cut_off(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"keys": [')


def nothing(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


def replies(body, status=200, headers=()):
    return lambda handler: handler.reply(body, status, headers)


SLOW = {"hangs": hang, "drips": drip, "drips-its-head": drip_head}
WRONG = {
    "server-error": replies(b"{}", 500),
    "not-found": replies(b"<html>not found</html>", 404),
    "a-page": replies(b"<html>log in</html>"),
    "no-json": replies(bytes(range(256))),
    "no-keys": replies(b'{"keys": []}'),
    "another-document": replies(b'{"issuer": "https://idp.example.com"}'),
    "keys-that-are-none": replies(b'{"keys": [1, null, {"kty": "oct", "k": "AA", "kid": "rsa-1"}]}'),
    "deep-nesting": replies(b'{"keys": ' + b"[" * 100_000),
    "huge-body": huge,
    "endless-body": endless,
    "huge-head": huge_head,
    "body-cut-off": cut_off,
    "compressed": replies(b"\x1f\x8b", headers=[("Content-Encoding", "gzip")]),
    "nothing": nothing,
    "no-http": lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n"),
}
MANY = [f"hangs-{number}" for number in range(THREADS)]
REDIRECTS = (301, 302, 303, 307, 308)


class World:
    """A running service, an issuer that always answers, and one server for all the bad ones: one path, one issuer."""

    def __init__(self, folder):
        self.trap = Trap()
        self.good, self.bad = Idp(), Idp("https://bad.example.com")
        self.answers = {
            **SLOW,
            **WRONG,
            **{f"redirect-{status}": self.redirects(status) for status in REDIRECTS},
            "recovers": replies(b"", 500),
            "goes-away": None,
            "hangs-too": hang,
            **dict.fromkeys(MANY, hang),
        }
        self.asked = Counter()
        self.starting = True  # then the slow ones fail at once, so that no fetch of the start is under way in a test
        self.bad.answer = self.answer
        document = yaml.safe_load(minimal(self.good))
        first = document["sources"]["corporate-idp"]
        first.update({"audiences": ["*"], "namespace": ""})
        for name in self.answers:
            uri = f"http://127.0.0.1:{self.bad.port}/{name}"
            document["sources"][name] = {**first, "issuer": self.issuer(name), "jwks_uri": uri, "namespace": name}
        elsewhere = {**first, "issuer": f"http://127.0.0.1:{self.bad.port}", "discovery": True, "namespace": "d"}
        del elsewhere["jwks_uri"]
        document["sources"]["elsewhere"] = elsewhere
        self.full = socket.create_server(("127.0.0.1", 0), backlog=0)  # it takes one connection, and answers nobody
        self.filling = [socket.socket() for _ in range(3)]
        for one in self.filling:
            one.setblocking(False)
            one.connect_ex(self.full.getsockname())
        uri = f"http://127.0.0.1:{self.full.getsockname()[1]}/"
        document["sources"]["full"] = {**first, "issuer": self.issuer("full"), "jwks_uri": uri, "namespace": "full"}
        document["clients"]["edge-gateway"]["sources"] = ["*"]
        document.update({"threads": THREADS, "workers": 1})
        self.service = Service(folder, json.dumps(document))
        self.starting = False

    def close(self):
        assert self.service.stop() == 0, self.service.log()
        for provider in (self.good, self.bad):
            provider.close()
        for one in (self.trap.socket, self.full, *self.filling):
            one.close()

    @staticmethod
    def issuer(name):
        return f"https://{name}.example.com"

    def redirects(self, status):
        return lambda handler: handler.reply(b"", status, [("Location", self.trap.url)])

    def answer(self, handler):
        name = handler.path[1:]
        self.asked[name] += 1
        if name == ".well-known/openid-configuration":
            document = {"issuer": f"http://127.0.0.1:{self.bad.port}", "jwks_uri": self.trap.url}
            handler.reply(json.dumps(document).encode())
        elif self.starting and self.answers[name] in SLOW.values():
            handler.reply(b"", 500)
        elif self.answers[name] is not None:
            self.answers[name](handler)
        else:
            handler.reply(json.dumps({"keys": self.bad.keys}).encode())

    def token(self, name):
        return self.bad.token(iss=self.issuer(name), jti=str(time.monotonic_ns()))

    def ask(self, token, door="token"):
        return self.service.exchange(token) if door == "token" else self.service.forward(token)

    def good_goes_on(self):
        """Tokens of the good issuer, none of them cached, at both doors: all pass."""
        for door in ("token", "forward_auth"):
            answer = self.ask(self.good.token(jti=str(time.monotonic_ns())), door)
            assert answer.status == 200, answer

    def refused(self, name, door="token"):
        return unreachable(self.ask(self.token(name), door))

    def storm(self, tokens):
        """Ask for all at once, at the two doors by turns: none passes; from when to when some of them were held."""
        doors = ("token", "forward_auth")
        asks = [partial(self.ask, token, doors[number % 2]) for number, token in enumerate(tokens)]
        answers, spans = storm(self.service, asks, self.good_goes_on)
        assert all(unreachable(answer) for answer in answers)
        return spans


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One service for all; no test touches the issuer of another."""
    made = World(tmp_path_factory.mktemp("issuers"))
    made.good_goes_on()
    yield made
    assert made.trap.connections == 0
    made.close()


def unreachable(answer):
    """The documented answer of either door to a token whose source cannot be asked."""
    assert answer.status == 503, answer
    assert answer.reason == "source_unreachable"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["cache-control"] == "no-store"
    if "x-auth-reason" in answer.headers:
        assert answer.headers["x-auth-reason"] == "source_unreachable"
        assert answer.headers["content-type"] == "application/problem+json"
    else:
        assert answer.json["error"] == "temporarily_unavailable"
    return True


@pytest.mark.parametrize("name", WRONG)
def test_an_issuer_that_answers_wrongly_harms_its_own_tokens_only(world, name):
    """BE-08. Lesson 3.7: one bad address never blocks another."""
    for door in ("token", "forward_auth"):
        assert world.refused(name, door)
    assert world.asked[name] >= 1
    world.good_goes_on()


@pytest.mark.parametrize("status", REDIRECTS)
def test_an_issuer_that_redirects_is_not_followed(world, status):
    """JW-23."""
    assert world.refused(f"redirect-{status}")
    assert world.asked[f"redirect-{status}"] >= 1
    assert world.trap.connections == 0


def test_discovery_that_names_keys_elsewhere_is_not_followed(world):
    """JW-23."""
    answer = world.ask(world.bad.token(iss=f"http://127.0.0.1:{world.bad.port}"))
    assert unreachable(answer)
    assert world.asked[".well-known/openid-configuration"] >= 1
    assert world.trap.connections == 0


@pytest.mark.parametrize("name", [*SLOW, "full"])
def test_waiting_for_a_slow_issuer_holds_a_quarter_of_the_threads_and_the_rest_are_told_at_once(world, name):
    assert at_one_moment(world.storm([world.token(name) for _ in range(4 * THREADS)])) <= QUARTER


def test_the_same_token_many_times_holds_no_more_threads_than_many_tokens(world):
    """Whoever waits for the same request of somebody else waits for that issuer too."""
    assert at_one_moment(world.storm([world.token("hangs-too")] * (4 * THREADS))) <= QUARTER


def test_many_slow_issuers_hold_half_of_the_threads_and_no_more(world):
    """An outage on the way to all of them must not stop those whose keys are known."""
    assert at_one_moment(world.storm([world.token(name) for name in MANY * 4])) <= THREADS // 2


def test_an_issuer_that_is_back_is_used_again_soon(world):
    assert world.refused("recovers")
    world.answers["recovers"] = None
    wait_for(lambda: world.ask(world.token("recovers")).status == 200, every=0.2)
    degraded = world.service.get("/readyz").json["degraded"]
    assert "recovers" not in degraded


def test_an_issuer_that_goes_away_is_not_missed_while_its_keys_are_in_force(world):
    assert world.ask(world.token("goes-away")).status == 200
    world.answers["goes-away"] = hang
    for door in ("token", "forward_auth"):
        answer = world.ask(world.token("goes-away"), door)
        assert answer.status == 200
    assert world.asked["goes-away"] == 1


def test_each_bad_issuer_is_told_to_operators_and_the_service_stays_ready(world):
    assert world.refused("server-error")
    ready = world.service.get("/readyz")
    assert (ready.status, ready.json["degraded"]["server-error"]) == (200, "it answered 500")
    assert "corporate-idp" not in ready.json["degraded"]
    events = {json.loads(line)["event"] for line in world.service.log().splitlines() if line[:1] == "{"}
    assert "fault" not in events
