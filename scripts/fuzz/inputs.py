"""What to send: the bytes of HTTP requests, by hypothesis, and those bent at random. Five kinds of any request."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote_plus

from hypothesis import strategies as st

from scripts.demo.service import CLIENT, GRANT_TYPE, JWT_TYPE, SECRET

# What to say. Pieces that mean something, so that more than the first check is reached, and bytes that mean nothing.

_BASIC: Final = base64.b64encode(f"{CLIENT}:{SECRET}".encode())
_ODD: Final = [b"", b"%", b"%00", b"%zz", b"%FF", b"%C0%AF", b"+", b"&", b"=", b",", b";", b'"', b"\\", b"..", b"//"]
_MORE: Final = [b"\0", b"\t", b"\x7f", b"\xc3\xa9", b"\xff", b"%0d%0a", b"*", b"?", b"#", b":", b"a" * 5000, b"9" * 30]
PIECES: Final = [*_ODD, *_MORE]
piece = st.sampled_from(PIECES) | st.binary(max_size=12) | st.text(max_size=6).map(lambda one: one.encode())
some_bytes = st.lists(piece, max_size=6).map(b"".join)
visible = some_bytes.map(lambda one: re.sub(rb"[^\x21-\x7e]", b"~", one))

_leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
any_json = st.recursive(
    _leaf | st.sampled_from([10**400, -(10**400), 1e308, 2**53, "\0", "\ud800", "x" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
)
headers = st.sampled_from(["kid", "typ", "cty", "crit", "b64", "jku", "jwk", "x5c", "zip", "enc"])
claims = st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "scope", "cnf", "act", "events"])

_tags = st.sampled_from([0x81, 0x82, 0x86, 0x86, 0x87, 0x88, 0xA0, 0xA4, 0x30, 0x0C])
_uris = st.sampled_from([b"spiffe://partners.example/", b"SPIFFE://partners.example/a", b"https://a/%2e", b"urn:x:"])


def _der(parts: list[tuple[int, bytes]]) -> bytes:
    body = b"".join(bytes([tag, len(content)]) + content for tag, content in parts)
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body if len(body) > 127 else b"\x30%c" % len(body) + body


extension = st.lists(
    st.tuples(_tags, (some_bytes | st.builds(bytes.__add__, _uris, visible)).map(lambda one: one[:120])), max_size=4
).map(_der)
"""The bytes of an extension that is a list, of names above all (RFC 5280 §4.2.1.6), with nonsense in it."""


def encoded(value: Any) -> bytes:  # noqa: ANN401 - any JSON
    """One part of a JWT."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def request(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> bytes:
    """The bytes of one request."""
    lines = [b"%s: %s" % header for header in headers]
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: sts", *lines, b"", b""]) + body


def _post(body: bytes) -> bytes:
    headers = [(b"Authorization", b"Basic " + _BASIC), (b"Content-Type", b"application/x-www-form-urlencoded")]
    return request(b"POST", b"/token", [*headers, (b"Content-Length", b"%d" % len(body))], body)


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
    names = st.sampled_from([*good, *others]) | some_bytes
    more = st.lists(st.tuples(names, some_bytes), max_size=4)

    def form(left_out: set[bytes], more: list[tuple[bytes, bytes]], between: bytes) -> bytes:
        pairs = [pair for pair in good.items() if pair[0] not in left_out] + more
        return _post(between.join(b"=".join(pair) for pair in pairs))

    return st.builds(form, st.sets(st.sampled_from(sorted(good)), max_size=1), more, st.just(b"&") | piece)


def _headers(token: bytes) -> st.SearchStrategy[bytes]:
    names = [*(name.decode() for name, _ in _question()), "Authorization", "X-Request-ID", "Origin", "X-Original-Addr"]
    others = ["Content-Type", "Content-Length", "Transfer-Encoding", "Expect", "If-None-Match", "X-Forwarded-For"]
    changes = st.dictionaries(st.sampled_from(names + others), some_bytes, max_size=3)
    targets = st.sampled_from([f"/forward-auth/{CLIENT}".encode(), b"/token", b"/readyz", b"/.well-known/jwks.json"])
    methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS"])

    def asked(method: bytes, target: bytes, changes: dict[str, bytes]) -> bytes:
        return request(method, target, _question(**{"Authorization": b"Bearer " + token, **changes}))

    return st.builds(asked, methods, targets, changes)


def _targets(token: bytes) -> st.SearchStrategy[bytes]:
    own_path = f"/forward-auth/{CLIENT}".encode()
    starts = [b"/token", b"/forward-auth/", own_path, b"/.well-known/", b"/metrics", b"/", b"//"]
    target = st.builds(bytes.__add__, st.sampled_from([*starts, b"http://a/token", b""]), visible)
    bearer = {"Authorization": b"Bearer " + token}

    def own(target: bytes) -> bytes:
        return request(b"GET", target, _question(**bearer))

    def asked(target: bytes, host: bytes) -> bytes:
        question = _question(**bearer, **{"X-Original-URI": b"/orders/" + target, "X-Original-Host": host})
        return request(b"GET", f"/forward-auth/{CLIENT}".encode(), question)

    return target.map(own) | st.builds(asked, visible, st.just(b"api.example.com") | visible)


def odd_tokens(token: bytes) -> st.SearchStrategy[bytes]:
    """A JWT with its header, its claims or its signature changed, cut and sprinkled; whatever looks like one."""
    head, body, proof = token.split(b".")
    good = [json.loads(base64.urlsafe_b64decode(one + b"==")) for one in (head, body)]
    algorithms = st.sampled_from(["RS256", "ES256", "none", "HS256", "PS256", "dir"]) | any_json

    def signed(alg: Any, header: dict[str, Any], claims: dict[str, Any], signature: bytes) -> bytes:  # noqa: ANN401
        return b".".join([encoded({**good[0], "alg": alg, **header}), encoded({**good[1], **claims}), signature])

    def cut_at(where: int, piece: bytes, cut: int) -> bytes:
        return token[:where] + piece + token[where + cut :]

    signature = st.just(proof) | visible
    made = st.builds(
        signed, algorithms, st.dictionaries(headers, any_json), st.dictionaries(claims, any_json), signature
    )
    return made | st.builds(cut_at, st.integers(0, len(token)), visible, st.integers(0, 9)) | visible


def _tokens(token: bytes) -> st.SearchStrategy[bytes]:
    def at_token(token: bytes) -> bytes:
        form = [("grant_type", GRANT_TYPE), ("subject_token_type", JWT_TYPE), ("audience", "orders")]
        pairs = [*form, ("subject_token", token.decode("latin-1"))]
        return _post("&".join(f"{name}={quote_plus(value)}" for name, value in pairs).encode())

    def at_forward(token: bytes) -> bytes:
        return request(b"GET", f"/forward-auth/{CLIENT}".encode(), _question(Authorization=b"Bearer " + token))

    odd = odd_tokens(token)
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

    edit = st.tuples(st.floats(0, 1), st.integers(0, 8), ends | framing | piece)
    lines = st.builds(lambda data, line: data.replace(b"\r\n", b"\r\n" + line, 1), sources, framing)
    return st.builds(bend, sources | lines, st.lists(edit, max_size=4))


KINDS: Final[dict[str, Callable[[bytes], st.SearchStrategy[bytes]]]] = {
    "form": _forms,
    "header": _headers,
    "target": _targets,
    "token": _tokens,
    "raw": _raws,
}
"""By name; each is made around a good token."""


def bent(dice: random.Random, corpus: list[bytes], *, whole: bool) -> bytes:
    """One of the corpus with a few bytes replaced, removed, doubled, or taken from another one.

    `whole` keeps what separates head and body, and makes the length right again, so that more than the parser sees it.
    """
    data = dice.choice(corpus)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        cut = dice.choice((0, 0, 1, 1, 2, 8, 40))
        other = dice.choice(corpus)
        start = dice.randrange(len(other) + 1)
        piece = dice.choice((dice.choice(PIECES), dice.randbytes(dice.randint(0, 3)), other[start : start + 20]))
        if whole and re.search(rb"[\r\n]", data[max(0, at - 1) : at + cut + 1]):
            continue
        data = data[:at] + (piece.replace(b"\n", b"").replace(b"\r", b"") if whole else piece) + data[at + cut :]
    if whole:
        head, end, body = data.partition(b"\r\n\r\n")
        data = re.sub(rb"(?m)^Content-Length: .*?(?=\r?$)", b"Content-Length: %d" % len(body), head) + end + body
    return data
