"""A credential as the commands take it, and as the doors do."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sts.cli import common
from sts.credentials.certificate import encode_chain
from sts.model import TYPE_API_KEY, TYPE_CLIENT_CERTIFICATE, TYPE_PREFIX

_OURS: Final = {urn.rpartition(":")[2]: urn for urn in (TYPE_API_KEY, TYPE_CLIENT_CERTIFICATE)}


def urn(token_type: str) -> str:
    """A token type as it is declared; its last part is enough."""
    return token_type if token_type.startswith("urn:") else _OURS.get(token_type, TYPE_PREFIX + token_type)


def as_sent(token_type: str, text: str) -> str:
    """The text of a credential of this type (a URN): certificates in PEM, leaf first, become base64url DER."""
    if token_type != TYPE_CLIENT_CERTIFICATE or "-----BEGIN" not in text:
        return text
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        common.fail("the file holds no certificate in PEM", common.EXIT_USAGE)
    return encode_chain(one.public_bytes(Encoding.DER) for one in chain)
