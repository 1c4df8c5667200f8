import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sts.expressions import ABSENT, EvaluationError, ExpressionError, compile_rule
from sts.expressions.tree import decode

RULE = frozenset({"identity", "client", "request", "route", "now"})


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("true", set()),
        ("'identity.tenant' == \"now\" // request.path", set()),
        ("identity.tenant", {"identity.tenant"}),
        (".identity.tenant", {"identity.tenant"}),
        ("identity . tenant", {"identity.tenant"}),
        ("(identity).tenant", {"identity.tenant"}),
        ("identity.tenant.name.first", {"identity.tenant"}),
        ("has(identity.tenant)", {"identity.tenant"}),
        ("identity.?tenant", {"identity.tenant"}),
        ("identity.?tenant.?name", {"identity.tenant"}),
        ("identity.`a.b`", {"identity.a.b"}),
        ("identity['tenant']", {"identity"}),
        ("identity[?'tenant']", {"identity"}),
        ("identity[request.method]", {"identity", "request.method"}),
        ("size(identity)", {"identity"}),
        ("identity.size()", {"identity"}),
        ("identity == client", {"identity", "client"}),
        ("[identity][0].tenant", {"identity"}),
        ("{'a': identity}.a.tenant", {"identity"}),
        ("{identity.a: 1}", {"identity.a"}),
        ("{?'a': identity.?b, ?'c': request.?d}", {"identity.b", "request.d"}),
        ("[?identity.?a, client.id]", {"identity.a", "client.id"}),
        ("now - identity.auth_time < 60", {"now", "identity.auth_time"}),
        ("timestamp(now).getHours() > 8", {"now"}),
        ("identity.a ? identity.b : identity.c", {"identity.a", "identity.b", "identity.c"}),
        ("identity.a || !identity.b && -identity.c < 1", {"identity.a", "identity.b", "identity.c"}),
        ("identity.roles.filter(r, r == request.path)", {"identity.roles", "request.path"}),
        ("ip_in(request.ip, identity.range)", {"request.ip", "identity.range"}),
        ("lookup('t', identity.tenant).name == request.host", {"identity.tenant", "request.host"}),
        ("[1].all(x, [2].exists(y, x == y && route.name == ''))", {"route.name"}),
        ("identity.exists(k, k == 'a')", {"identity"}),
        ("identity.?roles.optMap(r, r + client.id)", {"identity.roles", "client.id"}),
        ("1.5 < identity.f && b'x' == identity.g && 3u != identity.h", {"identity.f", "identity.g", "identity.h"}),
    ],
)
def test_reads_names_every_path(text, read):
    assert compile_rule(text, RULE).reads == read


@pytest.mark.parametrize(
    "text", ["[1].map(identity, identity)", "[1].exists(now, now == 1)", "identity.?a.optMap(request, request)"]
)
def test_a_loop_variable_may_not_hide_a_variable(text):
    with pytest.raises(ExpressionError, match="hides the variable"):
        compile_rule(text, RULE)


# Expression{id: 1, <field 10, which the language does not have today>: ""} as the root of a CheckedExpr in an Any
UNKNOWN_NODE = b"\x12\x06\x22\x04\x10\x01\x52\x00"


@pytest.mark.parametrize("serialized", [UNKNOWN_NODE, b"", b"\x12\x00", b"\x12\x02\x22\x00\x12\x02\x22\x00", b"\x13"])
def test_a_tree_that_is_not_understood_is_refused(serialized):
    with pytest.raises(ExpressionError):
        decode(serialized, RULE)


PATHS = ["identity.a", "identity.b", "identity.c", "request.a", "request.b"]
LEAVES = st.sampled_from(
    [
        *PATHS,
        "now",
        "1",
        "'x'",
        "identity['a']",
        "request[?'b'].orValue(2)",
        "has(identity.b)",
        "identity.?c.orValue(1)",
    ]
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("(dyn({}) == dyn({}))".format, inner, inner),
        st.builds("[dyn({}), dyn({})]".format, inner, inner),
        st.builds("{{'k': {}}}.k".format, inner),
        st.builds("(dyn({}) == 1 ? dyn({}) : dyn({}))".format, inner, inner, inner),
        st.builds("[{}].map(v, [dyn(v), dyn({})])".format, inner, inner),
        st.builds("ip_in(string(dyn({})), '10.0.0.0/8')".format, inner),
        st.builds("dyn({}) == 1 || has(identity.c)".format, inner),
    ),
    max_leaves=6,
)
SMALL = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=3)


def outcome(expression, data):
    try:
        found = expression.value(data)
    except EvaluationError as error:
        return error.why
    return "absent" if found is ABSENT else repr(found)


def only_read(data, read):
    """The data cut down to what `read` names."""
    kept = {}
    for name, value in data.items():
        if name in read or not isinstance(value, dict):
            kept[name] = value if name in read else 0
        else:
            kept[name] = {key: member for key, member in value.items() if f"{name}.{key}" in read}
    return kept


@settings(max_examples=200)
@given(EXPRESSIONS, SMALL, SMALL, st.integers(0, 2))
def test_what_is_not_reported_as_read_never_changes_the_result(text, identity, request, now):
    expression = compile_rule(text, RULE)
    data = {"identity": identity, "request": request, "now": now}
    assert outcome(expression, data) == outcome(expression, only_read(data, expression.reads))
