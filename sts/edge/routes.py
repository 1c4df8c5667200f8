"""The audience of each request: the `routes` section, the only path normaliser, and the match.

A route is found by host, path and method alone. If two readers could take a path for two different ones, the request is
refused: the gateway routes by its own reading, and a policy that reads another path does not protect the backend
(CVE-2026-42274, CVE-2021-29492 and similar ones).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Final, Self
from urllib.parse import unquote_to_bytes

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from sts.errors import AMBIGUOUS_PATH, NO_ROUTE, Refusal
from sts.model import RequestFacts
from sts.options import Name, Rule, ScopeToken, Section

ONE: Final = "*"
REST: Final = "**"

# RFC 3986 §3.3, without ";" (parameters, which some backends remove before they route) and with "%", checked below.
_PATH: Final = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,=:@%/]*")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~")
_TWO_READINGS: Final = frozenset(b"./\\%;?#\x7f") | frozenset(range(0x20))
_LOOSE_END: Final = re.compile(r"(?:\.|%20)(?:/|\Z)")
"""The end of a segment that some file systems and frameworks remove: to them `/admin.` and `/admin%20` are `/admin`."""
HOST: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*|\[[0-9a-f:.]{2,45}\]"
)
"""A host as written in routes: lower-case name, IPv4 address or `[IPv6]`, without port and final dot."""


def normalise(target: str) -> str:
    """Return the path of a raw request target (RFC 9112 §3.2.1) in the form on which all readers agree.

    The query is removed, escaped unreserved characters are unescaped, other escapes get upper-case digits. Raises
    AMBIGUOUS_PATH for each path that two readers can take for two paths: `%2e %2f %5c %25 %3b %3f %23`, escaped
    control characters, escapes that are not UTF-8, a lone `%`, backslash, `;`, `//`, dot segments, a dot or a space at
    the end of a segment, anything outside RFC 3986, every form but the origin form. To normalise the result again does
    not change it. It does not prove that a backend reads the path in this way: a backend that also ignores case, or
    folds Unicode, takes more paths for the same one.
    """
    path = target.partition("?")[0]
    if not _PATH.fullmatch(path):
        raise Refusal(AMBIGUOUS_PATH, why="not a path in origin form")
    if "//" in path:
        raise Refusal(AMBIGUOUS_PATH, why="an empty segment")
    if "%" in path:
        path = _unescape(path)
    if _LOOSE_END.search(path):
        raise Refusal(AMBIGUOUS_PATH, why="a dot or a space at the end of a segment, or a dot segment")
    return path


def _unescape(path: str) -> str:
    try:
        unquote_to_bytes(path).decode("utf-8")  # a careless decoder reads an overlong "%c0%af" as a slash
    except UnicodeDecodeError:
        raise Refusal(AMBIGUOUS_PATH, why="escapes that are not UTF-8") from None
    return _ESCAPE.sub(_read_escape, path)


def _read_escape(escape: re.Match[str]) -> str:
    if escape[1] is None:
        raise Refusal(AMBIGUOUS_PATH, why="a % without two digits")
    octet = int(escape[1], 16)
    if octet in _TWO_READINGS:
        raise Refusal(AMBIGUOUS_PATH, why="an escape that some readers decode")
    return chr(octet) if octet in _UNRESERVED else escape[0].upper()


def _check_host(value: str) -> str:
    lower = value.lower()
    if not HOST.fullmatch(lower):
        raise ValueError('a host is a name or an address without port and final dot, such as "api.example.com"')
    return lower


def _check_pattern(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError('a path begins with "/"')
    segments = value[1:].split("/")
    if REST in segments[:-1]:
        raise ValueError('"**" is allowed only as the last segment')
    if any(ONE in segment and segment not in (ONE, REST) for segment in segments):
        raise ValueError('"*" must be a whole segment')
    try:
        reached = normalise(value)
    except Refusal as refusal:
        raise ValueError(f"no request can match this path, because it is ambiguous: {refusal.facts['why']}") from None
    if reached != value:
        raise ValueError(f'write the path in the form in which it is matched: "{reached}"')
    return value


Host = Annotated[str, AfterValidator(_check_host)]
"""A host name or address without port, matched case-insensitively."""

PathPattern = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_check_pattern)]
"""A path; `*` is one non-empty segment, `**` (last only) any number of segments, including none."""

Method = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_-]{0,31}$")]
"""An HTTP method. Methods are case-sensitive, and the common ones are upper-case (RFC 9110 §9.1)."""


class RouteSettings(Section):
    """A route: the audience of the requests at the forward-auth door that it matches."""

    enabled: bool = True
    """`false` refuses requests that the route matches: it stays in place, so no wider route matches them instead."""
    host: Host | None = None
    """The host of the request, without port; default: any host."""
    path: PathPattern
    """The path, without query: `*` is one segment, `**` at the end any number, including none."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] | None = None
    """The methods; default: any method. OPTIONS is a method like any other, and GET does not include HEAD."""
    audience: Name | None = None
    """The audience whose token the request gets."""
    scopes: Annotated[tuple[ScopeToken, ...], Field(min_length=1)] | None = None
    """The scopes of the token; all of them are required."""
    allow: Rule | None = None
    """A CEL rule over `identity`, `actor`, `client`, `request`, `route`, `now`; anything but `true` refuses."""
    public: bool = False
    """Lets the request pass without a credential; no token is minted."""
    preflight: bool = False
    """Lets only CORS preflights pass: OPTIONS with `Origin` and `Access-Control-Request-Method`."""

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        """Reject rules and scopes that would never be evaluated: they would look like a protection."""
        if self.public and self.preflight:
            raise ValueError("a route is public or preflight, not both")
        if self.public or self.preflight:
            idle = [key for key in ("audience", "scopes", "allow") if getattr(self, key) is not None]
            if idle:
                raise ValueError(f"{' and '.join(idle)} would have no effect on a route without credential")
        elif self.audience is None:
            raise ValueError("a route needs `audience`, `public: true` or `preflight: true`")
        if self.preflight and self.methods not in (None, ("OPTIONS",)):
            raise ValueError("a preflight is an OPTIONS request: leave methods out, or write [OPTIONS]")
        return self


@dataclass(frozen=True, slots=True)
class Route:
    """A route in use. `open` is true for `public` and `preflight`: no credential is read and no token minted.

    `audience` is None only if `open` is true; `scopes` None means that the audience's token has none.
    """

    name: str
    audience: str | None
    scopes: tuple[str, ...] | None
    open: bool


@dataclass(frozen=True, slots=True)
class _Entry:
    """A route as stored for the match; of all entries that match a request, the one with the highest `rank` is used."""

    route: Route
    enabled: bool
    preflight: bool
    host: str | None
    segments: tuple[str, ...]
    methods: frozenset[str] | None
    rank: tuple[int, bool]


@dataclass(slots=True)
class _Node:
    """One segment in the tree of all patterns of a host."""

    literal: dict[str, _Node] = field(default_factory=dict)
    one: _Node | None = None
    ends: list[_Entry] = field(default_factory=list)
    rest: list[_Entry] = field(default_factory=list)


def ties(routes: Mapping[str, RouteSettings]) -> list[tuple[str, str]]:
    """Return each route that some request matches as well as an earlier route, as (first such route, this route).

    Each pair is a fault at load. Disabled routes count, because they stay in the table. A pair may hide others; the
    next run shows them after the first ones are corrected. Patterns are compared by shape (the positions of their
    wildcards), and routes by looking up the segments that two shapes have in common: the cost grows linearly with the
    number of routes, and only with the number of shapes squared.
    """
    entries = [_compile(name, settings) for name, settings in routes.items()]
    alike: dict[tuple[object, ...], _Shapes] = defaultdict(lambda: defaultdict(list))
    for place, entry in enumerate(entries):
        alike[entry.host, entry.rank][_shape(entry.segments)].append((place, entry))
    earlier: dict[int, int] = {}
    for shapes in alike.values():
        for one, other in product(shapes, repeat=2):
            shared = _shared_literals(one, other)
            if shared is not None:
                _record_ties(shapes[one], shapes[other], shared, earlier)
    return [(entries[first].route.name, entries[place].route.name) for place, first in sorted(earlier.items())]


_Shapes = dict[tuple[str, ...], list[tuple[int, _Entry]]]


def _shape(segments: Sequence[str]) -> tuple[str, ...]:
    """Return a pattern's shape: for each segment a wildcard, "" after a final slash, or "a" for other text."""
    return tuple(segment if segment in (ONE, REST, "") else "a" for segment in segments)


def _shared_literals(one: Sequence[str], other: Sequence[str]) -> list[int] | None:
    """Return where two patterns of these shapes need equal text to match one path; None if they never can."""
    shared: list[int] = []
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if REST in (left, right):
            return shared
        if ONE not in (left, right):
            shared.append(place)
        elif "" in (left, right):
            return None  # `*` is one segment that is not empty
    longer = max(one, other, key=len)[min(len(one), len(other)) :]
    return shared if not longer or longer[0] == REST else None


def _record_ties(
    ones: list[tuple[int, _Entry]], others: list[tuple[int, _Entry]], shared: list[int], earlier: dict[int, int]
) -> None:
    """Record for each of `others` the first of `ones` before it that ties with it, unless an earlier one is recorded.

    All entries have the same rank, so either all of them have methods or none has.
    """
    first: dict[tuple[str, ...], int] = {}
    for place, entry in ones:
        for key in _keys(entry, shared):
            first.setdefault(key, place)
    for place, entry in others:
        found = min((first.get(key, place) for key in _keys(entry, shared)), default=place)
        if found < earlier.get(place, place):
            earlier[place] = found


def _keys(entry: _Entry, shared: list[int]) -> list[tuple[str, ...]]:
    texts = tuple(entry.segments[place] for place in shared)
    return [texts] if entry.methods is None else [(method, *texts) for method in entry.methods]


class Routes:
    """All routes, compiled once. A lookup walks the path's segments and compares texts, without regular expressions."""

    def __init__(self, routes: Mapping[str, RouteSettings]) -> None:
        self._hosts: dict[str | None, _Node] = {}
        for name, settings in routes.items():
            entry = _compile(name, settings)
            _plant(self._hosts.setdefault(entry.host, _Node()), entry)

    def match(self, facts: RequestFacts, *, preflight: bool = False) -> Route:
        """Return the most specific route: exact host before any host, more literal segments first, then methods.

        `preflight` is whether the request has the headers of a CORS preflight; without them, preflight routes are
        skipped. The order in the configuration has no effect. Raises NO_ROUTE.
        """
        segments = facts.path[1:].split("/")
        for host in (facts.host, None):
            root = self._hosts.get(host)
            found = _best(_matching(root, segments), facts.method, preflight=preflight) if root else None
            if found is not None and not found.enabled:
                raise Refusal(NO_ROUTE, why="the route is disabled", route=found.route.name)
            if found is not None:
                return found.route
        raise Refusal(NO_ROUTE, why="no route matches host, path and method")


def _compile(name: str, settings: RouteSettings) -> _Entry:
    segments = tuple(settings.path[1:].split("/"))
    methods = ("OPTIONS",) if settings.preflight else settings.methods
    literals = sum(segment not in (ONE, REST) for segment in segments)
    return _Entry(
        Route(name, settings.audience, settings.scopes, open=settings.public or settings.preflight),
        enabled=settings.enabled,
        preflight=settings.preflight,
        host=settings.host,
        segments=segments,
        methods=None if methods is None else frozenset(methods),
        rank=(literals, methods is not None),
    )


def _plant(node: _Node, entry: _Entry) -> None:
    for segment in entry.segments:
        if segment == REST:
            node.rest.append(entry)
            return
        if segment == ONE:
            node.one = node.one or _Node()
            node = node.one
        else:
            node = node.literal.setdefault(segment, _Node())
    node.ends.append(entry)


def _matching(root: _Node, segments: Sequence[str]) -> list[_Entry]:
    """Return all entries whose pattern matches; the cost is at most the nodes of the tree, even for a long path."""
    found: list[_Entry] = []
    nodes = [root]
    for segment in segments:
        following: list[_Node] = []
        for node in nodes:
            found += node.rest
            if segment in node.literal:
                following.append(node.literal[segment])
            if segment and node.one is not None:
                following.append(node.one)
        if not following:
            return found
        nodes = following
    for node in nodes:
        found += node.rest
        found += node.ends
    return found


def _best(entries: list[_Entry], method: str, *, preflight: bool) -> _Entry | None:
    candidates = [
        entry
        for entry in entries
        if (entry.methods is None or method in entry.methods) and (preflight or not entry.preflight)
    ]
    return max(candidates, key=lambda entry: entry.rank, default=None)
