"""Read a private key to import, PEM or JWK, and verify that it may enter the ring."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwk
from joserfc.errors import SecurityWarning

from keys.algorithms import ALGORITHMS
from keys.errors import KeyUnfit
from keys.signer import Pair, pair_of

MAX_BYTES: Final = 65536

_OLD_NAME: Final = "EdDSA"
"""The `alg` that most libraries still write for Ed25519 (RFC 9864 §2.2)."""


def read_private_key(text: bytes, algorithm: str | None, preferred: str) -> Pair:
    """Read one unencrypted private key: PEM (PKCS #8, PKCS #1, SEC 1) or JWK.

    The `kid` is always the RFC 7638 thumbprint; the `kid` of a JWK is ignored. The numbers of an RSA key are verified
    to belong together. No message shows the key.

    Args:
        text: The content of the file.
        algorithm: The JWS algorithm. None: the `alg` of the JWK, else `preferred` if the key fits it, else the only
            algorithm that the key fits.
        preferred: The algorithm to prefer if the key fits several.

    Raises:
        KeyUnfit: The key cannot be read, or does not fit.
        SelfTestFailed: The key does not sign correctly.
    """
    if len(text) > MAX_BYTES:
        raise KeyUnfit(f"a private key has fewer than {MAX_BYTES} bytes")
    if text.lstrip().startswith(b"{"):
        key, named = _from_jwk(text)
    else:
        key, named = _from_pem(text), None
    if algorithm is not None and named is not None and named != algorithm:
        raise KeyUnfit(f"the JWK is for another algorithm than {algorithm}")
    return pair_of(key, algorithm or named or _fitting(key, preferred))


def _from_pem(text: bytes) -> object:
    try:
        return load_pem_private_key(text, password=None)
    except TypeError:
        raise KeyUnfit("the private key is encrypted: decrypt it first, such as with `openssl pkey`") from None
    except Exception:  # noqa: BLE001 - the library's message may show the key
        raise KeyUnfit("this is neither a PEM private key nor a JWK that can be read") from None


def _from_jwk(text: bytes) -> tuple[object, str | None]:
    try:
        written: Mapping[str, Any] = json.loads(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # a short RSA key is refused later, with a clear message
            key = jwk.import_key(dict(written)).private_key
    except Exception:  # noqa: BLE001 - joserfc raises many types here, and its message may show the key
        raise KeyUnfit("this is no JWK of a private key that can be read") from None
    if key is None:
        raise KeyUnfit("the JWK has no private half")
    operations = written.get("key_ops", ["sign"])
    if written.get("use", "sig") != "sig" or not isinstance(operations, list) or "sign" not in operations:
        raise KeyUnfit("the JWK is not for signing: its `use` or `key_ops` says so (RFC 7517 §4.2)")
    named = written.get("alg")
    if named == _OLD_NAME and isinstance(key, Ed25519PrivateKey):
        named = "Ed25519"
    if named is not None and named not in tuple(ALGORITHMS):
        raise KeyUnfit(f"the JWK's `alg` is none of {', '.join(ALGORITHMS)}")
    return key, named


def _fitting(key: object, preferred: str) -> str:
    fitting = [name for name, how in ALGORITHMS.items() if not how.unfit(key)]
    if preferred in fitting:
        return preferred
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise KeyUnfit(f"the key fits {' and '.join(fitting)}: say which with --algorithm")
    why = ALGORITHMS["RS256" if isinstance(key, RSAPrivateKey) else preferred].unfit(key)
    raise KeyUnfit(f"the key fits none of {', '.join(ALGORITHMS)}: {why}")
