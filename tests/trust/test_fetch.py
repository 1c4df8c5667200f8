import contextlib
import gc
import ssl
import time
from collections import deque
from pathlib import Path

import pytest
from harness import wait_for

from sts.errors import StartError
from sts.options import KeptFile
from sts.trust.fetch import Bounds, Fetcher, UnreachableError, check_url, origin, read_ca

QUICK = Bounds(connect=0.5, read=0.4, total=0.9, body=10_000)
GENEROUS_S = 30
"""What a hostile peer may cost on the busiest machine, in seconds; by itself none would end sooner."""


@pytest.fixture(scope="module")
def fetcher():
    made = Fetcher(bounds=QUICK)
    yield made
    made.close()


@pytest.mark.parametrize(
    "url",
    [
        "https://idp.example.com/jwks",
        "https://idp.example.com:8443/jwks?p=policy",
        "https://10.1.2.3/jwks",
        "https://[fd00::1]/jwks",
        "http://127.0.0.1:9000/jwks.json",
        "http://127.8.8.8/",
        "http://[::1]:9000/jwks",
    ],
)
def test_https_and_literal_loopback_may_be_fetched(url):
    """JW-23."""
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example.com/jwks",
        "http://localhost:9000/jwks",
        "http://10.1.2.3/jwks",
        "http://0.0.0.0/jwks",
        "http://127.0.0.1.example.com/jwks",
        "http://127.0.0.1@evil.example/jwks",
        "http://2130706433/jwks",
        "http://0x7f.1/jwks",
        "https://user:secret@idp.example.com/jwks",
        "https://idp.example.com/jwks#fragment",
        "https://idp.example.com:99999/jwks",
        "https:///jwks",
        "https://",
        "//idp.example.com/jwks",
        "idp.example.com/jwks",
        "ftp://idp.example.com/jwks",
        "file:///etc/passwd",
        "unix:///run/sock",
        "https://idp.example.com\\@evil.example/",
        "https://idp.example.com/a b",
        "https://idp.example.com/\r\nHost: evil",
        "https://idp.ex\N{LATIN SMALL LETTER A WITH ACUTE}mple.com/",
        "https://[::1/jwks",
        "",
    ],
)
def test_nothing_else_may_be_fetched(url, fetcher):
    """JW-23."""
    with pytest.raises(ValueError, match=r"URL|http"):
        check_url(url)
    with pytest.raises(UnreachableError):
        fetcher.fetch(url)


def test_the_origin_is_scheme_host_and_port():
    assert (
        origin("https://IdP.example.com/a")
        == origin("https://idp.example.com:443/b")
        == ("https", "idp.example.com", 443)
    )
    assert origin("https://idp.example.com:444/") != origin("https://idp.example.com/")
    assert origin("http://127.0.0.1/") == ("http", "127.0.0.1", 80)


def test_a_document_is_fetched_with_a_plain_request(fetcher, peer):
    peer.answers(b"document", Set_Cookie="a=b")
    assert fetcher.fetch(f"{peer.url}/jwks?p=x").body == b"document"
    fetcher.fetch(f"{peer.url}/jwks?p=x")
    head = peer.requests[1].lower()
    assert head.startswith("get /jwks?p=x http/1.1\r\n")
    assert "\r\nuser-agent: sts\r\n" in head
    assert f"\r\nhost: 127.0.0.1:{peer.port}\r\n" in head
    assert "cookie" not in head
    assert "authorization" not in head


def test_bodies_without_a_length_and_in_chunks_are_read(fetcher, peer):
    peer.behave = lambda c: c.sendall(b"HTTP/1.1 200 OK\r\n\r\nto the end")
    assert fetcher.fetch(peer.url).body == b"to the end"
    peer.behave = lambda c: c.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nto th\r\n5\r\ne end\r\n0\r\n\r\n"
    )
    assert fetcher.fetch(peer.url).body == b"to the end"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Cache_Control": "max-age=120"}, 120),
        ({"Cache_Control": "public, MAX-AGE=120, must-revalidate"}, 120),
        ({"Cache_Control": 'max-age="120"'}, 120),
        ({"Cache_Control": "max-age=120", "Age": "50"}, 70),
        ({"Cache_Control": "max-age=120", "Age": "500"}, 0),
        ({"Cache_Control": "max-age=120", "Age": "soon"}, 120),
        ({"Cache_Control": "max-age=soon"}, 0),
        ({"Cache_Control": "max-age=-5"}, 0),
        ({"Cache_Control": "max-age=" + "9" * 5000}, 0),
        ({"Cache_Control": "max-age=120, no-store"}, 0),
        ({"Cache_Control": "no-cache"}, 0),
        ({"Cache_Control": "s-maxage=9"}, None),
        ({"Expires": "Thu, 01 Dec 2033 16:00:00 GMT"}, None),
    ],
    ids=str,
)
def test_how_long_a_document_may_be_kept(headers, seconds, fetcher, peer):
    peer.answers(b"{}", **headers)
    assert fetcher.fetch(peer.url).max_age == seconds


@pytest.mark.parametrize("status", [201, 204, 301, 302, 303, 304, 307, 308, 400, 401, 404, 429, 500, 503])
def test_every_status_but_200_is_a_failure_and_no_redirect_is_followed(status, fetcher, peers):
    """JW-23. Lesson 3.7, lesson 2.8."""
    here, elsewhere = peers(), peers()
    elsewhere.answers(b"elsewhere")
    here.answers(b"" if status in {204, 304} else b"here", status, Location=f"{elsewhere.url}/jwks")
    with pytest.raises(UnreachableError, match=str(status)):
        fetcher.fetch(here.url)
    assert elsewhere.requests == []
    assert len(here.requests) == 1


def endless(head):
    def behave(connection):
        connection.sendall(head)
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"x" * 4096)

    return behave


def dripping(first, drop, last=b""):
    def behave(connection):
        connection.sendall(first)
        with contextlib.suppress(OSError):
            for _ in range(10 * GENEROUS_S):
                connection.sendall(drop)
                time.sleep(0.1)
            connection.sendall(last)

    return behave


def silent(first=b""):
    def behave(connection):
        connection.sendall(first)
        with contextlib.suppress(OSError):
            connection.recv(1)

    return behave


OK = b"HTTP/1.1 200 OK\r\n"
HOSTILE = {
    "hangs": silent(),
    "hangs in the header": silent(OK),
    "hangs in the body": silent(OK + b"Content-Length: 10\r\n\r\nhalf"),
    "hangs in a body without length": silent(OK + b"\r\nhalf"),
    "drips its header": dripping(OK, b"X-A: b\r\n", b"\r\n"),
    "drips one line": dripping(OK + b"X-A: ", b"b", b"\r\n\r\n"),
    "drips its body": dripping(OK + b"Content-Length: 30\r\n\r\n", b"x"),
    "drips a body without length": dripping(OK + b"\r\n", b"x"),
    "drips chunks": dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", b"0\r\n\r\n"),
    "endless body": endless(OK + b"\r\n"),
    "endless header": endless(OK + b"X-A: "),
    "says it is huge": endless(OK + b"Content-Length: 99999999999\r\n\r\n"),
    "a little too large": lambda c: c.sendall(OK + b"Content-Length: 10001\r\n\r\n" + b"x" * 10_001),
    "endless chunk": endless(OK + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n"),
    "ends too early": lambda c: c.sendall(OK + b"Content-Length: 10\r\n\r\nhalf"),
    "ends in a chunk": lambda c: c.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhalf"),
    "bad chunk": lambda c: c.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "no HTTP": lambda c: c.sendall(b"\x16\x03\x01garbage\r\n\r\n"),
    "hangs up": lambda _: None,
    "gzip": lambda c: c.sendall(OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab"),
    "two lengths": lambda c: c.sendall(OK + b"Connection: close\r\nContent-Length: 2\r\nContent-Length: 7\r\n\r\n{}"),
    "100 for ever": lambda c: [c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n") for _ in range(50)],
}


@pytest.mark.parametrize("behave", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_peer_costs_bounded_time_and_one_kind_of_error(behave, fetcher, peer):
    """Lesson 3.7."""
    peer.behave = behave
    began = time.monotonic()
    with pytest.raises(UnreachableError):
        fetcher.fetch(peer.url)
    assert time.monotonic() - began < GENEROUS_S


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux tells how many files are open")
def test_an_answer_that_is_refused_leaves_no_socket_open(peer):
    """urllib3 takes an answer with two lengths, refuses it and forgets it: its socket stayed open with the error."""
    peer.behave = HOSTILE["two lengths"]
    fetcher, held = Fetcher(bounds=QUICK), []
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        try:
            fetcher.ask("GET", peer.url, {})
        except UnreachableError as error:
            held.append(error)
    assert len(held) == 20
    wait_for(lambda: len(list(Path("/proc/self/fd").iterdir())) < before + 10)


def test_a_peer_that_falls_silent_is_given_up_before_the_total_is_over(peer):
    peer.behave = silent(OK)
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"[Tt]imed? ?out"):
        Fetcher(bounds=Bounds(connect=60.0, read=0.2, total=60.0)).fetch(peer.url)
    assert time.monotonic() - began < GENEROUS_S


def test_the_largest_body_is_read_whole(fetcher, peer):
    peer.answers(b"x" * 10_000)
    assert len(fetcher.fetch(peer.url).body) == 10_000


def test_nobody_listening_is_unreachable_and_says_why(fetcher, peer):
    peer.close()
    with pytest.raises(UnreachableError, match="refused"):
        fetcher.fetch(peer.url)


def test_proxies_of_the_environment_are_not_used(fetcher, peers, monkeypatch):
    proxy, issuer = peers(), peers()
    issuer.answers(b"direct")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    assert fetcher.fetch(issuer.url).body == b"direct"
    assert proxy.requests == []


def test_tls_is_checked_against_the_given_ca(authority, peers):
    ours, other = authority(), authority()
    peer = peers(ours.serving("127.0.0.1"))
    peer.answers(b"over tls")
    assert Fetcher(read_ca(KeptFile.of(ours.file)), QUICK).fetch(peer.url).body == b"over tls"
    for stranger in (Fetcher(other.pem, QUICK), Fetcher(None, QUICK)):
        with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
            stranger.fetch(peer.url)


def test_tls_is_checked_for_the_host(authority, peers):
    ours = authority()
    peer = peers(ours.serving("idp.example.com"))
    peer.answers(b"over tls")
    with pytest.raises(UnreachableError, match=r"CERTIFICATE_VERIFY_FAILED|Hostname|hostname|IP address"):
        Fetcher(ours.pem, QUICK).fetch(peer.url)


def test_a_slow_handshake_is_bounded(authority, peers):
    peer = peers()
    peer.behave = lambda _: None
    began = time.monotonic()
    with pytest.raises(UnreachableError):
        Fetcher(authority().pem, QUICK).fetch(peer.url.replace("http:", "https:"))
    assert time.monotonic() - began < GENEROUS_S


@pytest.mark.parametrize(
    "content", [b"", b"no certificate", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_ca_file_without_certificates_stops_the_start(content, tmp_path):
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(StartError, match=r"ca\.pem"):
        read_ca(KeptFile.of(tmp_path / "ca.pem"))


def test_a_missing_ca_file_stops_the_start(tmp_path):
    with pytest.raises(StartError, match="No such file"):
        read_ca(KeptFile.of(tmp_path / "none.pem"))


def contexts():
    return {id(one) for one in gc.get_objects() if isinstance(one, ssl.SSLContext)}


def test_fetchers_that_trust_the_same_certificates_share_one_tls_context(authority):
    """A context of a bundle of CAs costs 20 ms and a megabyte, so that 1 000 sources must not have one each."""
    ours, other = authority(), authority()
    before = contexts()
    pems = [read_ca(KeptFile.of(one.file)) for one in (ours, other) for _ in range(50)]
    made = [Fetcher(ca) for ca in (*pems, *[None] * 50)]
    assert len(contexts() - before) <= 3
    assert len({id(pem) for pem in pems}) == 2
    assert len(made) == 150


def test_a_fetcher_made_after_the_systems_certificates_changed_trusts_the_new_ones(
    authority, peers, monkeypatch, tmp_path
):
    ours, other = authority(), authority()
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(other.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    peer = peers(ours.serving("127.0.0.1"))
    peer.answers(b"over tls")
    with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
        Fetcher(None, QUICK).fetch(peer.url)
    bundle.write_text(other.pem + ours.pem)
    assert Fetcher(None, QUICK).fetch(peer.url).body == b"over tls"


# --- questions, on kept connections ---


def talk(*answers):
    """Answer one request after the other on one connection, then close it."""

    def behave(connection):
        for number, answer in enumerate(answers):
            if number and b"\r\n\r\n" not in connection.recv(65536):
                return
            connection.sendall(answer)

    return behave


def ok(body, *headers):
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_a_question_brings_method_headers_and_body_and_any_status_comes_back(peer, fetcher):
    peer.answers(b"no", status=403, Cache_Control="max-age=7")
    answer = fetcher.ask("POST", peer.url + "/ask", {"X-Mine": "1"}, b"a=b")
    assert (answer.status, answer.body, answer.max_age) == (403, b"no", 7.0)
    assert peer.requests[0].startswith("POST /ask HTTP/1.1\r\n")
    assert {"X-Mine: 1", "Content-Length: 3", "User-Agent: sts"} <= set(peer.requests[0].split("\r\n"))


def test_a_second_question_goes_over_the_same_connection(peer, fetcher):
    peer.behave = talk(ok(b"one"), ok(b"two"))
    assert [fetcher.ask("GET", peer.url, {}).body for _ in range(2)] == [b"one", b"two"]
    assert len(peer.requests) == 1  # one connection


def test_a_connection_that_was_closed_meanwhile_is_replaced(peer, fetcher):
    peer.behave = talk(ok(b"one"))
    first = fetcher.ask("GET", peer.url, {}).body
    time.sleep(0.05)
    peer.behave = talk(ok(b"two"))
    assert (first, fetcher.ask("GET", peer.url, {}).body, len(peer.requests)) == (b"one", b"two", 2)


def test_a_connection_that_ends_instead_of_answering_is_replaced_once(peer, fetcher):
    def hang_up_on_the_second(connection):
        connection.sendall(ok(b"one"))
        connection.recv(65536)

    peer.behave = hang_up_on_the_second
    assert fetcher.ask("GET", peer.url, {}).body == b"one"
    peer.behave = talk(ok(b"two"))
    assert fetcher.ask("GET", peer.url, {}).body == b"two"


def test_an_answer_that_ends_its_connection_leaves_none_behind(peer, fetcher):
    peer.behave = talk(ok(b"one", "Connection: close"))
    fetcher.ask("GET", peer.url, {})
    peer.behave = talk(ok(b"two"))
    assert fetcher.ask("GET", peer.url, {}).body == b"two"


def test_a_redirect_is_an_answer_like_any_other_and_nobody_follows_it(peer, peers, fetcher):
    elsewhere = peers()
    peer.answers(b"", status=302, Location=elsewhere.url)
    assert fetcher.ask("POST", peer.url, {}, b"token=secret").status == 302
    assert elsewhere.requests == []


def test_a_kept_connection_answers_for_its_own_origin_only(peer, peers, fetcher):
    other = peers()
    peer.behave = talk(ok(b"one"), ok(b"not this"))
    other.behave = talk(ok(b"other"))
    fetcher.ask("GET", peer.url, {})
    assert fetcher.ask("GET", other.url, {}).body == b"other"


def test_a_fetcher_is_closed_beside_a_thread_that_takes_its_last_connection():
    """A reload goes on after that: what is not done then is not made up for."""

    class Taken(deque):
        def __bool__(self):
            return True  # as it was a moment ago

    fetcher = Fetcher(bounds=QUICK)
    fetcher._idle = Taken()
    fetcher.close()
