"""From the checked tree of an expression to a closure of Python that evaluates it.

One closure for each node, which takes the `Frame` of an evaluation and gives a value of CEL or raises a CelError. What
costs more than its node (a list that is walked, a text that is split) is charged to the frame before it is done; what
the nodes themselves cost is charged once, by whoever runs the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sts.expressions.library import OVERLOADS
from sts.expressions.operators import OPERATORS, Run, exactly_one, gather, of_optional, until
from sts.expressions.patterns import matcher
from sts.expressions.tree import Call, Const, ListOf, Loop, MapOf, Name, Node, Select, children
from sts.expressions.values import (
    NONE,
    NOTHING,
    TYPES,
    Frame,
    Optional,
    is_key,
    key_of,
    kind,
    member,
)
from sts.expressions.words import (
    OTHER,
    AbsentVariableError,
    EvaluationError,
    ExpressionError,
    FailedError,
    MismatchError,
)

_WEIGHTS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("timestamp", "duration"), 60),
    "ip_in": 35,
    **dict.fromkeys(("lookup", "matches"), 20),
    **dict.fromkeys(("string", "double", "base64.encode", "base64.decode"), 6),
}
"""Steps of a call that costs more than others, so that a step is about a tenth of a microsecond."""
_WEIGHT_OF_TIME: Final = 20
"""Steps of a question such as `getHours`, which knows about time zones."""
_WEIGHT_OF_CALL: Final = 3
_NO_MACRO: Final = "it holds a macro that is not supported here"


def weigh(node: Node) -> int:
    """The steps that a node and those below it take when they are evaluated once, whatever the data."""
    own = 1
    if isinstance(node, Call) and node.function not in OPERATORS:
        own = _WEIGHTS.get(node.function, _WEIGHT_OF_TIME if node.function.startswith("get") else _WEIGHT_OF_CALL)
    return own + sum(map(weigh, children(node)))


class Maker:
    """Makes the closures of one expression over `variables`; `loops` is how many loop variables it has."""

    def __init__(self, variables: frozenset[str]) -> None:
        self.loops = 0
        self._variables = variables
        self._inner: dict[str, int] = {}

    def make(self, node: Node) -> Run:
        """The closure of a node. Raises ExpressionError for what is not supported."""
        makers: dict[type, Callable[[Any], Run]] = {
            Const: self._const,
            Name: self._name,
            Select: self._select,
            Call: self._call,
            ListOf: self._list,
            MapOf: self._map,
            Loop: self._loop,
        }
        return makers[type(node)](node)

    def _const(self, node: Const) -> Run:
        return _constant(node.value)

    def _name(self, node: Name) -> Run:
        name = node.name
        if name in self._inner:
            place = self._inner[name]
            return lambda frame: frame.loops[place]
        if name in self._variables:
            return _variable(name)
        if name in TYPES:
            return _constant(TYPES[name])
        raise ExpressionError(f"`{name}` is not supported here")

    def _select(self, node: Select) -> Run:
        operand, name = self.make(node.operand), node.member
        if node.test:
            return lambda frame: _has(operand(frame), name)

        def run(frame: Frame) -> Any:  # noqa: ANN401 - any value of CEL
            held = operand(frame)
            if type(held) is dict and name in held:
                return held[name]
            return member(held, name)

        return run

    def _list(self, node: ListOf) -> Run:
        if not node.optional and all(isinstance(one, Const) for one in node.elements):
            return _constant([one.value for one in node.elements if isinstance(one, Const)])
        elements = tuple(map(self.make, node.elements))
        if not node.optional:
            return lambda frame: [element(frame) for element in elements]
        marked = tuple((element, place in node.optional) for place, element in enumerate(elements))

        def run(frame: Frame) -> list[Any]:
            found = []
            for element, optional in marked:
                value = element(frame)
                if not optional:
                    found.append(value)
                elif of_optional(value) is not NOTHING:
                    found.append(value.value)
            return found

        return run

    def _map(self, node: MapOf) -> Run:
        entries = tuple((self.make(key), self.make(value), optional) for key, value, optional in node.entries)

        def run(frame: Frame) -> dict[Any, Any]:
            made: dict[Any, Any] = {}
            pairs = [(key(frame), value(frame), optional) for key, value, optional in entries]
            for key, value, optional in pairs:
                if type(key) is float or not is_key(key):
                    raise FailedError
                kept = of_optional(value) if optional else value
                if kept is not NOTHING:
                    place = key_of(key)
                    if place in made:
                        raise EvaluationError(OTHER)
                    made[place] = kept
            return made

        if all(isinstance(one, Const) for entry in node.entries for one in entry[:2]):
            try:
                return _constant(run(Frame({}, None, 0, 0)))
            except EvaluationError:
                raise ExpressionError("a map has a key twice, or one that cannot be a key") from None
        return run

    # --- calls --------------------------------------------------------------------------------------------------------

    def _call(self, node: Call) -> Run:
        name = node.function
        if name == "matches":
            return self._matches(node)
        arguments = tuple(map(self.make, node.arguments))
        if name in OPERATORS:
            return OPERATORS[name](*arguments)
        if name not in OVERLOADS:
            raise ExpressionError(f"`{name}` is not supported here")
        return _overloaded(name, arguments)

    def _matches(self, node: Call) -> Run:
        text, pattern = node.arguments
        if not isinstance(pattern, Const) or not isinstance(pattern.value, str):
            raise ExpressionError("the pattern of `matches` must stand there as a text, so that it can be checked")
        at, find = self.make(text), matcher(pattern.value)
        return lambda frame: find(frame, at(frame))

    # --- macros -------------------------------------------------------------------------------------------------------

    def _loop(self, node: Loop) -> Run:
        if node.over == ListOf((), frozenset()) and node.condition == Const(value=False):
            return self._binding(node)
        over, place = self.make(node.over), self._place()
        outside = dict(self._inner)
        self._inner[node.variable] = place
        made = self._macro(node, over, place)
        self._inner = outside
        return made

    def _macro(self, node: Loop, over: Run, place: int) -> Run:
        step, keep = node.step, None
        if isinstance(step, Call) and step.function == "_?_:_":
            keep, step = step.arguments[0], step.arguments[1]
        if not isinstance(step, Call) or step.arguments[0] != Name(node.result_name):
            raise ExpressionError(_NO_MACRO)
        added = step.arguments[1]
        if step.function in {"_&&_", "_||_"}:
            return until(over, place, self.make(added), 1 + weigh(added), stop=step.function == "_||_")
        if step.function != "_+_":
            raise ExpressionError(_NO_MACRO)
        kept = None if keep is None else self.make(keep)
        weight = 1 + (0 if keep is None else weigh(keep))
        if not isinstance(added, ListOf):
            return exactly_one(over, place, kept or _constant(value=True), weight)
        (body,) = added.elements
        return gather(over, place, kept, self.make(body), weight + weigh(body))

    def _binding(self, node: Loop) -> Run:
        """What `optMap` makes of its loop: one value with a name."""
        start, place = self.make(node.start), self._place()
        outside = dict(self._inner)
        self._inner[node.result_name] = place
        result = self.make(node.result)
        self._inner = outside

        def run(frame: Frame) -> Any:  # noqa: ANN401 - any value of CEL
            frame.loops[place] = start(frame)
            return result(frame)

        return run

    def _place(self) -> int:
        self.loops += 1
        return self.loops - 1


def _constant(value: Any) -> Run:  # noqa: ANN401 - any value of CEL
    return lambda _: value


def _variable(name: str) -> Run:
    def run(frame: Frame) -> Any:  # noqa: ANN401 - any value of CEL
        try:
            return frame.values[name]
        except KeyError:
            raise AbsentVariableError from None

    return run


def _has(held: Any, name: str) -> bool:  # noqa: ANN401 - any value of CEL
    if type(held) is dict:
        return name in held
    if type(held) is Optional:
        return member(held, name) is not NONE
    raise MismatchError


def _overloaded(name: str, arguments: tuple[Run, ...]) -> Run:
    """A call of a function by the types of its arguments."""
    overloads = OVERLOADS[name]
    if len(arguments) == 1:
        (only,) = arguments

        def run_one(frame: Frame) -> Any:  # noqa: ANN401 - any value of CEL
            value = only(frame)
            function = overloads.get((kind(value),))
            if function is None:
                raise MismatchError
            return function(frame, value)

        return run_one

    if len(arguments) == 2:
        first, second = arguments

        def run_two(frame: Frame) -> Any:  # noqa: ANN401 - any value of CEL
            one, other = first(frame), second(frame)
            types = (type(one), type(other))
            function = overloads.get((kind(one), kind(other)) if int in types else types)
            if function is None:
                raise MismatchError
            return function(frame, one, other)

        return run_two

    def run(frame: Frame) -> Any:  # noqa: ANN401 - any value of CEL
        values = [argument(frame) for argument in arguments]
        function = overloads.get(tuple(map(kind, values)))
        if function is None:
            raise MismatchError
        return function(frame, *values)

    return run
