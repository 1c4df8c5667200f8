"""Maps a proven credential to an identity: one CEL program per attribute, never a text template."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sts.errors import NO_MAPPING, REQUIREMENT_FAILED, Refusal
from sts.expressions import ABSENT, EvaluationError, as_attribute, as_scopes, as_subject, bind
from sts.expressions.words import TYPE_MISMATCH
from sts.lookups.rows import Rows
from sts.model import Admitted, Identity
from sts.policy.rules import SourceRules


def identify(admitted: Admitted, rules: SourceRules, rows: Rows) -> Identity:
    """Map a principal to its identity, with the rows fetched so far: see `Rows.given`.

    Raises REQUIREMENT_FAILED unless the source's `require` is true. Raises NO_MAPPING, with the attribute's name, if an
    attribute cannot be evaluated or has the wrong type. An absent key gives an absent attribute.
    """
    try:
        scope = bind({rules.variable: admitted.principal.attributes}, rows)
    except EvaluationError as error:
        raise Refusal(NO_MAPPING, why=str(error)) from None
    if rules.require is not None:
        try:
            holds = rules.require.holds(scope)
        except EvaluationError as error:
            raise Refusal(REQUIREMENT_FAILED, why=str(error)) from None
        if not holds:
            raise Refusal(REQUIREMENT_FAILED, why="`require` is not true")
    attributes: dict[str, Any] = {}
    for name, rule in rules.identity:
        try:
            value = rule.value(scope)
            if value is not ABSENT:
                attributes[name] = reader_of(name)(value)
        except EvaluationError as error:
            raise Refusal(NO_MAPPING, attribute=name, why=str(error)) from None
    if "subject" not in attributes:
        raise Refusal(NO_MAPPING, attribute="subject", why="absent")
    subject = attributes["subject"] = minted_subject(attributes["subject"], rules.namespace)
    scopes = attributes["scopes"] = attributes.get("scopes", ())
    return Identity(subject=subject, scopes=scopes, attributes=attributes)


def minted_subject(subject: str, namespace: str | None) -> str:
    """Return the `sub` of a minted token, `<namespace>|<subject>`: subjects of two sources cannot be equal.

    `|` is not allowed in a namespace. In a subject it is written `%7C`, and `%` is written `%25`, so that no subject of
    a source with the namespace "" can look like one of another namespace. None (a single source) leaves the subject
    unchanged.
    """
    if namespace is None:
        return subject
    escaped = subject.replace("%", "%25").replace("|", "%7C")
    return f"{namespace}|{escaped}" if namespace else escaped


def _as_roles(value: object) -> tuple[str, ...]:
    """Return roles as a list of strings; a text is one role."""
    roles = as_attribute([value] if isinstance(value, str) else value)
    if not isinstance(roles, tuple):
        raise EvaluationError(TYPE_MISMATCH)
    return roles


def reader_of(attribute: str) -> Callable[[Any], Any]:
    """Return the function that reads an attribute's value. It raises EvaluationError for a value of the wrong type."""
    return _READERS.get(attribute, as_attribute)


_READERS: Final[dict[str, Callable[[Any], Any]]] = {"subject": as_subject, "scopes": as_scopes, "roles": _as_roles}
