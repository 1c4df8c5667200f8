"""The one seam to joserfc: read a signed JWT strictly, once, and verify exactly what was read.

joserfc's own `deserialize_compact` is not used: it reads the header by itself again, takes the last of two equal member
names, accepts UTF-16 and `b64`, leaks other exceptions than its own, and costs about twice the verification itself
(RS256: 75 µs instead of 37 µs). So the text is parsed here, once, by rules that leave one reading only (RFC 8725 §3.7,
RFC 7515 §4 and §10.12), and joserfc's algorithm objects verify the very bytes that were parsed.

Nothing here knows an issuer: which key may prove which token is decided in `sts.trust` and `sts.credentials.jwt`.
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
