"""Requests of callers with something to prove, or to have proven: keys, certificates, assertions, actors, our own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, quote_plus

from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import strategies as st

from scripts.demo.service import CLIENT, GRANT_TYPE, JWT_TYPE
from scripts.fuzz.inputs import any_json, claims, extension, headers, odd_tokens, piece, request, some_bytes, visible
from scripts.fuzz.world import FORMS, PREFIX, Material, gateway, secret_of

_ASSERTION_TYPE: Final = b"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_TYPES: Final = [
    JWT_TYPE.encode(),
    b"urn:ietf:params:oauth:token-type:access_token",
    b"urn:ietf:params:oauth:token-type:id_token",
    b"urn:sts:token-type:api_key",
    b"urn:sts:token-type:client_certificate",
]
JWT, _, _, _KEY, CERTIFICATE = _TYPES
_FORM: Final = (b"Content-Type", b"application/x-www-form-urlencoded")
_EXTENSIONS: Final = ["2.5.29.17", "2.5.29.37", "2.5.29.15", "2.5.29.19", "2.5.29.35", "2.5.29.32", "1.2.3.4"]

Pairs = list[tuple[bytes, bytes]]
Requests = st.SearchStrategy[bytes]


def basic(client: str) -> tuple[bytes, bytes]:
    """A client's proof by HTTP Basic."""
    return b"Authorization", b"Basic " + base64.b64encode(f"{client}:{secret_of(client)}".encode())


def posted(path: bytes, pairs: Pairs, *more: tuple[bytes, bytes]) -> bytes:
    """A form, with more headers."""
    body = b"&".join(name + b"=" + quote_plus(value).encode() for name, value in pairs)
    return request(b"POST", path, [_FORM, *more, (b"Content-Length", b"%d" % len(body))], body)


def exchange(
    token: bytes, token_type: bytes, more: Pairs, *proof: tuple[bytes, bytes], audience: bytes = b"orders"
) -> bytes:
    """A token exchange of a caller that proves itself with `proof`, headers."""
    good = [(b"grant_type", GRANT_TYPE.encode()), (b"subject_token", token), (b"subject_token_type", token_type)]
    return posted(b"/token", [*good, (b"audience", audience), *more], *proof)


def asked(client: str, *more: tuple[bytes, bytes]) -> bytes:
    """A question at forward-auth, with more headers."""
    good = {"Secret": secret_of(client), "Method": "GET", "URI": "/orders/7", "Host": "api.example.com"}
    names = {"Secret": b"X-Gateway-Secret"}
    pairs = [(names.get(name, b"X-Original-" + name.encode()), value.encode()) for name, value in good.items()]
    return request(b"GET", b"/forward-auth/" + client.encode(), [*pairs, *more])


def _bend(good: bytes) -> st.SearchStrategy[bytes]:
    """This text, as it is or with a piece in place of a few bytes."""

    def put(where: int, piece: bytes, cut: int) -> bytes:
        return good[:where] + piece + good[where + cut :]

    return st.just(good) | st.builds(put, st.integers(0, len(good)), piece, st.integers(0, 40))


def _introspections(who: Material) -> Requests:
    token = _bend(who.own) | odd_tokens(who.own) | odd_tokens(who.token) | some_bytes
    names = st.sampled_from([b"token", b"token_type_hint", b"client_id", b"client_secret", b"client_assertion"])
    more = st.lists(st.tuples(names | some_bytes, some_bytes), max_size=2)
    clients = st.sampled_from(["orders-service", "orders-service", CLIENT, "signer"])

    def ask(token: bytes, more: Pairs, client: str) -> bytes:
        return posted(b"/introspect", [(b"token", token), *more], basic(client))

    return st.builds(ask, token, more, clients)


def _api_keys(who: Material) -> Requests:
    key = _bend(who.api_key) | visible.map(PREFIX.encode().__add__) | some_bytes
    beside = st.sampled_from([b"X-API-Key", b"X-Api-Key", b"Authorization", b"Cookie", b"X-SSL-Client-Cert"])
    more = st.lists(st.tuples(beside, some_bytes | st.just(b"Bearer " + who.token)), max_size=1)

    def at_forward(key: bytes, more: Pairs) -> bytes:
        return asked(CLIENT, (b"X-API-Key", key), *more)

    return st.builds(at_forward, key, more) | st.builds(
        exchange, key, st.just(_KEY) | st.sampled_from(_TYPES), st.just([]), st.just(basic(CLIENT))
    )


def handed(form: str, der: bytes, pem: bytes) -> Pairs:
    """A certificate as a gateway hands it on in this form."""
    escaped = quote(pem, safe="").encode()
    if form == "nginx":
        return [(b"X-SSL-Client-Cert", escaped), (b"X-SSL-Client-Verify", b"SUCCESS")]
    if form == "client_cert":
        return [(b"Client-Cert", b":" + base64.b64encode(der) + b":")]
    digest = hashlib.sha256(der).hexdigest().encode()
    return [(b"X-Forwarded-Client-Cert", b'By=spiffe://a/b;Hash=%s;Cert="%s";Subject="CN=x"' % (digest, escaped))]


def _certificates(who: Material) -> Requests:
    """Good ones, those the CA signed with nonsense in them, and bytes; in each form, and as subject tokens."""
    world = who.world
    odd = st.builds(world.odd_leaf, st.sampled_from(_EXTENSIONS), extension)
    ders = _bend(world.leaf_der) | odd.map(lambda leaf: leaf.public_bytes(Encoding.DER)) | st.binary(max_size=80)
    chain = st.lists(st.just(world.leaf_der) | ders, min_size=1, max_size=3)
    names = [name for form in FORMS for name, _ in handed(form, b"", b"")]
    more = st.lists(st.tuples(st.sampled_from([*names, b"Client-Cert-Chain"]), some_bytes), max_size=1)

    def pem(der: bytes) -> bytes:
        body = base64.encodebytes(der)
        return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"

    def forwarded(form: str, der: bytes, bend: tuple[float, bytes, int], more: Pairs) -> bytes:
        (name, value), *others = handed(form, der, pem(der))
        at, piece, cut = int(bend[0] * len(value)), bend[1], bend[2]
        value = value[:at] + piece + value[at + cut :] if cut else value
        return asked(gateway(form), (name, value), *others, *more)

    def as_subject(ders: list[bytes], client: str, more: Pairs) -> bytes:
        text = b".".join(base64.urlsafe_b64encode(der).rstrip(b"=") for der in ders)
        return exchange(text, CERTIFICATE, [], basic(client), *more)

    def through_proxy(der: bytes, more: Pairs) -> bytes:
        proof = [(b"X-Gateway-Secret", secret_of("proxy").encode()), *handed("client_cert", der, b"")]
        return exchange(world.person(), JWT, [(b"client_id", b"mesh")], *proof, *more)

    bends = st.tuples(st.floats(0, 1), piece, st.sampled_from([0, 0, 1, 8]))
    clients = st.sampled_from([CLIENT, *(gateway(form) for form in FORMS)])
    return st.one_of(
        st.builds(forwarded, st.sampled_from(FORMS), ders, bends, more),
        st.builds(as_subject, chain, clients, more),
        st.builds(through_proxy, ders, more),
    )


def _odd_claims(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Claims with nonsense; a `sub` that would be somebody is left as it is."""
    found = st.dictionaries(claims | st.sampled_from(names or ("jti",)), any_json, max_size=3)
    return found.filter(lambda one: not isinstance(one.get("sub"), str))


def _assertions(who: Material) -> Requests:
    """Of `signer` by its own key and by none, and access tokens of `holder`."""
    world = who.world
    signed = st.builds(lambda changes: world.assertion(**changes), _odd_claims())
    assertion = st.builds(world.assertion) | signed | odd_tokens(world.assertion()) | some_bytes
    more = st.lists(st.tuples(st.sampled_from([b"client_id", b"client_secret"]) | some_bytes, some_bytes), max_size=1)
    kinds = st.just(_ASSERTION_TYPE) | some_bytes

    def asserted(path: bytes, assertion: bytes, kind: bytes, more: Pairs) -> bytes:
        proof = [(b"client_assertion", assertion), (b"client_assertion_type", kind), *more]
        return exchange(who.token, JWT, proof) if path == b"/token" else posted(path, [(b"token", who.own), *proof])

    def borne(token: bytes) -> bytes:
        return exchange(who.token, JWT, [], (b"Authorization", b"Bearer " + token))

    own = st.builds(world.holding) | st.builds(lambda changes: world.holding(**changes), _odd_claims("client_id"))
    paths = st.sampled_from([b"/token", b"/token", b"/introspect"])
    return st.builds(asserted, paths, assertion, kinds, more) | (own | odd_tokens(who.token)).map(borne)


def _claims(who: Material) -> Requests:
    """Tokens of an issuer that signs nonsense."""
    names = ("jti", "auth_time", "acr", "amr", "may_act", "roles", "agency_id", "client_id", "src")

    def sign(header: dict[str, Any], changes: dict[str, Any]) -> bytes:
        good = {"iss": "https://people.example.com", "sub": "carol", "aud": "api-gateway", "exp": 4_000_000_000}
        return who.world.signed({**good, "scope": "orders:read", "jti": "j", **changes}, header)

    token = st.builds(sign, st.dictionaries(headers, any_json, max_size=1), _odd_claims(*names))
    audience = st.sampled_from([b"orders", b"mapped", b"sealed", b"guarded"])
    at_token = st.builds(
        lambda token, audience: exchange(token, JWT, [], basic(CLIENT), audience=audience), token, audience
    )
    return at_token | token.map(lambda one: asked(CLIENT, (b"Authorization", b"Bearer " + one)))


def _actors(who: Material) -> Requests:
    world = who.world
    leaf = base64.urlsafe_b64encode(world.leaf_der).rstrip(b"=")
    others = st.sampled_from([who.token, who.own, who.api_key, leaf, b"op_actor", b""]) | odd_tokens(who.own)
    actor = st.builds(world.person) | st.builds(lambda changes: world.person(**changes), _odd_claims()) | others
    may = any_json | st.just({"iss": "https://people.example.com", "sub": "carol"})
    subject = st.builds(lambda may, act: world.person(may_act=may, act=act), may, any_json) | st.just(who.token)
    types = st.just(JWT) | st.sampled_from(_TYPES) | some_bytes

    def acting(subject: bytes, actor: bytes, actor_type: bytes) -> bytes:
        more = [(b"actor_token", actor), (b"actor_token_type", actor_type)]
        return exchange(subject, JWT, more, basic(CLIENT))

    return st.builds(acting, subject, actor, types)


def _own_tokens(who: Material) -> Requests:
    token = _bend(who.own) | odd_tokens(who.own)
    types = st.sampled_from(_TYPES)
    back = st.builds(
        lambda token, kind: exchange(token, kind, [], basic("orders-service"), audience=b"billing"), token, types
    )
    forward = token.map(lambda one: asked(CLIENT, (b"Authorization", b"Bearer " + one)))
    as_proof = token.map(lambda one: exchange(who.token, JWT, [], (b"Authorization", b"Bearer " + one)))
    return back | forward | as_proof


KINDS: Final[dict[str, Callable[[Material], Requests]]] = {
    "introspect": _introspections,
    "api_key": _api_keys,
    "certificate": _certificates,
    "assertion": _assertions,
    "claims": _claims,
    "actor": _actors,
    "own": _own_tokens,
}
"""By name; each is made around what a caller holds."""
