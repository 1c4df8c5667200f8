"""The only module that uses joserfc: it parses a signed JWT strictly, once, and verifies exactly the parsed bytes.

joserfc's own `deserialize_compact` is not used: it parses the header a second time, keeps the last of two members with
one name, accepts UTF-16 and `b64`, raises exceptions other than its own, and costs about twice the verification itself
(RS256: 75 µs instead of 37 µs). So this package parses the text once, by rules that allow only one reading (RFC 8725
§3.7, RFC 7515 §4 and §10.12), and joserfc's algorithm objects verify exactly those bytes.

This package does not decide which issuer's key may prove which token: `sts.trust` and `sts.credentials.jwt` do.
"""

from sts.jose.jwe import (
    ContentEncryption,
    Curve,
    EncryptKey,
    EncryptKeys,
    KeyManagement,
    encrypt,
    import_encryption_jwk,
    import_encryption_jwks,
    make_pair,
)
from sts.jose.jwk import SUPPORTED, Algorithm, KeySet, VerifyKey, import_jwk, import_jwks, thumbprint
from sts.jose.jws import (
    MAX_TOKEN,
    Compact,
    check_claims,
    compact,
    looks_signed,
    media_type,
    parse,
    text_or_texts,
    verify,
)
from sts.jose.strict import UnfitError, strict_json

__all__ = [
    "MAX_TOKEN",
    "SUPPORTED",
    "Algorithm",
    "Compact",
    "ContentEncryption",
    "Curve",
    "EncryptKey",
    "EncryptKeys",
    "KeyManagement",
    "KeySet",
    "UnfitError",
    "VerifyKey",
    "check_claims",
    "compact",
    "encrypt",
    "import_encryption_jwk",
    "import_encryption_jwks",
    "import_jwk",
    "import_jwks",
    "looks_signed",
    "make_pair",
    "media_type",
    "parse",
    "strict_json",
    "text_or_texts",
    "thumbprint",
    "verify",
]
