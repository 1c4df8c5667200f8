"""Signed JWTs in compact serialisation: parse, verify, write."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sts.errors import BAD_ALGORITHM, BAD_SIGNATURE, BAD_TYPE, MALFORMED, TOO_LARGE, Refusal
from sts.jose.jwk import SUPPORTED, VerifyKey, is_kid
from sts.jose.strict import ALPHABET, UnfitError, decode_base64url, encode_base64url, strict_json, write_json

MAX_TOKEN: Final = 16384
"""Default maximum length of a token, in characters."""
MAX_HEADER: Final = 8192
"""Maximum length of the encoded header, in characters; an `x5c` fits, although it is ignored."""

_MAX_NUMBER: Final = 2**53  # all JSON parsers read smaller integers the same way (RFC 7493 §2.2)

_REFUSED: Final = {  # header parameters that change what the token means
    "crit": MALFORMED,  # no extension is supported, so any critical one is refused (RFC 7515 §4.1.11)
    "b64": MALFORMED,  # never with a JWT (RFC 7797 §7)
    "enc": BAD_TYPE,  # belongs to a JWE
    "zip": BAD_TYPE,
}
_NUMBERS: Final = ("exp", "nbf", "iat", "auth_time")
_TEXTS: Final = ("iss", "sub", "jti")
_OBJECTS: Final = ("cnf", "act", "may_act")


@dataclass(frozen=True, slots=True)
class Compact:
    """A JWS whose payload is a claims set, parsed and *not verified*.

    `signing_input` and `signature` are the bytes that `verify` proves; `header` and `claims` were parsed from them
    alone. `kid` is hostile input, and is only compared (RFC 8725 §3.10).
    """

    algorithm: str
    kid: str | None
    header: Mapping[str, Any] = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse(token: str, max_bytes: int = MAX_TOKEN) -> Compact:
    """Parse a compact JWS with a claims set; this does not verify the signature.

    Raises TOO_LARGE; BAD_TYPE for a JWE or a nested token; BAD_ALGORITHM for an `alg` outside SUPPORTED; BAD_SIGNATURE
    for an empty signature; MALFORMED for any other text that is not one well-typed JWT (RFC 7519 §7.2, RFC 8725 §3).
    """
    if len(token) > max_bytes:
        raise Refusal(TOO_LARGE, why="the token is too long", limit=max_bytes)
    try:
        raw = token.encode("ascii")
    except UnicodeEncodeError:
        raise Refusal(MALFORMED, why="the token is not ASCII") from None
    dots = raw.translate(None, ALPHABET)
    if dots == b"....":
        raise Refusal(BAD_TYPE, why="it is a JWE")
    if dots != b"..":
        raise Refusal(MALFORMED, why="it is not three parts of base64url")
    signing_input, _, signature = raw.rpartition(b".")
    head, _, payload = signing_input.partition(b".")
    if len(head) > MAX_HEADER:
        raise Refusal(TOO_LARGE, why="the token's header is too long", limit=MAX_HEADER)
    header = _read_object(head, "header")
    algorithm = _check_header(header)
    if not signature:
        raise Refusal(BAD_SIGNATURE, why="the signature is empty")
    claims = _read_object(payload, "claims")
    check_claims(claims)
    return Compact(algorithm, header.get("kid"), header, claims, signing_input, _decode(signature, "signature"))


def verify(token: Compact, keys: Sequence[VerifyKey]) -> VerifyKey:
    """Prove that one of `keys` signed the token, and return that key.

    This does not prove whose keys they are, nor that the token is meant for us and not expired. Raises BAD_ALGORITHM if
    no key may verify the token's `alg`, BAD_SIGNATURE if no key verifies the signature.
    """
    fitting = [key for key in keys if token.algorithm in key.algorithms]
    if not fitting:
        raise Refusal(BAD_ALGORITHM, why="no key may verify this algorithm", alg=token.algorithm, kid=token.kid)
    for key in fitting:
        try:
            proven = key.proves(token.algorithm, token.signing_input, token.signature)
        except Exception as error:  # noqa: BLE001 - hostile input raises more than joserfc's own errors (LIB-J08)
            fault = type(error).__name__
            raise Refusal(BAD_SIGNATURE, why="the signature cannot be read", fault=fault, kid=token.kid) from None
        if proven:
            return key
    raise Refusal(BAD_SIGNATURE, why="the signature is wrong", keys_tried=len(fitting), kid=token.kid)


def compact(header: Mapping[str, Any], claims: Mapping[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """Write a compact JWS: `sign` takes the signing input and returns the raw signature (RFC 7515 §7.1).

    Raises ValueError for NaN and infinity, TypeError for values that are not JSON, and all errors of `sign`.
    """
    signing_input = encode_base64url(write_json(header)) + b"." + encode_base64url(write_json(claims))
    return (signing_input + b"." + encode_base64url(sign(signing_input))).decode("ascii")


def looks_signed(text: str) -> bool:
    """Return whether a text looks like a compact JWS: three parts, the first with a JSON object.

    This accepts more than `parse`, so that a malformed JWS is refused and not taken for an opaque token.
    """
    head, _, rest = text.partition(".")
    if rest.count(".") != 1:
        return False
    whole = head[:-1] if len(head) % 4 == 1 else head
    try:
        return urlsafe_b64decode(whole + "==").lstrip().startswith(b"{")
    except ValueError:
        return False


def media_type(value: str) -> str:
    """Normalise a `typ` or `cty`: lower case, without the optional `application/` (RFC 7515 §4.1.9)."""
    return value.lower().removeprefix("application/")


def text_or_texts(value: object, name: str) -> tuple[str, ...]:
    """Return a claim that is a text or a list of texts, such as `aud` (RFC 7519 §4.1.3). Raises MALFORMED."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(member, str) for member in value):
        return tuple(value)
    raise Refusal(MALFORMED, why="a claim is neither a text nor a list of texts", claim=name)


def _decode(part: bytes, name: str) -> bytes:
    try:
        return decode_base64url(part)
    except UnfitError as error:
        raise Refusal(MALFORMED, why=str(error), part=name) from None


def _read_object(part: bytes, name: str) -> dict[str, Any]:
    try:
        value = strict_json(decode_base64url(part))
    except UnfitError as error:
        raise Refusal(MALFORMED, why=str(error), part=name) from None
    if not isinstance(value, dict):
        raise Refusal(MALFORMED, why="it is not an object", part=name)
    return value


def _check_header(header: dict[str, Any]) -> str:
    """Refuse parameters that change meaning; ignore others, even `jku x5u jwk x5c` (RFC 8725 §3.10, RFC 7515 §4)."""
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise Refusal(MALFORMED, why="alg is not a text")
    if algorithm not in SUPPORTED:
        raise Refusal(BAD_ALGORITHM, why="alg is not supported")
    for name, reason in _REFUSED.items():
        if name in header:
            raise Refusal(reason, why="a header parameter is not accepted", parameter=name)
    if "kid" in header and not is_kid(header["kid"]):
        raise Refusal(MALFORMED, why="kid is not a short printable text")
    for name in ("typ", "cty"):
        if name in header and not isinstance(header[name], str):
            raise Refusal(MALFORMED, why="a header parameter is not a text", parameter=name)
    if media_type(header.get("cty", "")) == "jwt":
        raise Refusal(BAD_TYPE, why="it is a nested token")
    return algorithm


def check_claims(claims: Mapping[str, Any]) -> None:
    """Check the types of the registered claims that are present; the source decides which are required.

    Raises MALFORMED.
    """
    for name in _NUMBERS:  # a bool is an int in Python, but not a NumericDate (RFC 7519 §2)
        if name in claims and not (type(claims[name]) in (int, float) and abs(claims[name]) <= _MAX_NUMBER):
            raise Refusal(MALFORMED, why="a claim is not a number of seconds", claim=name)
    for name in _TEXTS:
        if name in claims and not isinstance(claims[name], str):
            raise Refusal(MALFORMED, why="a claim is not a text", claim=name)
    for name in _OBJECTS:
        if name in claims and not isinstance(claims[name], dict):
            raise Refusal(MALFORMED, why="a claim is not an object", claim=name)
    if "aud" in claims:
        text_or_texts(claims["aud"], "aud")
