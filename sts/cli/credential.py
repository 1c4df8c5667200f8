"""Convert a credential from the command line to the form that the endpoints accept."""

from __future__ import annotations

import hashlib
import ssl
from base64 import b64encode
from typing import Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sts.cli import common
from sts.credentials.certificate import decode_chain, encode_chain
from sts.credentials.registry import KINDS
from sts.edge.certificate_headers import CLIENT_CERT, CLIENT_CERT_CHAIN, NGINX_CERT, NGINX_VERIFY, XFCC, Form
from sts.errors import Refusal
from sts.model import TYPE_CLIENT_CERTIFICATE, TYPE_PREFIX
from sts.settings import Settings

_NO_CERTIFICATE: Final = "the file contains no PEM certificate"


def urn(token_type: str) -> str:
    """Return the URN of a token type, of which the last part is sufficient."""
    known = {urn.rpartition(":")[2]: urn for kind in KINDS.values() for urn in kind.credential_types}
    return token_type if token_type.startswith("urn:") else known.get(token_type, TYPE_PREFIX + token_type)


def certificates(text: str) -> tuple[bytes, ...]:
    """Return the certificates of a PEM text as DER. Ends the command if there is none."""
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        common.fail(_NO_CERTIFICATE, common.EXIT_USAGE)
    return tuple(one.public_bytes(Encoding.DER) for one in chain)


def as_sent(token_type: str, text: str) -> str:
    """Return the text of a credential of this type (a URN); PEM certificates, leaf first, become base64url DER."""
    if token_type != TYPE_CLIENT_CERTIFICATE or "-----BEGIN" not in text:
        return text
    return encode_chain(certificates(text))


def as_header(settings: Settings, client: str, token_type: str, text: str) -> dict[str, str]:
    """Return the headers in which the gateway `client` forwards a user's credential at forward-auth, in lower case."""
    if not token_type.startswith(TYPE_PREFIX) and token_type != TYPE_CLIENT_CERTIFICATE:
        known = [(one.credential_prefix() or "", one.credential_header()) for one in settings.sources.values()]
        ours = [(prefix, header[0]) for prefix, header in known if header is not None and header[1] == token_type]
        fitting = [header for prefix, header in ours if text.startswith(prefix)] or [header for _, header in ours]
        return {header.lower(): text for header in fitting[:1]}
    if token_type != TYPE_CLIENT_CERTIFICATE:
        return {"authorization": f"Bearer {text}"}
    try:
        chain = decode_chain(as_sent(token_type, text))
    except Refusal:
        common.fail(_NO_CERTIFICATE, common.EXIT_USAGE)
    return _handed_on(chain, settings.clients[client].certificate_header or "client_cert")


def _handed_on(chain: tuple[bytes, ...], form: Form) -> dict[str, str]:
    """Return a chain of DER certificates as a gateway's headers; nginx forwards only the leaf."""
    leaf, *above = chain
    pem = [quote(ssl.DER_cert_to_PEM_cert(one), safe="") for one in chain]
    if form == "nginx":
        return {NGINX_CERT: pem[0], NGINX_VERIFY: "SUCCESS"}
    if form == "xfcc":
        return {XFCC: f'Hash={hashlib.sha256(leaf).hexdigest()};Cert="{pem[0]}";Chain="{"".join(pem)}"'}
    rest = {CLIENT_CERT_CHAIN: ", ".join(map(_byte_sequence, above))} if above else {}
    return {CLIENT_CERT: _byte_sequence(leaf), **rest}


def _byte_sequence(der: bytes) -> str:
    return f":{b64encode(der).decode()}:"
