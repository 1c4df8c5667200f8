"""What a TLS listener should never be sent, over real sockets: bytes, halves of handshakes, records beyond bounds."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Final

import trustme

SECONDS: Final = 8.0
"""How long it may take to close a connection of which our half is closed."""
SILENCE: Final = 0.2
"""How long a caller waits for a word before it closes its half."""
_REQUEST: Final = b"GET /healthz HTTP/1.1\r\nHost: sts\r\nConnection: close\r\n\r\n"


class Listener:
    """The certificate of a service's own TLS, in `directory`, and how callers speak to it there."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        ours = self.ca.issue_cert("localhost", "127.0.0.1")
        (directory / "cert.pem").write_bytes(b"".join(one.bytes() for one in ours.cert_chain_pems))
        (directory / "key.pem").write_bytes(ours.private_key_pem.bytes())
        self.other = trustme.CA().issue_cert("caller@example.com")
        self.settings = {"cert_file": "cert.pem", "key_file": "key.pem"}

    def context(self, version: ssl.TLSVersion | None = None, *, certified: bool = False) -> ssl.SSLContext:
        """A careful caller; `certified` with a certificate of a CA that nobody knows."""
        context = ssl.create_default_context(cadata=self.ca.cert_pem.bytes().decode())
        if certified:
            self.other.configure_cert(context)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context


class Peer:
    """A TLS caller without a socket, so that what it would send can be bent."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def flight(self, received: bytes = b"") -> bytes:
        """What it sends next, after `received`."""
        if received:
            self.incoming.write(received)
        with contextlib.suppress(ssl.SSLError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def written(self, data: bytes) -> bytes:
        """Records that hold `data`, once its handshake is over; else nothing."""
        with contextlib.suppress(ssl.SSLError, OSError):
            self.tls.write(data)
        return self.outgoing.read()


def _record(kind: int, body: bytes, length: int | None = None, version: bytes = b"\x03\x03") -> bytes:
    return bytes([kind]) + version + (len(body) if length is None else length).to_bytes(2, "big") + body


def _cut_up(data: bytes, step: int) -> bytes:
    """One handshake message over many records (RFC 8446 §5.1)."""
    return b"".join(_record(22, data[at : at + step]) for at in range(0, len(data), step))


def openings(dice: random.Random, hello: bytes) -> dict[str, bytes]:
    """First words to a TLS port, by what they are."""
    message = hello[5:]
    at = dice.randrange(len(hello))
    return {
        "garbage": dice.randbytes(dice.choice((1, 5, 100, 20_000))),
        "plain HTTP": _REQUEST * dice.choice((1, 500)),
        "half a hello": hello[:at],
        "bent hello": hello[:at] + dice.randbytes(dice.randint(1, 4)) + hello[at + dice.randint(0, 4) :],
        "hello and garbage": hello + dice.randbytes(dice.choice((5, 300, 70_000))),
        "two hellos": hello + hello,
        "hello byte by byte": _cut_up(message, 1),
        "empty records": _record(22, b"") * dice.choice((1, 40, 3000)),
        "huge record": _record(dice.choice((20, 21, 22, 23)), dice.randbytes(60_000), length=0xFFFF),
        "huge message": _record(22, b"\x01\xff\xff\xff" + bytes(16_000)) + _record(22, bytes(16_384)) * 20,
        "alerts": _record(21, bytes([dice.choice((1, 2)), dice.randrange(256)])) * dice.choice((1, 2000)),
        "early data": hello + _record(23, dice.randbytes(500)) * 50,
        "old version": _record(22, message, version=b"\x03\x00") + b"\x80\x2e\x01\x00\x02" + dice.randbytes(43),
        "heartbeat": hello + _record(24, b"\x01\x40\x00"),
    }


def converse(port: int, first: bytes, follow: Callable[[bytes], bytes] = lambda _: b"") -> bytes:
    """Send, answer each flight with what `follow` makes of it, read to the end; returns what came."""
    received = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), SILENCE) as peer:
        peer.sendall(first)
        while chunk := _heard(peer):
            received += chunk
            more = follow(chunk)
            if not more:
                break
            peer.sendall(more)
        peer.shutdown(socket.SHUT_WR)
        peer.settimeout(SECONDS)
        try:
            while chunk := peer.recv(65536):
                received += chunk
        except TimeoutError:
            raise AssertionError("a connection whose other half is closed stays open") from None
    return received


def _heard(peer: socket.socket) -> bytes:
    """What came; nothing where it waits for more of us."""
    try:
        return peer.recv(65536)
    except TimeoutError:
        return b""


def _after_handshake(dice: random.Random, context: ssl.SSLContext) -> tuple[bytes, Callable[[bytes], bytes]]:
    """A whole handshake, and then its records bent: cut, doubled, another kind, a changed tag."""
    peer = Peer(context)
    sent = [False]

    def follow(chunk: bytes) -> bytes:
        data = peer.flight(chunk)
        if not sent[0] and (records := peer.written(_REQUEST * dice.choice((1, 200)))):
            sent[0] = True
            at = dice.randrange(len(records))
            data += dice.choice(
                (
                    records[:at] + dice.randbytes(2) + records[at + 2 :],
                    records[:at],
                    records + records,
                    _record(22, b"\x00\x00\x00\x00") + records,  # HelloRequest, in the clear
                    bytes([dice.randrange(256)]) + records[1:],
                    _record(20, b"\x01") * 40 + records,
                )
            )
        return data

    return peer.flight(), follow


def fuzz(listener: Listener, port: int, count: int, seed: int) -> Counter[str]:
    """Speak so with the port `count` times; returns how often each. No answer may be plain, none a 5xx."""
    dice = random.Random(f"{seed} tls")  # noqa: S311 - it hits on inputs, not on secrets
    versions = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    seen: Counter[str] = Counter()
    while seen.total() < count:
        context = listener.context(dice.choice(versions), certified=dice.random() < 0.3)
        words = openings(dice, Peer(context).flight())
        name = dice.choice([*words, "records", "records"])
        first, follow = _after_handshake(dice, context) if name == "records" else (words[name], lambda _: b"")
        seen[name] += 1
        try:
            received = converse(port, first, follow)
            assert not re_plain(received), received[:200]
        except Exception as fault:
            fault.add_note(f"seed {seed}, TLS, {name}, input {first[:400]!r}")
            raise
    return seen


def re_plain(received: bytes) -> bool:
    """Whether something came that is no TLS record."""
    return bool(received) and received[0] not in (20, 21, 22, 23)


def renegotiate(port: int) -> bool | None:
    """Ask for a renegotiation in TLS 1.2, by openssl; whether it was granted, None without openssl."""
    openssl = which("openssl")
    if openssl is None:
        return None
    command = [openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2", "-legacy_renegotiation"]
    done = subprocess.run(command, input=b"R\n", capture_output=True, timeout=20, check=False)
    said = done.stdout + done.stderr
    assert b"RENEGOTIATING" in said, said[-500:]
    return b"no renegotiation" not in said and done.returncode == 0
