"""Send the service what nobody should: `make fuzz`, or `python -m scripts.fuzz [COUNT [SEED]]`.

Every input is the bytes of one HTTP request of one of five kinds: form bodies, header values, request targets, tokens,
whole requests. hypothesis makes the first ones, and shrinks a fault among them; the many after them are those, bent at
random from a seed that is printed. Most go through gunicorn's parser and the WSGI application in this process, a share
over real sockets to `sts serve`. What must hold of each answer is in `judge`. Exit status 0 if it always did.
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import re
import secrets
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote_plus

from gunicorn import config, http
from gunicorn.http import errors, wsgi
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from keys.keyring import Keyring
from scripts.demo.provider import Provider
from scripts.demo.service import CLIENT, CONFIGURATION, GRANT_TYPE, ISSUER, JWT_TYPE, SECRET, Service
from sts.app import App
from sts.audit import LABEL, AuditLog
from sts.cli import worker
from sts.mint.keystore import prepare
from sts.settings import Environment, load
from sts.telemetry import metrics
from sts.wsgi import application, door_of

COUNT: Final = 110_000
FIRST: Final = 80  # of each kind by hypothesis
SOCKET_SHARE: Final = 50  # one input of so many goes over a socket
SECONDS: Final = 600.0
TELL_EVERY_S: Final = 5.0
PARSER: Final = frozenset({400, 413, 414, 417, 431, 501})
STATUSES: Final = {
    "token": frozenset({200, 400, 401, 405, 413, 415, 429, 503}),
    "forward_auth": frozenset({200, 401, 403, 503}),
    None: frozenset({200, 304, 404, 405, 503}),
}

Answer = tuple[int, dict[str, str], bytes]
Send = Callable[[bytes], "Answer | None"]
"""Sends a request; None where the HTTP parser closes without an answer."""

# What to say. Pieces that mean something, so that more than the first check is reached, and bytes that mean nothing.

_BASIC: Final = base64.b64encode(f"{CLIENT}:{SECRET}".encode())
_ODD: Final = [b"", b"%", b"%00", b"%zz", b"%FF", b"%C0%AF", b"+", b"&", b"=", b",", b";", b'"', b"\\", b"..", b"//"]
_MORE: Final = [b"\0", b"\t", b"\x7f", b"\xc3\xa9", b"\xff", b"%0d%0a", b"*", b"?", b"#", b":", b"a" * 5000, b"9" * 30]
_PIECES: Final = [*_ODD, *_MORE]
_piece = st.sampled_from(_PIECES) | st.binary(max_size=12) | st.text(max_size=6).map(lambda one: one.encode())
_bytes = st.lists(_piece, max_size=6).map(b"".join)
_visible = _bytes.map(lambda one: re.sub(rb"[^\x21-\x7e]", b"~", one))


def _request(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> bytes:
    lines = [b"%s: %s" % header for header in headers]
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: sts", *lines, b"", b""]) + body


def _post(body: bytes) -> bytes:
    headers = [(b"Authorization", b"Basic " + _BASIC), (b"Content-Type", b"application/x-www-form-urlencoded")]
    return _request(b"POST", b"/token", [*headers, (b"Content-Length", b"%d" % len(body))], body)


def _question(**changes: bytes) -> list[tuple[bytes, bytes]]:
    good = {
        "X-Gateway-Secret": SECRET.encode(),
        "X-Original-Method": b"GET",
        "X-Original-URI": b"/orders/7",
        "X-Original-Host": b"api.example.com",
    }
    return [(name.encode(), value) for name, value in {**good, **changes}.items()]


def _forms(token: bytes) -> st.SearchStrategy[bytes]:
    good = {
        b"grant_type": quote_plus(GRANT_TYPE).encode(),
        b"subject_token": token,
        b"subject_token_type": quote_plus(JWT_TYPE).encode(),
        b"audience": b"orders",
    }
    names = st.sampled_from([*good, b"scope", b"resource", b"requested_token_type", b"client_id", b"actor_token"]) | _bytes
    more = st.lists(st.tuples(names, _bytes), max_size=4)

    def form(left_out: set[bytes], more: list[tuple[bytes, bytes]], between: bytes) -> bytes:
        pairs = [pair for pair in good.items() if pair[0] not in left_out] + more
        return _post(between.join(b"=".join(pair) for pair in pairs))

    return st.builds(form, st.sets(st.sampled_from(sorted(good)), max_size=1), more, st.just(b"&") | _piece)


def _headers(token: bytes) -> st.SearchStrategy[bytes]:
    names = [*(name.decode() for name, _ in _question()), "Authorization", "X-Request-ID", "Origin", "X-Original-Addr"]
    others = ["Content-Type", "Content-Length", "Transfer-Encoding", "Expect", "If-None-Match", "X-Forwarded-For", "DPoP"]
    changes = st.dictionaries(st.sampled_from(names + others), _bytes, max_size=3)
    targets = st.sampled_from([f"/forward-auth/{CLIENT}".encode(), b"/token", b"/readyz", b"/.well-known/jwks.json"])
    methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS"])

    def request(method: bytes, target: bytes, changes: dict[str, bytes]) -> bytes:
        return _request(method, target, _question(**{"Authorization": b"Bearer " + token, **changes}))

    return st.builds(request, methods, targets, changes)


def _targets(token: bytes) -> st.SearchStrategy[bytes]:
    starts = [b"/token", b"/forward-auth/", f"/forward-auth/{CLIENT}".encode(), b"/.well-known/", b"/metrics", b"/", b"//"]
    target = st.builds(bytes.__add__, st.sampled_from([*starts, b"http://a/token", b""]), _visible)
    bearer = {"Authorization": b"Bearer " + token}

    def own(target: bytes) -> bytes:
        return _request(b"GET", target, _question(**bearer))

    def asked(target: bytes, host: bytes) -> bytes:
        question = _question(**bearer, **{"X-Original-URI": b"/orders/" + target, "X-Original-Host": host})
        return _request(b"GET", f"/forward-auth/{CLIENT}".encode(), question)

    return target.map(own) | st.builds(asked, _visible, st.just(b"api.example.com") | _visible)


def _tokens(token: bytes) -> st.SearchStrategy[bytes]:
    def part(value: Any) -> bytes:  # noqa: ANN401 - any JSON
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    some = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
    algorithms = st.sampled_from(["RS256", "ES256", "none", "HS256", "PS256", "dir"]) | some
    names = st.sampled_from(["kid", "typ", "cty", "crit", "b64", "jku", "jwk", "x5c", "zip", "enc"])
    claims = st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "scope", "cnf", "act", "events"])

    def signed(alg: Any, header: dict[str, Any], claims: dict[str, Any], signature: bytes) -> bytes:  # noqa: ANN401
        whole = {"iss": "https://idp.example.com", "aud": "api-gateway", "sub": "alice", "exp": 4_000_000_000, **claims}
        return b".".join([part({"alg": alg, "kid": "idp-rsa", **header}), part(whole), signature])

    def bent(where: int, piece: bytes, cut: int) -> bytes:
        return token[:where] + piece + token[where + cut :]

    signature = st.just(token.rpartition(b".")[2]) | _visible
    made = st.builds(signed, algorithms, st.dictionaries(names, some), st.dictionaries(claims, some), signature)
    odd = made | st.builds(bent, st.integers(0, len(token)), _visible, st.integers(0, 9)) | _visible

    def at_token(token: bytes) -> bytes:
        form = [("grant_type", GRANT_TYPE), ("subject_token_type", JWT_TYPE), ("audience", "orders")]
        pairs = [*form, ("subject_token", token.decode("latin-1"))]
        return _post("&".join(f"{name}={quote_plus(value)}" for name, value in pairs).encode())

    def at_forward(token: bytes) -> bytes:
        return _request(b"GET", f"/forward-auth/{CLIENT}".encode(), _question(Authorization=b"Bearer " + token))

    return odd.map(at_token) | odd.map(at_forward)


def _raws(token: bytes) -> st.SearchStrategy[bytes]:
    """Good requests cut, doubled and sprinkled with what HTTP is made of."""
    ends = st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b":", b"\r\n ", b"0\r\n\r\n", b"3\r\na=b\r\n", b"_"])
    framing = st.sampled_from(
        [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n"]
    )
    sources = st.one_of(_headers(token), _forms(token), _targets(token))

    def bend(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
        for at, cut, piece in edits:
            where = int(at * len(data))
            data = data[:where] + piece + data[where + cut :]
        return data

    edit = st.tuples(st.floats(0, 1), st.integers(0, 8), ends | framing | _piece)
    lines = st.builds(lambda data, line: data.replace(b"\r\n", b"\r\n" + line, 1), sources, framing)
    return st.builds(bend, sources | lines, st.lists(edit, max_size=4))


KINDS: Final = {"form": _forms, "header": _headers, "target": _targets, "token": _tokens, "raw": _raws}


# Where to send it.


class Here:
    """gunicorn's parser and the WSGI application, in this process; audit events are counted, and must be JSON."""

    def __init__(self, directory: Path, jwks_uri: str) -> None:
        file = directory / "sts.yaml"
        file.write_text(CONFIGURATION.format(issuer=ISSUER, port=8080, jwks_uri=jwks_uri), encoding="utf-8")
        chosen = load(file, Environment())
        secret, store, _, _ = prepare(chosen.keys, chosen.var, chosen.secret, time.time, chosen.longest_ttl())
        faults: list[object] = []
        keyring = Keyring(store, chosen.keys.schedule(), time.time, faults.append)
        keyring.start()
        self.events = 0
        audit = AuditLog(secret.key(LABEL), self._count, time.time, time.monotonic, metrics)
        self.serve = application(App(chosen, secret, keyring, audit))
        self.config = config.Config()
        self.config.set("header_map", "refuse")
        self.peer = socket.socketpair()[0]
        self.peer.shutdown(socket.SHUT_RD)

    def _count(self, *_: object) -> None:
        self.events += 1

    def send(self, data: bytes) -> Answer | None:
        """Answer as the server would; what the parser refuses is the status that gunicorn gives it."""
        gathered = SimpleNamespace(arrived=bytearray(data), searched=0, chunk=0, decoded=0, sock=socket.socket())
        gathered.told_to_continue = gathered.oversize = False
        with gathered.sock:
            worker._whole(gathered)  # type: ignore[arg-type]  # noqa: SLF001 - it must never raise
        try:
            request = next(http.parser.RequestParser(self.config, iter([data]), ("127.0.0.1", 1)))
        except (errors.ParseException, errors.NoMoreData, StopIteration):
            return None
        request._expected_100_continue = False  # noqa: SLF001 - nobody is there to read it
        _, environ = wsgi.create(request, self.peer, ("127.0.0.1", 1), ("127.0.0.1", 2), self.config)
        began: list[tuple[int, dict[str, str]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
            for name, value in headers:
                assert re.fullmatch(r"[A-Za-z0-9-]+", name), name
                assert re.fullmatch(r"[\x20-\x7e]*", value), name
            began.append((int(status[:3]), {name.lower(): value for name, value in headers}))
            return bytes

        before = self.events
        body = b"".join(self.serve(environ, start_response))
        door = door_of(request.uri)
        assert self.events - before == (door is not None), "one audit event for each decision, none for a page"
        ((status, headers),) = began
        assert status in STATUSES[door], (door, status)
        return status, headers, body


class There:
    """`sts serve` on a port, over a socket of its own for each input."""

    def __init__(self, port: int) -> None:
        self.port = port

    def send(self, data: bytes) -> Answer | None:
        """Send, close our half, read to the end; the last whole answer counts, and none may be a 5xx of ours."""
        received = b""
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", self.port), 12) as peer:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while chunk := peer.recv(65536):
                received += chunk
        for status in re.findall(rb"HTTP/1\.[0-9] (\d\d\d) [A-Za-z -]+\r\n", received):
            assert int(status) in PARSER | {100} | frozenset().union(*STATUSES.values()), received[:300]
        assert b"Traceback" not in received
        assert SECRET.encode() not in received
        return None


def judge(answer: Answer | None, token: bytes) -> str:
    """What must hold of every answer; returns its name for the summary."""
    if answer is None:
        return "parser"
    status, headers, body = answer
    assert token not in body
    assert SECRET.encode() not in body
    kind = headers.get("content-type", "")
    if status >= 400:
        assert kind in ("application/json", "application/problem+json"), kind
        assert headers["cache-control"] == "no-store"
        if body:
            document = json.loads(body)
            assert re.fullmatch(r"[a-z_]+", document["error_reason"])
            assert document["error_reason"] not in ("internal_error", "no_key", "source_unreachable"), document
    minted = headers.get("authorization", "") if kind == "" else ""
    if status == 200 and kind == "application/json" and b"access_token" in body:
        minted = json.loads(body)["access_token"]
    if "." in minted:
        claims = minted.split(".")[1]
        assert json.loads(base64.urlsafe_b64decode(claims + "=="))["sub"] == "alice"
        assert json.loads(base64.urlsafe_b64decode(claims + "=="))["aud"] == "orders"
    return str(status)


def run(
    kind: str, count: int, send: Send, token: bytes, seed: int, tell: Callable[[str], None] = lambda _: None
) -> Counter[str]:
    """Send `count` inputs of a kind; returns how often each answer came. Raises what `judge` raised, with the input."""
    seen: Counter[str] = Counter()
    corpus: list[bytes] = []

    @settings(
        max_examples=min(FIRST, count),
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis_seed(seed)
    @given(KINDS[kind](token))
    def first(data: bytes) -> None:
        corpus.append(data)
        seen[judge(send(data), token)] += 1
        tell(kind)

    first()
    dice = random.Random(f"{seed} {kind}")  # noqa: S311 - it hits on inputs, not on secrets
    while seen.total() < count:
        data = bent(dice, corpus, whole=kind != "raw")
        try:
            seen[judge(send(data), token)] += 1
        except Exception as fault:
            fault.add_note(f"seed {seed}, kind {kind}, input {data!r}")
            raise
        tell(kind)
    return seen


def bent(dice: random.Random, corpus: list[bytes], *, whole: bool) -> bytes:
    """One of the corpus with a few bytes replaced, removed, doubled, or taken from another one.

    `whole` keeps what separates head and body, and makes the length right again, so that more than the parser sees it.
    """
    data = dice.choice(corpus)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        cut = dice.choice((0, 0, 1, 1, 2, 8, 40))
        other = dice.choice(corpus)
        start = dice.randrange(len(other))
        piece = dice.choice((dice.choice(_PIECES), dice.randbytes(dice.randint(0, 3)), other[start : start + 20]))
        if whole and (b"\r" in data[at : at + cut] or b"\n" in data[at : at + cut]):
            cut = 0
        data = data[:at] + (piece.replace(b"\n", b"").replace(b"\r", b"") if whole else piece) + data[at + cut :]
    if whole:
        head, end, body = data.partition(b"\r\n\r\n")
        data = re.sub(rb"(?m)^Content-Length: .*?(?=\r?$)", b"Content-Length: %d" % len(body), head) + end + body
    return data


class Progress:
    """Counts, and now and then says so. Ends the run where it takes too long."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.began = total, 0, time.monotonic()
        self.told = self.began

    def __call__(self, kind: str) -> None:
        """One more input of this kind."""
        self.done += 1
        now = time.monotonic()
        if now - self.told > TELL_EVERY_S:
            self.told = now
            print(f"  {self.done:7} of {self.total}, {self.done / (now - self.began):.0f}/s, now {kind}", flush=True)
        if now - self.began > SECONDS:
            raise TimeoutError(f"{self.done} of {self.total} inputs in {SECONDS:.0f} s")


def both(directory: Path, provider: Provider) -> Iterator[tuple[str, Send, int]]:
    """Yield each place with its name and how many of so many inputs it gets."""
    (directory / "here").mkdir()
    (directory / "there").mkdir()
    yield "in process", Here(directory / "here", provider.jwks_uri).send, 1
    with Service(directory / "there", provider.jwks_uri) as service:
        yield "over sockets", There(service.port).send, SOCKET_SHARE
        token = provider.token()
        assert service.exchange(token).status == 200, "the service no longer answers a good request"


def main(count: int = COUNT, seed: int | None = None) -> int:
    """Send `count` inputs and say what came back."""
    seed = secrets.randbits(32) if seed is None else seed
    progress = Progress(count + count // SOCKET_SHARE)
    print(f"{count} inputs in process, {count // SOCKET_SHARE} over sockets, of the kinds {', '.join(KINDS)}; seed {seed}")
    with tempfile.TemporaryDirectory(prefix="sts-fuzz-") as folder, Provider() as provider:
        token = provider.token(exp=4_000_000_000).encode()
        for name, send, share in both(Path(folder), provider):
            for kind in KINDS:
                seen = run(kind, max(1, count // share // len(KINDS)), send, token, seed, progress)
                answers = ", ".join(f"{answer} {times}" for answer, times in sorted(seen.items()))
                print(f"{name}, {kind}: {answers if share == 1 else seen.total()}", flush=True)
    print(f"{progress.done} inputs in {time.monotonic() - progress.began:.0f} s: no fault")
    return 0


if __name__ == "__main__":
    sys.exit(main(*(int(one) for one in sys.argv[1:3])))
