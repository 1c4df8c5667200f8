"""The second line of defence against secrets in a log: texts that look like a secret are masked.

The first line is that no caller logs a secret: facts are names, hashes and key ids. Masking does not prove that the
rest is harmless: a short opaque token without a prefix, or a password, looks like any other word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

MASK: Final = "***"
_LONGEST: Final = 2000
_DEEPEST: Final = 4
_WIDEST: Final = 100

_PRIVATE = r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
_HEADER = (
    r"\b((?:(?:proxy-)?authorization|(?:set-)?cookie|x-[a-z0-9-]{0,40}(?:secret|token|key)[a-z0-9-]{0,40})"
    r"['\"]?\s*[:=,]\s*)\S[^\r\n]*"
)
_SCHEME = r"\b((?:bearer|basic|dpop)\s+)[A-Za-z0-9._~+/=-]{8,}"
_PARAMETER = r"\b([a-z0-9_]{0,40}(?:secret|password|passphrase|token|assertion)=)[^\s&\"']+"
# base64url of the start of a JSON object (`{"`, `{ ` or `{` and a line break), then the other parts of a JWS or JWE
_JOSE = r"(?-i:(?<![A-Za-z0-9])()e[wy][A-Za-z0-9_-]{16,}\.[A-Za-z0-9_.-]*)"
_QUERY = r"(\?)(?![;,.:!)`](?:\s|$))[^\s\"'?]+"  # not a question mark at the end of a sentence
# A pattern is tried only if the text contains one of its words: most texts do not, and each refusal needs this check.
_RULES: Final = tuple(
    (words, re.compile(pattern, re.IGNORECASE | re.DOTALL))
    for words, pattern in (
        (("private key",), f"(){_PRIVATE}"),
        (("authorization", "cookie", "secret", "token", "key"), _HEADER),
        (("bearer", "basic", "dpop"), _SCHEME),
        (("=",), _PARAMETER),
        (("ey", "ew"), _JOSE),
        (("?",), _QUERY),
    )
)
# One of our API keys, an opaque token, or a signature without its token. Not a kid (43 characters), a hash (lower case)
# or a usual name. Matches only at the start of a run, so that the search is linear.
_RUN = "[A-Za-z0-9_-]"
_LONG: Final = 50
_LONG_RUN: Final = re.compile(rf"(?<!{_RUN})(?={_RUN}*[0-9])(?={_RUN}*[A-Z])(?={_RUN}*[a-z]){_RUN}{{{_LONG},}}")
_prefixes: set[str] = set()
_REST = r"[^\s,;&\"']{8,}"
_TELLING: Final = re.compile(r"(?=.*[^A-Za-z]).{3,}")  # not a plain word, and at least three characters
_prefixed: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = []
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SECRET_NAME: Final = re.compile(
    r"secret|password|passphrase|authorization|cookie|private"
    r"|(?:^|[_-])(?:tokens?|assertions?|credentials?|jwts?|api_?keys?)$",
    re.IGNORECASE,
)


def know_prefixes(prefixes: Iterable[str]) -> None:
    """Mask texts that begin with a prefix of the configuration's credentials, of this or an earlier configuration.

    If a prefix may also begin a name or path (`o`, `tok`, `/`), a text is masked only if it contains a digit.
    """
    _prefixes.update(prefixes)
    telling = {prefix for prefix in _prefixes if _TELLING.fullmatch(prefix)}
    found = ((telling, _keep_prefix), (_prefixes - telling, _keep_name))
    _prefixed[:] = [(_beginning(words), replace) for words, replace in found if words]


def _beginning(prefixes: Iterable[str]) -> re.Pattern[str]:
    words = "|".join(map(re.escape, sorted(prefixes, key=len, reverse=True)))
    return re.compile(rf"(?<![A-Za-z0-9])({words}){_REST}")


def _keep_prefix(found: re.Match[str]) -> str:
    return f"{found[1]}{MASK}"


def _keep_name(found: re.Match[str]) -> str:
    named = not any(map(str.isdigit, found[0].removeprefix(found[1])))
    return found[0] if named else _keep_prefix(found)


def mask(text: str) -> str:
    """Mask credentials, secret headers and parameters, queries and private keys; return one line of limited length."""
    text = text[: 4 * _LONGEST]
    lower = text.lower()
    for words, pattern in _RULES:
        for word in words:
            if word in lower:
                text = pattern.sub(rf"\1{MASK}", text)
                break
    for prefixed, replace in _prefixed:
        text = prefixed.sub(replace, text)
    if len(text) >= _LONG:
        text = _LONG_RUN.sub(MASK, text)
    if not text.isprintable():
        text = _CONTROL.sub(" ", text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def masked(value: object, name: str = "", depth: int = 0) -> object:
    """Return a value as it may be logged under `name`: plain data, masked; for other objects only the type's name.

    An object's own text is never used: a `repr` can contain a claim or a key.
    """
    if isinstance(value, bool | int | float) or value is None:
        return value
    if _SECRET_NAME.search(name):
        return MASK
    if isinstance(value, str):
        return mask(value)
    if depth < _DEEPEST and isinstance(value, Mapping):
        pairs = list(value.items())[:_WIDEST]
        return {mask(str(key)): masked(item, str(key), depth + 1) for key, item in pairs if isinstance(key, str | int)}
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [masked(item, name, depth + 1) for item in list(value)[:_WIDEST]]
    return f"<{type(value).__name__}>"
