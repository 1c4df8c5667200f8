"""Our own TLS: who may shake hands, and what a handshake leaves behind."""

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time

import pytest
from harness import minimal, wait_for

from sts.edge.tls import server_context
from sts.options import KeptFile
from sts.server.connection import ARRIVAL_S, WRITE_S

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def connect(service, context, session=None):
    """A TLS connection, handshake done; with a small request answered, since TLS 1.3 refuses only then."""
    raw = socket.create_connection(("127.0.0.1", service.port), timeout=60)
    try:
        speaking = context.wrap_socket(raw, server_hostname="localhost", session=session)
    except BaseException:
        raw.close()
        raise
    try:
        healthy(speaking)
    except BaseException:
        speaking.close()
        raise
    return speaking


def healthy(speaking):
    """Ask for a small page and read the answer to its end."""
    speaking.sendall(b"GET /healthz HTTP/1.1\r\nHost: sts\r\n\r\n")
    received = b""
    while not received.endswith(b"}"):
        part = speaking.recv(65536)
        assert part
        received += part
    assert received.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_both_doors_answer_over_tls(tls_service, pki, idp, version):
    """EP-02."""
    tls_service.tls = pki.context(version=version)
    assert tls_service.exchange(idp.token()).status == 200
    assert tls_service.forward(idp.token()).status == 200
    assert tls_service.get("/.well-known/jwks.json").status == 200


def test_a_certificate_of_a_configured_ca_does_not_stand_in_the_way(tls_service, pki, idp):
    tls_service.tls = pki.context(pki.ca.issue_cert("caller@example.com"))
    assert tls_service.exchange(idp.token()).status == 200
    tls_service.tls = pki.context()


def test_a_certificate_of_another_ca_ends_the_handshake_and_the_log_says_why(tls_service, pki):
    with pytest.raises(ssl.SSLError, match=r"UNKNOWN_CA|unknown ca"):
        connect(tls_service, pki.context(pki.other.issue_cert("caller@example.com")))
    wait_for(lambda: "unable to get local issuer certificate" in tls_service.log())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_versions_are_refused(tls_service, pki, version):
    context = pki.context()
    context.minimum_version, context.maximum_version = version, version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(tls_service, context)


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256"])
def test_ciphers_without_forward_secrecy_or_authenticated_encryption_are_refused(tls_service, pki, cipher):
    context = pki.context(version=TLS12)
    context.set_ciphers(cipher)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(tls_service, context)


@pytest.mark.parametrize(
    "spoken", [b"GET /healthz HTTP/1.1\r\nHost: sts\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\x00" * 200, b"\x00" * 100]
)
def test_what_is_no_tls_is_dropped_at_once(tls_service, spoken):
    with socket.create_connection(("127.0.0.1", tls_service.port), timeout=ARRIVAL_S - 1) as peer:
        peer.sendall(spoken)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := peer.recv(4096):
                answer += part
    assert not answer.startswith(b"HTTP"), answer


def test_an_answer_is_closed_as_tls_closes(tls_service, pki):
    with connect(tls_service, pki.context()) as speaking:
        speaking.sendall(b"GET /healthz HTTP/1.1\r\nHost: sts\r\nConnection: close\r\n\r\n")
        received = b""
        while part := speaking.read(4096):  # without close_notify this is an SSLEOFError
            received += part
        assert received.startswith(b"HTTP/1.1 200 OK")


def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_order(tls_service, pki):
    connection = http.client.HTTPSConnection("127.0.0.1", tls_service.port, timeout=60, context=pki.context())
    for _ in range(3):
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
    connection.close()
    with connect(tls_service, pki.context()) as speaking:
        request = b"GET /%s HTTP/1.1\r\nHost: sts\r\n%s\r\n"
        close = request % (b"healthz", b"Connection: close\r\n")
        speaking.sendall(request % (b"healthz", b"") + request % (b"nothing", b"") + close)
        received = b""
        while part := speaking.read(4096):
            received += part
    assert [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200]


def test_a_form_of_many_records_is_read_whole(tls_service, pki):
    body = b"grant_type=x&pad=" + b"a" * 60_000
    head = b"POST /token HTTP/1.1\r\nHost: sts\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with connect(tls_service, pki.context()) as speaking:
        speaking.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
        for begin in range(0, len(body), 500):
            speaking.sendall(body[begin : begin + 500])
        assert speaking.recv(4096).startswith(b"HTTP/1.1 401")


def test_a_session_of_tls_1_3_cannot_be_resumed(tls_service, pki):
    context = pki.context(version=TLS13)
    with connect(tls_service, context) as first:
        session = first.session
    with connect(tls_service, context, session) as second:
        assert not second.session_reused


class Slow:
    """Peers of a TLS port that do not go on with their handshake."""

    def __init__(self, port, count, first=b""):
        self.sockets = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(count)]
        for one in self.sockets:
            if first:
                one.sendall(first)

    def close(self):
        for one in self.sockets:
            one.close()


def hello(context):
    """The first flight of a real handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    speaking = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        speaking.do_handshake()
    return outgoing.read()


def slowest(service, token, times=10):
    worst = 0.0
    for _ in range(times):
        began = time.monotonic()
        assert service.exchange(token).status == 200
        worst = max(worst, time.monotonic() - began)
    return worst


@pytest.mark.parametrize("how", ["nothing", "a byte", "half a hello", "a hello and no more"])
def test_peers_that_are_slow_to_shake_hands_do_not_keep_others_waiting(tls_service, pki, idp, how):
    """Ten times as many as there are threads (docs/adr/0006)."""
    whole = hello(pki.context())
    first = {"nothing": b"", "a byte": whole[:1], "half a hello": whole[:100], "a hello and no more": whole}[how]
    token = idp.token()
    assert tls_service.exchange(token).status == 200
    peers = Slow(tls_service.port, 40, first)
    try:
        assert slowest(tls_service, token) < WRITE_S - 1  # as long, at least, would be waited for a held thread
    finally:
        peers.close()


def test_a_handshake_that_does_not_end_in_time_is_dropped(tls_service, pki):
    peers = Slow(tls_service.port, 1, hello(pki.context()))
    try:
        while peers.sockets[0].recv(65536):
            pass  # our first flight
    finally:
        peers.close()


def test_peers_over_tls_that_never_read_do_not_keep_others_waiting(tls_service, pki, idp):
    token = idp.token()
    request = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: sts\r\n\r\n"
    peers = [connect(tls_service, pki.context()) for _ in range(8)]
    try:
        for peer in peers:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            peer.settimeout(0.2)
            with contextlib.suppress(TimeoutError, OSError):
                for _ in range(400):
                    peer.sendall(request * 20)
        assert slowest(tls_service, token) < WRITE_S - 1  # as long, at least, would be waited for a held thread
    finally:
        for peer in peers:
            peer.close()


def test_more_handshakes_than_there_may_be_leave_room_for_new_ones(tls_service, idp):
    token = idp.token()
    peers = Slow(tls_service.port, 1500)
    try:
        assert slowest(tls_service, token) < ARRIVAL_S - 1  # until then none of them would make room by itself
    finally:
        peers.close()


def test_a_reload_takes_the_renewed_certificate_for_new_connections(own_pki, with_tls, idp, make_service):
    service = make_service(with_tls(minimal(idp), own_pki.listen, workers=2), tls=own_pki.context())
    old = connect(service, own_pki.context())
    before = old.getpeercert(binary_form=True)
    renewed = own_pki.ca.issue_cert("localhost", "127.0.0.1")
    own_pki.write_ours(renewed)
    with connect(service, own_pki.context()) as still:
        assert still.getpeercert(binary_form=True) == before
    assert service.reload()["event"] == "reloaded"

    def shown():
        with connect(service, own_pki.context()) as now:
            return now.getpeercert(binary_form=True)

    assert before not in service.each(shown)
    healthy(old)
    old.close()


def test_a_reload_takes_and_drops_the_cas_of_clients(own_pki, with_tls, idp, make_service):
    """XC-08: a CA is asked for as long as some client's certificates are of it."""
    text = with_tls(minimal(idp), own_pki.listen, workers=1)
    service = make_service(text, tls=own_pki.context())
    (own_pki.folder / "other.pem").write_bytes(own_pki.other.cert_pem.bytes())
    mesh = {"auth": "tls", "ca_file": str(own_pki.folder / "other.pem"), "san_dns": "gw.example.com"}
    mesh |= {"audiences": ["orders"], "sources": ["corporate-idp"], "profile": "nginx"}
    document = json.loads(text)
    certified = own_pki.context(own_pki.other.issue_cert("gw.example.com"))

    def asked():
        service.tls = certified
        try:
            return service.forward(idp.token(), client="mesh", X_Gateway_Secret=None).status
        finally:
            service.tls = own_pki.context()

    assert asked() == 403  # nobody asks for a certificate, so that none is sent
    document["clients"]["mesh"] = mesh
    service.write(json.dumps(document))
    assert service.reload()["event"] == "reloaded"
    assert asked() == 200
    del document["clients"]["mesh"]
    service.write(json.dumps(document))
    assert service.reload()["event"] == "reloaded"
    assert asked() == 403


def test_faulty_files_refuse_the_reload(own_pki, with_tls, idp, make_service):
    service = make_service(with_tls(minimal(idp), own_pki.listen, workers=1), tls=own_pki.context())
    own_pki.write_ours(own_pki.ours, key=own_pki.ca.issue_cert("localhost"))
    assert service.reload()["event"] == "reload refused, nothing has changed"
    assert "the key is not that of the certificate" in service.log()
    assert service.exchange(idp.token()).status == 200


def test_tls_itself_changes_only_with_a_restart(own_pki, with_tls, idp, make_service):
    service = make_service(with_tls(minimal(idp), own_pki.listen, workers=1), tls=own_pki.context())
    service.write(minimal(idp) + "\nworkers: 1\n")
    assert service.reload()["event"] == "reload refused, nothing has changed"
    assert "listen cannot change without a restart" in service.log()


def test_a_write_to_a_peer_that_does_not_read_ends_with_our_patience(pki):
    """OpenSSL would try again for ever after the kernel's own time-out (SO_SNDTIMEO)."""
    context = server_context(*(KeptFile.of(pki.folder / name) for name in ("cert.pem", "key.pem")), ())
    ours, theirs = socket.socketpair()
    peers = []

    def greet():
        peers.append(pki.context().wrap_socket(theirs, server_hostname="localhost"))

    with context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False) as speaking:
        thread = threading.Thread(target=greet)
        thread.start()
        speaking.setblocking(True)
        speaking.do_handshake()
        thread.join(60)
        speaking.patience = 0.2
        speaking.setblocking(True)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            speaking.sendall(b"x" * 10_000_000)
        assert time.monotonic() - began < 30
    peers[0].close()
