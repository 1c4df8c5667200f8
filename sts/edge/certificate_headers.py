"""A client certificate that a gateway forwards in a header, in exactly one of three forms.

Certificates are public, so any sender of a header can send one. The headers are read only from a peer or a client that
is configured for it, and only in the configured form. Another form beside it, or any form from another sender, is
refused (RFC 9440 §4). This module returns bytes and does not prove the certificates.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Final, Literal
from urllib.parse import unquote_to_bytes

from cryptography import x509
from pydantic import AfterValidator, Field

from sts.clients.client import PeerNetwork, within
from sts.clients.secret import SecretDigest, live, matches
from sts.errors import BAD_SIGNATURE, MALFORMED, TOO_LARGE, Refusal
from sts.model import Incoming, Peer
from sts.options import Section
from sts.x509.chain import MAX_CERTIFICATES, read_chain

Form = Literal["client_cert", "xfcc", "nginx"]
Ders = tuple[bytes, ...]

MAX_HEADER_CHARS: Final = 65_536

CLIENT_CERT: Final = "client-cert"
CLIENT_CERT_CHAIN: Final = "client-cert-chain"
XFCC: Final = "x-forwarded-client-cert"
NGINX_CERT: Final = "x-ssl-client-cert"
NGINX_VERIFY: Final = "x-ssl-client-verify"

HEADERS: Final[Mapping[Form, frozenset[str]]] = {
    "client_cert": frozenset({CLIENT_CERT, CLIENT_CERT_CHAIN}),
    "xfcc": frozenset({XFCC}),
    "nginx": frozenset({NGINX_CERT, NGINX_VERIFY}),
}
ALL_HEADERS: Final = frozenset().union(*HEADERS.values())

_BYTES: Final = re.compile(r" *:([A-Za-z0-9+/]*={0,2}): *")  # RFC 9651 §3.3.5; no parameters are defined for these
_PEM: Final = re.compile(rb"\s*-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)\r?\n-----END CERTIFICATE-----\s*")
_ESCAPED: Final = re.compile(r"(?:[!-$&-~ ]|%[0-9A-Fa-f]{2})*")
_END: Final = b"-----END CERTIFICATE-----"
# One pair of an element: a name, and a value with or without quotes. No two steps match the same text, so it is linear.
_PAIR: Final = re.compile(r'([A-Za-z0-9_-]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;]*))')
_SPACES: Final = re.compile(r" *")


def handed_on(headers: Mapping[str, str], form: Form | None) -> Ders | None:
    """Return the certificates in DER that `headers` forward in `form`, the leaf first; None if there is none.

    `headers` have lower-case names; repeated headers are joined with a comma. `form` None means that the sender may
    forward none. Raises MALFORMED for another form beside it, for more than one value, and for a value that cannot be
    read; TOO_LARGE; BAD_SIGNATURE if the gateway itself reports that the certificate did not verify.
    """
    if ALL_HEADERS.isdisjoint(headers):
        return None
    if form is None:
        raise Refusal(MALFORMED, why="a certificate header from a sender that may not forward one")
    present = ALL_HEADERS.intersection(headers)
    if not present <= HEADERS[form]:
        raise Refusal(MALFORMED, why="a certificate header of another form", form=form)
    if max(len(headers[name]) for name in present) > MAX_HEADER_CHARS:
        raise Refusal(TOO_LARGE, why="a certificate header", max_chars=MAX_HEADER_CHARS)
    return _READERS[form](headers)


def _read_client_cert(headers: Mapping[str, str]) -> Ders:
    """Read the form of RFC 9440: one byte sequence, and a list of them for the chain."""
    leaf = headers.get(CLIENT_CERT)
    if leaf is None:
        raise Refusal(MALFORMED, why="a chain without a certificate")
    chain = headers.get(CLIENT_CERT_CHAIN)
    above = [] if chain is None else chain.split(",", MAX_CERTIFICATES)
    return tuple(_byte_sequence(one) for one in (leaf, *above))


def _byte_sequence(item: str) -> bytes:
    found = _BYTES.fullmatch(item.replace("\t", " "))
    if found is None:
        raise Refusal(MALFORMED, why="not one byte sequence in colons (RFC 9440 §2.1)")
    return _base64(found[1].encode())


def _read_nginx(headers: Mapping[str, str]) -> Ders | None:
    """Read `$ssl_client_escaped_cert` and `$ssl_client_verify`: only the leaf; nginx does not send the chain."""
    verify, escaped = headers.get(NGINX_VERIFY, ""), headers.get(NGINX_CERT, "")
    if not escaped and verify in ("", "NONE"):
        return None
    if verify.startswith("FAILED"):
        raise Refusal(BAD_SIGNATURE, why="the gateway reports that the certificate did not verify")
    if verify != "SUCCESS":  # also refuses a repeated header
        raise Refusal(MALFORMED, why="not one verdict of the gateway", header=NGINX_VERIFY)
    return _only(_read_pem(escaped))


def _read_xfcc(headers: Mapping[str, str]) -> Ders:
    """Read Envoy's elements, one for each hop. Only the last one, from the nearest hop, is trusted.

    Envoy writes URI and DNS names without quotes, as the certificate has them: a comma in a name would begin an element
    that Envoy did not write. So the names of every element must be those of its certificate.
    """
    elements = _elements(headers[XFCC])
    for pairs in elements[:-1]:
        if "cert" in pairs or "chain" in pairs:
            _element(pairs)
        elif "uri" in pairs or "dns" in pairs:
            raise Refusal(MALFORMED, why="an earlier element has names and no Cert")
    return _element(elements[-1])


def _element(pairs: Mapping[str, list[str]]) -> Ders:
    """Return one element's certificate and chain; `Subject` is not read."""
    for name in ("hash", "cert", "chain"):
        if len(pairs.get(name, ())) > 1:
            raise Refusal(MALFORMED, why="a repeated pair", key=name)
    cert = pairs["cert"][0] if "cert" in pairs else None
    chain = _read_pem(pairs["chain"][0]) if "chain" in pairs else ()
    ders = chain if cert is None else _only(_read_pem(cert))
    if not ders:
        raise Refusal(MALFORMED, why="neither Cert nor Chain: the gateway must forward the certificate itself")
    if chain:
        if chain[0] != ders[0]:
            raise Refusal(MALFORMED, why="Chain does not begin with Cert")
        ders = chain
    if "hash" not in pairs or pairs["hash"][0].lower() != hashlib.sha256(ders[0]).hexdigest():
        raise Refusal(MALFORMED, why="Hash is not that of Cert")
    _check_same_names(pairs, ders[0])
    return ders


def _check_same_names(pairs: Mapping[str, list[str]], der: bytes) -> None:
    for key, kind in (("uri", x509.UniformResourceIdentifier), ("dns", x509.DNSName)):
        if key not in pairs:
            continue
        try:
            san = read_chain((der,)).leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            san = x509.SubjectAlternativeName([])
        if [value for value in pairs[key] if value] != san.get_values_for_type(kind):
            raise Refusal(MALFORMED, why="names that are not the certificate's", key=key)


def _elements(value: str) -> list[dict[str, list[str]]]:
    """Split a header into elements of pairs, by lower-case key; every character must belong to one of them."""
    elements: list[dict[str, list[str]]] = [{}]
    position = 0
    while True:
        pair = _PAIR.match(value, position)
        if pair is None:
            raise Refusal(MALFORMED, why="not a list of key=value pairs (Envoy)")
        quoted, plain = pair[2], pair[3]
        elements[-1].setdefault(pair[1].lower(), []).append(plain if quoted is None else _unescape(quoted))
        position = pair.end()
        if position == len(value):
            return elements
        if value[position] == ",":
            elements.append({})
            position = _SPACES.match(value, position + 1).end()  # type: ignore[union-attr]  # it always matches
        elif value[position] == ";":
            position += 1
        else:
            raise Refusal(MALFORMED, why="not a list of key=value pairs (Envoy)")
        if len(elements) > MAX_CERTIFICATES:
            raise Refusal(TOO_LARGE, why="too many elements", max_elements=MAX_CERTIFICATES)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text) if "\\" in text else text


def _read_pem(escaped: str) -> Ders:
    """Return the certificates in URL-encoded PEM; only white space is allowed between them (RFC 7468 §2)."""
    if not _ESCAPED.fullmatch(escaped):
        raise Refusal(MALFORMED, why="not URL-encoded")
    pem = unquote_to_bytes(escaped)  # not unquote_plus: base64 uses "+" itself
    blocks = pem.split(_END, MAX_CERTIFICATES + 1)
    if blocks.pop().strip() or not blocks:
        raise Refusal(MALFORMED, why="not only certificates in PEM")
    found = [_PEM.fullmatch(block + _END) for block in blocks]
    return tuple(_base64(_body(one).translate(None, b"\r\n")) for one in found)


def _body(block: re.Match[bytes] | None) -> bytes:
    if block is None:
        raise Refusal(MALFORMED, why="not only certificates in PEM")
    return block[1]


def _only(ders: Ders) -> Ders:
    if len(ders) != 1:
        raise Refusal(MALFORMED, why="more than one certificate", certificates=len(ders))
    return ders


def _base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise Refusal(MALFORMED, why="not base64") from None


_READERS: Final[Mapping[Form, Callable[[Mapping[str, str]], Ders | None]]] = {
    "client_cert": _read_client_cert,
    "xfcc": _read_xfcc,
    "nginx": _read_nginx,
}


def _narrow(network: PeerNetwork) -> PeerNetwork:
    """Refuse the network of all addresses: the secret alone would then prove that a header comes from the proxy."""
    if not isinstance(network, str) and network.prefixlen == 0:
        raise ValueError(f"{network} contains all addresses: write the addresses from which the proxy calls")
    return network


class ProxySettings(Section):
    """A proxy that ends callers' TLS in front of `/token`."""

    networks: Annotated[tuple[Annotated[PeerNetwork, AfterValidator(_narrow)], ...], Field(min_length=1)]
    """The proxy's addresses as the socket's peer; the network of all addresses is refused; `unix` is our socket."""
    secrets: Annotated[tuple[SecretDigest, ...], Field(min_length=1, max_length=2)]
    """`sha256:` and the hex SHA-256 of the proxy's `X-Gateway-Secret` (`sts clients secret` creates both)."""
    certificate_header: Form
    """The form in which it forwards the caller's certificate: `client_cert` (RFC 9440), `xfcc` (Envoy) or `nginx`."""


class Proxies:
    """The configured proxies."""

    def __init__(self, settings: Iterable[ProxySettings]) -> None:
        self._proxies = [(one, live(one)) for one in settings]

    def peer(self, incoming: Incoming) -> Peer:
        """Return the caller with the certificates that count as its own: forwarded ones, if a proxy is in between.

        From a proxy's network with another secret, no certificate counts: a user may have added a second secret header.
        Raises the errors of `handed_on`, and MALFORMED for a certificate header from any other sender.
        """
        secret = incoming.headers.get("x-gateway-secret")
        for proxy, digests in self._proxies if secret else ():
            if within(incoming.peer, proxy.networks) and matches(secret or "", digests):
                forwarded = handed_on(incoming.headers, proxy.certificate_header)
                return replace(incoming.peer, certificates=forwarded or ())
        handed_on(incoming.headers, None)
        if secret and any(within(incoming.peer, proxy.networks) for proxy, _ in self._proxies):
            return replace(incoming.peer, certificates=())
        return incoming.peer
