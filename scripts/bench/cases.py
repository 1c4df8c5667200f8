"""The cases: what is sent to which server, and which status is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import urllib3

from scripts.bench.configurations import LEDGER, OPAQUE_PREFIX
from scripts.bench.figures import CONSTANT, NGINX, USUAL
from scripts.bench.load import ask
from scripts.bench.world import World
from scripts.demo.service import CLIENT, GRANT_TYPE, JWT_TYPE, SECRET

Requests = Callable[[World, int], list[bytes]]
"""Makes prepared requests; the number is how many, for cases that send each request once."""

ALL: Final = (1, 16, 128)
URIS: Final = 1000
"""Among how many URIs the requests with one token vary."""
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type
_API_KEY: Final = "X-API-Key"
_JWKS: Final = "/.well-known/jwks.json"


@dataclass(frozen=True)
class Case:
    """One row of the table.

    `fresh` requests are sent once each and made again for each round. `connections` is measured by default, `more`
    with --full; a case whose `connections` is () belongs to --full only.
    """

    name: str
    server: str
    about: str
    requests: Requests
    connections: tuple[int, ...] = (USUAL,)
    more: tuple[int, ...] = (USUAL,)
    status: int = 200
    fresh: bool = False


def forward_auth(credential: Mapping[str, str], uri: str) -> bytes:
    """Return a request as the nginx configuration of deploy/gateways/nginx sends it."""
    headers = {
        "Host": "sts",
        "X-Gateway-Secret": SECRET,
        "X-Original-Method": "GET",
        "X-Original-URI": uri,
        "X-Original-Host": "api.example.com",
        "X-Original-Proto": "https",
        "X-Original-Addr": "127.0.0.1",
        "X-Request-ID": "0123456789abcdef",
        **credential,
    }
    return get(f"/forward-auth/{CLIENT}", headers)


def get(path: str, headers: Mapping[str, str], method: str = "GET") -> bytes:
    """Return a request without a body."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()


def exchange(token: str, audience: str = "orders", token_type: str = JWT_TYPE) -> bytes:
    """Return a token exchange (RFC 8693 §2.1)."""
    form = {"grant_type": GRANT_TYPE, "subject_token": token, "subject_token_type": token_type, "audience": audience}
    body = urlencode(form)
    basic = urllib3.make_headers(basic_auth=f"{CLIENT}:{SECRET}")["authorization"]
    return (
        f"POST /token HTTP/1.1\r\nHost: sts\r\nAuthorization: {basic}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _paths(credential: Mapping[str, str], audience: str = "orders") -> list[bytes]:
    return [forward_auth(credential, f"/{audience}/{number}") for number in range(URIS)]


def _hits(world: World, _: int) -> list[bytes]:
    return _paths(_bearer(world.token()))


def _token_hits(world: World, _: int) -> list[bytes]:
    return [exchange(world.token())]


def _warm(count: int, kind: str) -> Requests:
    def requests(world: World, _: int) -> list[bytes]:
        tokens = (world.token(kind) for _ in range(count))
        return [forward_auth(_bearer(token), f"/orders/{number % URIS}") for number, token in enumerate(tokens)]

    return requests


def _warm_exchange(world: World, _: int) -> list[bytes]:
    return [exchange(world.token()) for _ in range(1000)]


def _fresh(server: str, kind: str = "valid", audience: str = "orders") -> Requests:
    def requests(world: World, count: int) -> list[bytes]:
        tokens = world.fresh(server, kind, count)
        return [forward_auth(_bearer(one), f"/{audience}/{number % URIS}") for number, one in enumerate(tokens)]

    return requests


def _fresh_exchange(server: str, kind: str = "valid") -> Requests:
    return lambda world, count: [exchange(token) for token in world.fresh(server, kind, count)]


def _once(world: World, _: int) -> list[bytes]:
    return _paths(_bearer(world.token()), "once")


def _opaque(world: World, count: int) -> list[bytes]:
    begin = world.number("opaque", count)
    tokens = (f"{OPAQUE_PREFIX}{number:032}" for number in range(begin, begin + count))
    return [forward_auth(_bearer(token), f"/orders/{number % URIS}") for number, token in enumerate(tokens)]


def _opaque_hits(world: World, _: int) -> list[bytes]:
    return _paths(_bearer(f"{OPAQUE_PREFIX}{world.number('opaque', 1):032}"))


def _opaque_exchange(world: World, _: int) -> list[bytes]:
    return [exchange(f"{OPAQUE_PREFIX}{world.number('opaque', 1):032}", token_type=_ACCESS_TOKEN)]


def _keys(world: World, _: int) -> list[bytes]:
    return _paths({_API_KEY: world.api_key()})


def _refused(world: World, _: int) -> list[bytes]:
    return _paths(_bearer(world.token("expired")))


def _refused_exchange(world: World, _: int) -> list[bytes]:
    return [exchange(world.token("expired"))]


def _not_modified(world: World, _: int) -> list[bytes]:
    _, answer = ask(world.target("plain"), get(_JWKS, {"Host": "sts"}))
    names = dict(line.split(": ", 1) for line in answer.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")[1:])
    tag = next(value for name, value in names.items() if name.lower() == "etag")
    return [get(_JWKS, {"Host": "sts", "If-None-Match": tag})]


CASES: Final[Sequence[Case]] = (
    Case(NGINX, "nginx", "yardstick: nginx answers a constant", _hits, more=ALL),
    Case(CONSTANT, "constant", "yardstick: this server's own HTTP answers a constant", _hits, more=ALL),
    Case("hit forward-auth", "plain", "one token, 1 000 URIs", _hits, (16, 128), ALL),
    Case("hit /token", "plain", "one token", _token_hits, more=ALL),
    Case("1 000 tokens forward-auth", "plain", "1 000 tokens in the cache", _warm(1000, "valid"), more=ALL),
    Case("1 000 tokens /token", "plain", "1 000 tokens in the cache", _warm_exchange, ()),
    Case("100 000 tokens forward-auth", "roomy", "100 000 tokens in the cache", _warm(100_000, "elliptic"), ()),
    Case("miss forward-auth", "plain", "each token once: RS256 to ES256", _fresh("plain"), (16, 128), ALL, fresh=True),
    Case("miss /token", "plain", "each token once: RS256 to ES256", _fresh_exchange("plain"), more=ALL, fresh=True),
    Case("miss to Ed25519", "ed25519", "each token once: RS256 to Ed25519", _fresh("ed25519"), (), fresh=True),
    Case("miss to JWE", "kinds", "RS256 to an encrypted token", _fresh("kinds", audience=LEDGER), (), fresh=True),
    Case("reuse: unique", "kinds", "one token, never from the cache", _once, ()),
    Case(
        "miss, 16 KB token", "kinds", "a rule over 690 groups; /token", _fresh_exchange("kinds", "big"), (), fresh=True
    ),
    Case("introspected hit", "kinds", "one opaque token, known", _opaque_hits),
    Case("introspected hit /token", "kinds", "one opaque token, known", _opaque_exchange, ()),
    Case("introspected miss", "kinds", "each opaque token once, asked at nginx", _opaque, (), fresh=True),
    Case("API key", "kinds", "one key, 1 000 URIs", _keys),
    Case(
        "refusal forward-auth", "plain", "each expired token once", _fresh("plain", "expired"), status=401, fresh=True
    ),
    Case(
        "refusal /token",
        "plain",
        "each expired token once",
        _fresh_exchange("plain", "expired"),
        (),
        status=400,
        fresh=True,
    ),
    Case("repeated refusal forward-auth", "plain", "one expired token", _refused, status=401),
    Case("repeated refusal /token", "plain", "one expired token", _refused_exchange, (), status=400),
    Case("JWKS 304", "plain", "the key set, not modified", _not_modified, status=304),
)

GROWTH: Final[Sequence[Case]] = (
    Case("hit forward-auth, 10 000 of each", "grown", "beside 10 000 sources, audiences, routes, clients", _hits),
    Case(
        "miss forward-auth, 10 000 of each", "grown", "the same, and 200 000 revocations", _fresh("grown"), fresh=True
    ),
)
"""Sources, audiences, routes and clients: 10 000 of each, and 200 000 revocations."""


@dataclass(frozen=True)
class Peer:
    """Another forward-auth server, and how it is asked. `headers` go with every request beside the token's."""

    path: str
    host: str
    method: str
    headers: Mapping[str, str]
    token_header: str
    statuses: tuple[int, int] = (200, 401)
    tokens: tuple[str, ...] = ()
    """Tokens of the peer's own identity provider; () to send those of the benchmark's provider."""

    def request(self, token: str, number: int) -> bytes:
        """Return one request. `{n}` in a header's value becomes a number below 1 000, so that URIs vary."""
        varied = {name: value.replace("{n}", str(number % URIS)) for name, value in self.headers.items()}
        scheme = "Bearer " if self.token_header.lower() == "authorization" else ""
        headers = {"Host": self.host, **varied, self.token_header: f"{scheme}{token}"}
        return get(self.path.replace("{n}", str(number % URIS)), headers, self.method)

    def cases(self, connections: tuple[int, ...]) -> list[Case]:
        """Return the cases for this peer: with tokens of its own hits only."""
        good, bad = self.statuses

        def each(tokens: Sequence[str]) -> list[bytes]:
            return [self.request(token, number) for number, token in enumerate(tokens)]

        def hits(world: World, _: int) -> list[bytes]:
            return [self.request(token, number) for token in (world.token(),) for number in range(URIS)]

        def warm(world: World, _: int) -> list[bytes]:
            return each([world.token() for _ in range(1000)])

        def case(name: str, about: str, requests: Requests, status: int = good, *, fresh: bool = False) -> Case:
            return Case(name, "peer", about, requests, connections, connections, status, fresh)

        if self.tokens:
            known = self.tokens if len(self.tokens) > 1 else self.tokens * URIS
            return [case("given tokens", f"{len(self.tokens)} tokens again and again", lambda *_: each(known))]
        return [
            case("hit", "one token, 1 000 URIs", hits),
            case("1 000 tokens", "1 000 tokens again and again", warm),
            case("miss", "each token once", lambda w, n: each(w.fresh("peer", "valid", n)), fresh=True),
            case(
                "refusal", "each expired token once", lambda w, n: each(w.fresh("peer", "expired", n)), bad, fresh=True
            ),
        ]
