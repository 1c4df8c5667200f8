"""A trusted third party's rows over HTTP, asked of a real server."""

import base64
import json
import threading
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sts.errors import Refusal
from sts.lookups.http_table import MAX_KEPT, MISSING_FOR, Endpoint, HttpTable
from sts.resilience.breaker import FAILURES
from sts.trust.fetch import Bounds, Fetcher
from sts.trust.upstream import Upstream


@pytest.fixture
def make(peer, clock):
    """Makes tables at a real server; their connections are closed in the end."""
    made = []

    def make(path="/people/{key}", ca=None, max_waiters=4, url=None, total=20.0, **endpoint):
        fields = {"method": "GET", "client_id": None, "client_secret": None, "ttl": 60.0, **endpoint}
        upstream = Upstream(clock, max_waiters=max_waiters, patience=30.0)
        fetcher = Fetcher(ca, Bounds(connect=20.0, read=20.0, total=total))
        at = Endpoint(url=(url or peer.url) + path, **fields)
        made.append(HttpTable(at, fetcher, upstream, clock, max_waiters=max_waiters))
        return made[-1]

    yield make
    for table in made:
        table.close()


def unreachable(table, key="alice", now=1_000_000.0):
    with pytest.raises(Refusal) as caught:
        table.row(key, now)
    assert caught.value.reason.name == "source_unreachable"
    return caught.value.facts["why"]


def test_a_row_is_asked_for_and_believed_for_its_time(make, peer, clock):
    peer.answers({"employee_id": "E7", "groups": ["a"]})
    table = make()
    row = table.row("alice", clock())
    assert dict(row.values) == {"employee_id": "E7", "groups": ["a"]}
    assert row.fresh_until == clock.now + 60
    clock.now += 59
    assert table.row("alice", clock()) is row
    assert peer.paths() == ["/people/alice"]
    clock.now += 1
    table.row("alice", clock())
    assert len(peer.requests) == 2


@pytest.mark.parametrize(
    ("control", "life"),
    [("max-age=10", 10), ("max-age=600", 60), ("no-store", 0), ("private", 60), ("max-age=0", 0)],
)
def test_cache_control_may_only_shorten_the_time(make, peer, clock, control, life):
    peer.answers({"a": 1}, Cache_Control=control)
    assert make().row("alice", clock()).fresh_until == clock.now + life


def test_404_is_no_row_and_believed_for_a_few_seconds(make, peer, clock):
    peer.answers(b"", 404)
    table = make()
    assert table.row("nobody", clock()) is None
    assert table.row("nobody", clock()) is None
    assert len(peer.requests) == 1
    clock.now += MISSING_FOR
    peer.answers({"employee_id": "E9"})
    assert table.row("nobody", clock()).values["employee_id"] == "E9"
    assert table.trouble == ""


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"", 500, "it answered 500"),
        (b"", 401, "it answered 401"),
        (b"", 302, "it answered 302"),
        (b"", 204, "it answered 204"),
        ({"a": 1}, 201, "it answered 201"),
        (b"[]", 200, "not a JSON object"),
        (b"null", 200, "not a JSON object"),
        (b"<html>", 200, "not JSON"),
        (b'{"id": 1, "id": 2}', 200, "twice"),
        (b'{"a": "\\u0000"}', 200, "NUL"),
        (b'{"a": 1}' + b" " * 300_000, 200, "too large"),
    ],
)
def test_whatever_is_neither_a_row_nor_404_is_no_answer(make, peer, body, status, why):
    peer.answers(body, status)
    table = make()
    assert why in unreachable(table)
    assert why in table.trouble
    peer.answers({"a": 1})
    assert table.row("alice", 1_000_000.0) is not None  # a failure is not kept


def test_nobody_there_is_no_answer(make, peer):
    table = make()
    peer.close()
    assert "ConnectionError" in unreachable(table) or "NewConnection" in unreachable(table)


def test_a_dead_server_is_left_alone_for_a_while(make, peer, clock):
    peer.answers(b"", 500)
    table = make()
    for _ in range(FAILURES + 5):
        unreachable(table)
    assert len(peer.requests) == FAILURES
    clock.now += 1.0
    peer.answers({"a": 1})
    assert table.row("alice", clock()) is not None


@pytest.mark.parametrize("status", [400, 405, 414, 422])
def test_a_key_that_the_server_chokes_on_keeps_no_other_from_it(make, peer, status):
    """Whoever may choose a key could else shut everybody out."""
    peer.answers(b"", status)
    table = make()
    for number in range(FAILURES + 2):
        assert f"it answered {status}" in unreachable(table, f"a/b{number}")
    assert table.trouble == ""
    peer.answers({"a": 1})
    assert table.row("alice", 1_000_000.0) is not None


def test_a_key_that_no_url_can_hold_has_no_row_and_keeps_no_other_from_the_server(make, peer):
    peer.answers({"a": 1})
    table = make()
    for number in range(FAILURES + 2):
        assert table.row("é" * 1000 + str(number), 1_000_000.0) is None
    assert peer.requests == []
    assert table.row("alice", 1_000_000.0) is not None


@settings(max_examples=60, deadline=None)
@given(key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_a_key_chooses_neither_path_nor_query_nor_host(key):
    url, asked = "https://hr.example.com/people/{key}/id?v=1", []

    class Recorder:
        def ask(self, _method, url, _headers, _body):
            asked.append(url)
            raise AssertionError

    class Straight:
        def call(self, ask):
            return ask()

    table = HttpTable(Endpoint(url, "GET", None, None, 60.0), Recorder(), Straight(), lambda: 0.0, max_waiters=1)
    if key in {".", ".."}:
        assert table.row(key, 0.0) is None
        return
    with pytest.raises(AssertionError):
        table.row(key, 0.0)
    before, _, rest = asked[0].partition("/people/")
    segment, _, query = rest.partition("/")
    assert (before, query) == ("https://hr.example.com", "id?v=1")
    assert unquote(segment) == key
    assert segment.isascii()


@pytest.mark.parametrize("key", ["", ".", ".."])
def test_a_key_that_would_be_another_path_has_no_row(make, peer, key):
    assert make().row(key, 1_000_000.0) is None
    assert peer.requests == []


@pytest.mark.parametrize("key", ["../admin", "a/b", "a?b=c", "a#b", "a b", "a%2e", "é", "a\r\nX: y"])
def test_on_the_wire_a_key_is_one_segment(make, peer, key):
    peer.answers({"a": 1})
    make().row(key, 1_000_000.0)
    (path,) = peer.paths()
    assert unquote(path.removeprefix("/people/")) == key
    assert set(path.removeprefix("/people/")).isdisjoint("/?# ")


def test_this_service_says_who_it_is(make, peer):
    peer.answers({"a": 1})
    make(client_id="sts", client_secret="s:ä").row("alice", 1_000_000.0)
    sent = dict(line.split(": ", 1) for line in peer.requests[0].split("\r\n")[1:] if line)
    assert base64.b64decode(sent["Authorization"].removeprefix("Basic ")).decode() == "sts:s:ä"


def test_post_sends_the_key_as_json(make, peer):
    peer.answers({"a": 1})
    make("/people", method="POST").row('alice "é" {key}', 1_000_000.0)
    assert peer.requests[0].startswith("POST /people ")
    assert json.loads(peer.bodies[0]) == {"key": 'alice "é" {key}'}


def test_https_is_checked_against_the_ca_of_the_table(peers, authority, make):
    mine, other = authority(), authority()
    server = peers(mine.serving("127.0.0.1"))
    server.answers({"a": 1})
    assert make(ca=mine.pem, url=server.url).row("a", 1_000_000.0) is not None
    unreachable(make(ca=other.pem, url=server.url))


def gather(table, count, key="alice"):
    """Ask in `count` threads at once; what each got: a row, or why not."""
    found = []

    def ask():
        try:
            found.append(table.row(key, 1_000_000.0))
        except Refusal as refusal:
            found.append(refusal.facts["why"])

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, found


def test_many_who_want_one_row_ask_once(make, peer, until):
    hold = threading.Event()

    def answer(connection):
        hold.wait(60)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}')

    peer.behave = answer
    threads, found = gather(make(max_waiters=5), 8)
    until(lambda: len(found) == 3)  # one asks, four wait for it (a fifth would be another caller), the rest are told
    assert found == ["too many requests wait for this row"] * 3
    hold.set()
    for thread in threads:
        thread.join()
    assert len(peer.requests) == 1
    assert sum(not isinstance(one, str) for one in found) == 5


def test_who_waits_for_a_row_shares_its_failure(make, peer, until):
    hold = threading.Event()

    def answer(connection):
        hold.wait(60)
        connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    peer.behave = answer
    threads, found = gather(make(), 3)
    until(lambda: peer.requests)
    hold.set()
    for thread in threads:
        thread.join()
    assert "it answered 500" in found[0]
    assert all(isinstance(one, str) for one in found)


def test_a_slow_server_is_given_up(make, peer):
    peer.behave = lambda connection: connection.recv(1)
    assert unreachable(make(total=0.5))


def test_only_so_many_rows_are_kept(clock):
    class Straight:
        trouble = ""

        def call(self, ask):
            return ask()

    class Peer:
        asked = 0

        def ask(self, *_):
            self.asked += 1
            return type("Answer", (), {"status": 200, "max_age": None, "body": b"{}"})

    server = Peer()
    table = HttpTable(Endpoint("https://x/{key}", "GET", None, None, 60.0), server, Straight(), clock, max_waiters=1)
    for number in range(MAX_KEPT + 1):
        table.row(str(number), clock())
    table.row(str(MAX_KEPT), clock())
    assert server.asked == MAX_KEPT + 1
    table.row("0", clock())
    assert server.asked == MAX_KEPT + 2


def test_keys_without_a_row_push_out_no_row(clock):
    class Straight:
        trouble = ""

        def call(self, ask):
            return ask()

    class Peer:
        asked = 0

        def ask(self, _method, url, *_):
            self.asked += 1
            return type("Answer", (), {"status": 200 if url.endswith("alice") else 404, "max_age": None, "body": b"{}"})

    server = Peer()
    table = HttpTable(Endpoint("https://x/{key}", "GET", None, None, 60.0), server, Straight(), clock, max_waiters=1)
    table.row("alice", clock())
    for number in range(MAX_KEPT + 10):
        assert table.row(str(number), clock()) is None
    asked = server.asked
    assert table.row("alice", clock()) is not None
    assert server.asked == asked


def test_a_row_that_comes_and_goes_is_followed(make, peer, clock):
    table = make(ttl=10.0)
    for status in (200, 404, 200, 404):
        peer.answers({"a": status}, status)
        assert (table.row("alice", clock()) is None) is (status == 404)
        clock.now += 11


def test_a_clock_that_was_set_back_keeps_no_row_alive(make, peer, clock):
    peer.answers({"a": 1})
    table = make()
    table.row("alice", clock())
    clock.now -= 86_400
    table.row("alice", clock())
    assert len(peer.requests) == 2
