"""What cel-expr-python makes of an expression: the independent judge of our own evaluation."""

import re
from functools import lru_cache

from sts.expressions.scope import environment

NONES = [None] * 1_000_000
"""The library drops a reference of None for each null that it returns (before Python 3.12 the process then ends)."""

CLASSES = (
    (re.compile(r"NOT_FOUND:"), "absent"),
    (re.compile(r"OUT_OF_RANGE:"), "overflow"),
    (re.compile(r"INTERNAL: Iteration budget exceeded"), "budget"),
    (re.compile(r"UNKNOWN: No value with name"), "absent variable"),
    (
        re.compile(r"UNKNOWN: (No matching overloads|Index error: expected)|INVALID_ARGUMENT: Applying SELECT"),
        "type mismatch",
    ),
)


class Failed(Exception):  # noqa: N818 - what it carries is the outcome
    """The library reports an error of this class."""


@lru_cache(maxsize=4096)
def compiled(text, variables):
    """The library's program, and one that unwraps an optional; None where it does not compile."""
    env = environment(variables)
    try:
        program = env.compile(text)
    except (RuntimeError, TypeError):
        return None
    kind = program.return_type().name()
    may_be_optional = kind == "DYN" or kind.startswith("optional_type")
    return env, program, env.compile(f"dyn({text}\n).orValue(null)") if may_be_optional else None


def outcome(text, data):
    """("value", it) with the type of each scalar, or ("fault", its class); "absent" is a class too."""
    env, program, unwrapped = compiled(text, frozenset(data))
    activation = env.Activation(data)
    try:
        try:
            return "value", plain(program.eval(activation))
        except TypeError:  # an optional, which the library has no Python value for
            if unwrapped is None:
                raise
            return "value", plain(unwrapped.eval(activation))
    except Failed as failed:
        return "fault", failed.args[0]
    except TypeError:
        return "fault", "type mismatch"
    except RuntimeError as error:
        return "fault", fault(str(error))


def plain(found):
    """A value of the library as comparable Python."""
    kind = found.type().name()
    if kind == "NULL":
        return None
    if kind in {"BOOL", "INT", "UINT", "STRING", "DOUBLE"}:
        value = found.value()
        if kind == "STRING" and "\0" in value:
            raise Failed("unsafe text")
        return repr(value)
    if kind.startswith("LIST"):
        return [plain(element) for element in found.value()]
    if kind.startswith("MAP"):
        return sorted((repr(key), repr(plain(member))) for key, member in found.value().items())
    if kind == "ERROR":
        raise Failed(fault(found.value()))
    raise Failed("type mismatch")


def comparable(found):
    """A value of ours in the same form."""
    if found is None:
        return None
    if isinstance(found, list):
        return [comparable(element) for element in found]
    if isinstance(found, dict):
        return sorted((repr(key), repr(comparable(member))) for key, member in found.items())
    return repr(found)


def fault(message):
    """The class of a failure, by the beginning of the library's message."""
    return next((name for pattern, name in CLASSES if pattern.match(message)), "other")
