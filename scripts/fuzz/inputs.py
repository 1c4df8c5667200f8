"""What to send: the bytes of HTTP requests of five kinds, by hypothesis, and those bent at random."""

from __future__ import annotations

import base64
import json
import random
import re
from typing import Any, Final
from urllib.parse import quote_plus

from hypothesis import strategies as st

from scripts.demo.service import CLIENT, GRANT_TYPE, JWT_TYPE, SECRET

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
    others = [b"scope", b"resource", b"requested_token_type", b"client_id", b"actor_token"]
    names = st.sampled_from([*good, *others]) | _bytes
    more = st.lists(st.tuples(names, _bytes), max_size=4)

    def form(left_out: set[bytes], more: list[tuple[bytes, bytes]], between: bytes) -> bytes:
        pairs = [pair for pair in good.items() if pair[0] not in left_out] + more
        return _post(between.join(b"=".join(pair) for pair in pairs))

    return st.builds(form, st.sets(st.sampled_from(sorted(good)), max_size=1), more, st.just(b"&") | _piece)


def _headers(token: bytes) -> st.SearchStrategy[bytes]:
    names = [*(name.decode() for name, _ in _question()), "Authorization", "X-Request-ID", "Origin", "X-Original-Addr"]
    others = ["Content-Type", "Content-Length", "Transfer-Encoding", "Expect", "If-None-Match", "X-Forwarded-For"]
    changes = st.dictionaries(st.sampled_from(names + others), _bytes, max_size=3)
    targets = st.sampled_from([f"/forward-auth/{CLIENT}".encode(), b"/token", b"/readyz", b"/.well-known/jwks.json"])
    methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS"])

    def request(method: bytes, target: bytes, changes: dict[str, bytes]) -> bytes:
        return _request(method, target, _question(**{"Authorization": b"Bearer " + token, **changes}))

    return st.builds(request, methods, targets, changes)


def _targets(token: bytes) -> st.SearchStrategy[bytes]:
    own_path = f"/forward-auth/{CLIENT}".encode()
    starts = [b"/token", b"/forward-auth/", own_path, b"/.well-known/", b"/metrics", b"/", b"//"]
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
    ends = st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b":", b"\r\n ", b"0\r\n\r\n", b"3\r\na=b\r\n"])
    framing = st.sampled_from(
        [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"Expect: 100-continue\r\n"]
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
        if whole and re.search(rb"[\r\n]", data[max(0, at - 1) : at + cut + 1]):
            continue
        data = data[:at] + (piece.replace(b"\n", b"").replace(b"\r", b"") if whole else piece) + data[at + cut :]
    if whole:
        head, end, body = data.partition(b"\r\n\r\n")
        data = re.sub(rb"(?m)^Content-Length: .*?(?=\r?$)", b"Content-Length: %d" % len(body), head) + end + body
    return data
