"""Dry runs at load: what can only fail is found, and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sts.expressions import (
    ABSENT,
    EvaluationError,
    ExpressionError,
    as_attribute,
    as_scopes,
    as_subject,
    bind,
    check_use,
    compile_rule,
)

CLAIMS = frozenset({"claims"})
RULE = frozenset({"identity", "client", "request", "route", "now"})


def check(text, read=as_attribute, variables=CLAIMS, rows=None):
    check_use(compile_rule(text, variables), read, rows)


@pytest.mark.parametrize(
    ("text", "read", "variables"),
    [
        ("claims.sub + 1", as_attribute, CLAIMS),
        ("claims.exp.startsWith('1')", as_attribute, CLAIMS),
        ("claims.sub && true", None, CLAIMS),
        ("base64.decode(claims.data)", as_attribute, CLAIMS),
        ("{'a': claims.b}", as_attribute, CLAIMS),
        ("claims.ratio * 1.5", as_attribute, CLAIMS),
        ("timestamp(claims.iat)", as_attribute, CLAIMS),
        ("7", as_subject, CLAIMS),
        ("claims.iat", as_subject, CLAIMS),
        ("true", as_scopes, CLAIMS),
        ("identity.roles.startsWith('a')", None, RULE),
        ("identity.scopes + 'x'", as_attribute, RULE),
        ("client.id > 5", None, RULE),
        ("identity.subject - now > 5", None, RULE),
    ],
)
def test_what_can_only_fail_is_a_fault(text, read, variables):
    with pytest.raises(ExpressionError, match=r"types do not fit|of a type that cannot be used here"):
        check(text, read, variables)


@pytest.mark.parametrize(
    ("text", "read", "variables"),
    [
        ("claims.sub", as_subject, CLAIMS),
        ("claims.uid", as_subject, CLAIMS),
        ("claims.realm_access.roles", as_attribute, CLAIMS),
        ("claims['https://example.com/roles']", as_attribute, CLAIMS),
        ("claims.a + claims.b.c + claims.d", as_attribute, CLAIMS),
        ("string(claims.uid)", as_subject, CLAIMS),
        ("int(claims.level) + 1", as_attribute, CLAIMS),
        ("string(base64.decode(claims.data))", as_attribute, CLAIMS),
        ("claims.sub.split('@')[1]", as_attribute, CLAIMS),
        ("claims.orgs[0].id", as_attribute, CLAIMS),
        ("claims.orgs.map(o, o.name + o.id)", as_attribute, CLAIMS),
        ("claims.groups.filter(g, g.startsWith('app-')).map(g, g.substring(4))", as_attribute, CLAIMS),
        ("[?claims.?upn, ?claims.?email].filter(x, x != '').first()", as_subject, CLAIMS),
        ("claims.?a.?b.orValue('x')", as_attribute, CLAIMS),
        ("claims.admin ? ['admin'] : claims.roles", as_attribute, CLAIMS),
        ("claims.scope.split(' ')", as_scopes, CLAIMS),
        ("claims.scp", as_scopes, CLAIMS),
        ("['orders:read']", as_scopes, CLAIMS),
        ("claims.email_verified == true", None, CLAIMS),
        ("claims.verified", None, CLAIMS),
        ("claims.amr.exists(m, m == 'otp')", None, CLAIMS),
        ("'x' in claims.aud", None, CLAIMS),
        ("claims.exp - claims.iat <= 3600", None, CLAIMS),
        ("now - identity.auth_time < 300", None, RULE),
        ("timestamp(now).getHours() >= 8 && ip_in(request.ip, '10.0.0.0/8')", None, RULE),
        ("'accountant' in identity.roles && identity.tenant == route.name", None, RULE),
        ("identity.level >= 3 || identity.vip", None, RULE),
        ("size(identity) > 0", None, RULE),
    ],
)
def test_what_may_be_right_is_no_fault(text, read, variables):
    check(text, read, variables)


def test_rules_that_look_rows_up_are_tried_on_an_example_where_there_is_one():
    class Rows:
        def get(self, _pair):
            return {"id": "E7", "groups": "a b"}

    check("lookup('staff', claims.sub).id", as_subject, rows=Rows())
    check("lookup('staff', claims.sub).groups.split(' ')", as_scopes, rows=Rows())
    check("lookup('staff', claims.sub).id + 1")  # nobody knows what it holds
    with pytest.raises(ExpressionError, match="types do not fit"):
        check("lookup('staff', claims.sub).id + 1", rows=Rows())


def test_a_fault_says_what_was_read():
    with pytest.raises(ExpressionError, match=r"it fails whatever `claims.iat`, `claims.sub` may be"):
        check("claims.sub + claims.iat")


PATHS = ["claims.a", "claims.b", "claims.c.d", "claims.sub", "claims.iat"]
LEAVES = st.sampled_from([*PATHS, "1", "'x'", "true", "['y']"])
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("(dyn({}) + dyn({}))".format, inner, inner),
        st.builds("dyn({}).upperAscii()".format, inner),
        st.builds("(dyn({}) && dyn({}))".format, LEAVES, inner),
        st.builds("(dyn({}) ? dyn({}) : dyn({}))".format, LEAVES, inner, inner),
        st.builds("string(dyn({}))".format, inner),
        st.builds("size(dyn({}))".format, inner),
        st.builds("[string(dyn({})), 'z']".format, inner),
    ),
    max_leaves=4,
)
VALUES = st.sampled_from(["text", "12", 3, True, False, ["a"], 2.5, {"d": "a"}])
DATA = st.fixed_dictionaries({"a": VALUES, "b": VALUES, "c": st.fixed_dictionaries({"d": VALUES})})


@settings(max_examples=300)
@given(EXPRESSIONS, DATA, st.sampled_from([as_attribute, as_subject, None]))
def test_law_what_works_on_some_data_is_no_fault(text, claims, read):
    expression = compile_rule(text, CLAIMS)
    scope = bind({"claims": {**claims, "sub": "alice", "iat": 1_700_000_000}})
    try:
        found = expression.holds(scope) if read is None else expression.value(scope)
        if read is not None and found is not ABSENT:
            read(found)
    except EvaluationError:
        return
    check_use(expression, read)
