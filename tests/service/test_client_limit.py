"""Failed client authentication over HTTP: limited, told as documented, and never in the way of right credentials."""

import base64
import http.client
import itertools
import json
import threading
import time

import pytest
from harness import ACCESS_TOKEN, CLIENT, GRANT, SECRET, Answer, Idp, Service, minimal, wait_for

from sts.clients.failures import BURST

FORM = f"grant_type={GRANT}&subject_token_type={ACCESS_TOKEN}&audience=orders&subject_token="


class Limited:
    """One service with one worker, and callers from as many loopback addresses as a test needs."""

    def __init__(self, folder):
        self.idp = Idp()
        self.service = Service(folder, minimal(self.idp) + "\nworkers: 1\nthreads: 8\n")
        self.good = self.idp.token()
        self.addresses = (f"127.0.{high}.{low}" for high, low in itertools.product(range(7, 99), range(2, 250)))

    def close(self):
        assert self.service.stop() == 0, self.service.log()
        self.idp.close()

    def peer(self):
        """An address that nobody has called from."""
        return next(self.addresses)

    def ask(self, peer, door, client=CLIENT, secret="wrong"):
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=60, source_address=(peer, 0))
        try:
            if door == "token":
                basic = base64.b64encode(f"{client}:{secret}".encode()).decode()
                headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Basic {basic}"}
                connection.request("POST", "/token", FORM + self.good, headers)
            else:
                headers = {"X-Gateway-Secret": secret, "Authorization": f"Bearer {self.good}"}
                headers.update({"X-Original-Method": "GET", "X-Original-URI": "/orders/7"})
                headers["X-Original-Host"] = "api.example.com"
                connection.request("GET", f"/forward-auth/{client}", headers=headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def exhaust(self, peer, door, client=CLIENT):
        """Fail until limited; the first answer and the limited one."""
        first = self.ask(peer, door, client)
        for failures in range(1, 50 * BURST):  # more may come in while the first are answered
            if (answer := self.ask(peer, door, client)).status in (429, 503):
                assert failures >= BURST
                return first, answer
        raise AssertionError("nothing was limited")


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    made = Limited(tmp_path_factory.mktemp("limited"))
    yield made
    made.close()


def told(answer):
    """All that an answer tells, but for what each one has of its own."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
    body = answer.body.decode().replace(answer.headers["x-request-id"], "")
    return answer.status, headers, body


def test_too_many_failures_at_token_are_answered_429_in_the_documented_shape(limited):
    first, last = limited.exhaust(limited.peer(), "token")
    assert (first.status, last.status) == (401, 429)
    assert last.json == first.json
    assert (last.json["error"], last.json["error_reason"]) == ("invalid_client", "client_refused")
    assert last.headers["content-type"] == "application/json"
    assert last.headers["cache-control"] == "no-store"
    assert int(last.headers["retry-after"]) > 0
    assert "www-authenticate" not in last.headers


def test_too_many_failures_at_forward_auth_are_answered_503_in_the_documented_shape(limited):
    first, last = limited.exhaust(limited.peer(), "forward_auth")
    assert (first.status, last.status) == (403, 503)
    assert last.headers["content-type"] == "application/problem+json"
    assert last.headers["x-auth-reason"] == last.json["error_reason"] == "client_refused"
    assert last.json["status"] == 503
    assert int(last.headers["retry-after"]) > 0


def test_the_doors_count_together(limited):
    peer = limited.peer()
    limited.exhaust(peer, "token")
    assert 503 in [limited.ask(peer, "forward_auth").status for _ in range(BURST // 2)]


@pytest.mark.parametrize("door", ["token", "forward_auth"])
def test_unknown_client_and_wrong_secret_are_alike_byte_for_byte_limited_or_not(limited, door):
    known = limited.exhaust(limited.peer(), door)
    unknown = limited.exhaust(limited.peer(), door, client="nobody")
    assert [told(answer) for answer in known] == [told(answer) for answer in unknown]


def test_the_right_secret_passes_in_the_middle_of_a_storm_from_the_same_peer(limited):
    peer = limited.peer()
    over = threading.Event()
    statuses = set()

    def storm():
        while not over.is_set():
            statuses.add(limited.ask(peer, "token").status)
            statuses.add(limited.ask(peer, "forward_auth").status)

    threads = [threading.Thread(target=storm) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        limited_at = time.monotonic() + 1
        while not {429, 503} <= statuses or time.monotonic() < limited_at:
            assert time.monotonic() < limited_at + 120
            for door in ("token", "forward_auth"):
                answer = limited.ask(peer, door, secret=SECRET)
                assert answer.status == 200, answer
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert {429, 503} <= statuses <= {401, 403, 429, 503}


def test_the_limit_stands_over_a_reload(limited):
    peer = limited.peer()
    limited.exhaust(peer, "token")
    assert limited.service.reload()["event"] == "reloaded"
    assert 429 in [limited.ask(peer, "token").status for _ in range(BURST // 2)]
    assert limited.ask(peer, "token", secret=SECRET).status == 200


def test_operators_see_what_is_limited(limited):
    peer = limited.peer()
    _, last = limited.exhaust(peer, "token", client="nobody")
    request_id = last.headers["x-request-id"]
    # At the end of the second the last one is written, with the number of those that were left out.
    (event,) = wait_for(lambda: [one for one in limited.service.events() if one["request_id"] == request_id])
    assert (event["outcome"], event["reason"], event["client"]) == ("refused", "client_refused", None)
    told = {"why": "unknown client", "limited": True, "peer": peer, "client_hash": event["facts"]["client_hash"]}
    assert event["facts"] == told
    lines = limited.service.get("/metrics").body.decode().splitlines()
    counted = [float(line.rpartition(" ")[2]) for line in lines if line.startswith("sts_clients_limited_total ")]
    assert counted[0] >= 1
    assert json.dumps(event).find("wrong") == -1


def test_limited_failures_cannot_fill_the_audit_and_each_one_is_counted(limited):
    peer = limited.peer()
    limited.exhaust(peer, "token")
    began = time.monotonic()
    asked = [limited.ask(peer, "token") for _ in range(100)]
    seconds = time.monotonic() - began
    ids = {answer.headers["x-request-id"] for answer in asked if answer.status == 429}

    def accounted():
        found = [event for event in limited.service.events() if event.get("facts", {}).get("peer") == peer]
        return sum(1 + event.get("suppressed", 0) for event in found) >= len(ids) and found

    events = wait_for(accounted)
    assert len(ids) > 50
    assert len([event for event in events if event["request_id"] in ids]) <= seconds + 2
