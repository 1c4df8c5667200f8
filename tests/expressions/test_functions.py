"""Our own functions in CEL, and what bounds `matches`."""

import ipaddress
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sts.expressions import ABSENT, EvaluationError, ExpressionError, RowsWanted, bind, compile_rule
from sts.expressions.patterns import MAX_WEIGHT, weight

CLAIMS = frozenset({"claims"})


def value(text, rows=None, **claims):
    return compile_rule(text, CLAIMS).value(bind({"claims": claims}, rows or {}))


def holds(text, rows=None, **claims):
    return compile_rule(text, CLAIMS).holds(bind({"claims": claims}, rows or {}))


def why(text, rows=None, **claims):
    with pytest.raises(EvaluationError) as caught:
        compile_rule(text, CLAIMS).value(bind({"claims": claims}, rows or {}))
    return caught.value.why


@pytest.mark.parametrize(
    ("address", "ranges", "within"),
    [
        ("10.1.2.3", "'10.0.0.0/8'", True),
        ("11.1.2.3", "'10.0.0.0/8'", False),
        ("10.1.2.3", "'10.1.2.3'", True),
        ("192.168.1.1", "['10.0.0.0/8', '192.168.0.0/16']", True),
        ("2001:db8::1", "['10.0.0.0/8', '2001:db8::/32']", True),
        ("::ffff:10.1.2.3", "'10.0.0.0/8'", True),
        ("::1", "'127.0.0.0/8'", False),
        ("10.1.2.3", "'::/0'", False),
        ("10.1.2.3", "claims.ranges", True),
        ("10.1.2.3", "[]", False),
    ],
)
def test_ip_in_says_whether_an_address_lies_in_one_of_the_ranges(address, ranges, within):
    assert holds(f"ip_in(claims.ip, {ranges})", ip=address, ranges=["10.0.0.0/8"]) is within


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 32))
def test_ip_in_says_what_the_standard_library_says(address, base, bits):
    network = ipaddress.ip_network(f"{base}/{bits}", strict=False)
    mapped = getattr(address, "ipv4_mapped", None)
    assert holds(f"ip_in(claims.ip, '{network}')", ip=str(address)) is ((mapped or address) in network)


@pytest.mark.parametrize(
    "address", ["", "10.0.0", "10.0.0.256", "fe80::1%eth0", "10.0.0.1/8", " 10.0.0.1", "localhost"]
)
@pytest.mark.parametrize(
    "rule", ["ip_in(claims.ip, '10.0.0.0/8') || true", "!ip_in(claims.ip, '10.0.0.0/8')", "ip_in(claims.ip, '::/0')"]
)
def test_what_is_no_address_fails_whatever_the_rule_makes_of_it(address, rule):
    assert why(rule, ip=address) == "not an address"


def test_a_range_that_the_data_bring_is_checked_when_it_is_read():
    assert why("ip_in(claims.ip, claims.range) || true", ip="10.0.0.1", range="10.0.0.1/8") == "not an address"
    assert why("ip_in(claims.ip, claims.ranges) || true", ip="10.0.0.1", ranges=[1]) == "not an address"


def test_the_first_value_that_is_not_empty():
    rule = "[?claims.?upn, ?claims.?email, ?claims.?sub].filter(x, x != '').first()"
    assert value(rule, upn="u", email="e", sub="s") == "u"
    assert value(rule, upn="", email="e", sub="s") == "e"
    assert value(rule, sub="s") == "s"
    assert value(rule, email="") is ABSENT
    assert value(rule) is ABSENT


@pytest.mark.parametrize(
    "ranges",
    [
        "[dyn(claims.?r), '10.0.0.0/8']",
        "[claims.?r, '10.0.0.0/8']",
        "dyn([{'a': claims.?r}])",
        "claims.l.map(x, dyn(claims.?r))",
        "[['10.0.0.0/8', claims.?r]][0]",
        "claims.on ? ['10.0.0.0/8'] : claims.r",
    ],
)
def test_ranges_are_literals_or_data_so_that_a_mistake_in_one_is_found_at_load(ranges):
    with pytest.raises(ExpressionError, match="the ranges of `ip_in` must stand there"):
        compile_rule(f"ip_in(claims.ip, {ranges})", CLAIMS)


@pytest.mark.parametrize("ranges", ["claims.r", "claims.a.r", "claims['r']", "lookup('sites', claims.site).r"])
def test_ranges_may_be_data(ranges):
    rows = {("sites", "home"): {"r": ["10.0.0.0/8"]}}
    claims = {"ip": "10.0.0.1", "r": ["10.0.0.0/8"], "a": {"r": "10.0.0.0/8"}, "site": "home"}
    assert holds(f"ip_in(claims.ip, {ranges})", rows, **claims)


def test_functions_that_people_need_are_there():
    assert value("claims.g.split(',').map(x, x.trim().lowerAscii())", g="A, b") == ["a", "b"]
    assert value("string(base64.decode(claims.b.replace('-', '+').replace('_', '/')))", b="Pz8_") == "???"
    assert value("base64.encode(b'ab')") == "YWI="


def test_too_many_calls_of_our_functions_end_an_evaluation():
    rule = "claims.l.all(x, ip_in(x, '10.0.0.0/8')) || true"
    assert holds(rule, l=["10.0.0.1"] * 900)
    assert why(rule, l=["10.0.0.1"] * 1100) == "budget"


# --- looking up -------------------------------------------------------------------------------------------------------


def wanted(text, rows=None, **claims):
    with pytest.raises(RowsWanted) as caught:
        compile_rule(text, CLAIMS).value(bind({"claims": claims}, rows or {}))
    return caught.value.pairs


def test_a_row_that_is_not_at_hand_is_wanted_whatever_the_rule_makes_of_it():
    for rule in (
        "lookup('staff', claims.sub).id",
        "lookup('staff', claims.sub).id == 'x' || true",
        "lookup('staff', claims.sub).?id.orValue('guest')",
        "has(lookup('staff', claims.sub).id)",
        "dyn(lookup('staff', claims.sub).?id)",
    ):
        assert wanted(rule, sub="alice") == (("staff", "alice"),)


def test_a_row_at_hand_is_read():
    rows = {("staff", "alice"): {"id": "E7", "groups": ["a"], "n": 3}}
    assert value("lookup('staff', claims.sub).id", rows, sub="alice") == "E7"
    assert value("lookup('staff', claims.sub).groups", rows, sub="alice") == ["a"]
    assert value("lookup('staff', claims.sub)['n']", rows, sub="alice") == 3
    assert value("lookup('staff', claims.sub).gone", rows, sub="alice") is ABSENT
    assert value("lookup('staff', claims.sub).?gone.orValue('x')", rows, sub="alice") == "x"
    chain = "lookup('staff', lookup('staff', claims.sub).id).id"
    assert wanted(chain, rows, sub="alice") == (("staff", "E7"),)
    assert value(chain, {**rows, ("staff", "E7"): {"id": "boss"}}, sub="alice") == "boss"


@pytest.mark.parametrize("row", [{"id": "a\0b"}, {"id": "\ud800"}, {"id": float("nan")}, {1: "x"}, {"id": b"x"}])
def test_a_row_that_cel_cannot_hold_is_an_error(row):
    assert why("lookup('staff', 'a').?id.orValue('x') == 'x' || true", {("staff", "a"): row})


def test_a_key_is_a_bounded_text():
    with pytest.raises(ExpressionError, match="does not take"):
        compile_rule("lookup('staff', 7)", CLAIMS)
    assert why("lookup('staff', claims.sub).id", sub=7) == "type mismatch"
    assert why("lookup('staff', claims.sub).id == 'x' || true", sub="a" * 1025) == "too long"
    assert why("lookup('s', string(base64.decode('YQBi'))).id == 'x' || true") == "unsafe text"


def test_the_table_stands_there_as_a_text():
    for rule in ("lookup(claims.t, 'a')", "lookup('a' + 'b', 'a')", "lookup(claims.?t.orValue('x'), 'a')"):
        with pytest.raises(ExpressionError, match="the table of `lookup`"):
            compile_rule(rule, CLAIMS)


def test_an_expression_names_the_tables_and_columns_that_it_reads():
    def lookups(text):
        return compile_rule(text, CLAIMS).lookups

    assert lookups("lookup('a', claims.x).id") == {("a", "id")}
    assert lookups("lookup('a', claims.x).?id") == {("a", "id")}
    assert lookups("lookup('a', claims.x)['id'] + lookup('b', lookup('c', 'k').z).y") == {
        ("a", "id"),
        ("b", "y"),
        ("c", "z"),
    }
    assert lookups("size(lookup('a', claims.x))") == {("a", "")}
    assert lookups("claims.l.map(x, lookup('a', x).id)") == {("a", "id")}
    assert lookups("claims.lookup") == set()


def test_each_thread_has_its_own_rows():
    rule = compile_rule("lookup('staff', claims.sub).id", CLAIMS)
    faults = []

    def work(me):
        scope = bind({"claims": {"sub": "alice"}}, {("staff", "alice"): {"id": me}})
        faults.extend(me for _ in range(500) if rule.value(scope) != me)

    threads = [threading.Thread(target=work, args=(f"user{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


# --- matches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        "^[a-z]+@example\\\\.com$",
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "(?i)^(orders|billing):(read|write)$",
        "\\\\pL+",
        ".{0,100}",
    ],
)
def test_a_reasonable_pattern_is_taken(pattern):
    holds(f"claims.sub.matches('{pattern}')", sub="x")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("claims.sub.matches('(')", "no regular expression of RE2: missing )"),
        ("claims.sub.matches('(?=a)')", "no regular expression of RE2"),
        ("claims.sub.matches(claims.pattern)", "must stand there as a text"),
        ("matches(claims.sub, '^' + claims.tenant)", "must stand there as a text"),
        ("claims.sub.matches('(.{0,900}){5}')", "no regular expression of RE2"),
        ("claims.sub.matches('(.{0,900})(.{0,900})(.{0,900})')", "too costly"),
        ("claims.sub.matches('[\\\\pL]{10}')", "too costly"),
        ("claims.sub.matches('" + "a" * 513 + "')", "at most 512 characters"),
    ],
)
def test_a_pattern_that_is_none_or_might_take_long_is_a_fault_at_load(rule, said):
    with pytest.raises(ExpressionError) as caught:
        compile_rule(rule, CLAIMS)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        ("abc", 3, 3),
        ("(a|bc){3,5}", 15, 15),
        ("a{2,}b", 4, 4),
        ("((ab){3}){4}", 24, 24),
        (r"\{7\}x{2}", 5, 5),
        (r"[^\]]{10}", 40, 60),
        (r"\Q{9}\E", 7, 7),
        ("(?P<n>a){3}(?i:b)", 4, 4),
        (r"(?i)[\pL]", 1000, 1002),
    ],
)
def test_the_weight_of_a_pattern_counts_its_atoms_as_often_as_they_are_repeated(pattern, least, most):
    assert least <= weight(pattern) <= most


@pytest.mark.parametrize("pattern", [r"[ab]*a.{400}c", r"(a?){600}a{600}", r"(a|ab|b|ba)*a(.{100})c", r"(x*)*y"])
def test_the_costliest_patterns_that_are_taken_end_soon_over_the_longest_text(pattern):
    assert weight(pattern) <= MAX_WEIGHT
    rule = compile_rule(f"claims.sub.matches('{pattern}')", CLAIMS)
    scope = bind({"claims": {"sub": "ab" * 32_000}})
    began = time.thread_time()
    rule.holds(scope)
    assert time.thread_time() - began < 5


def test_a_text_that_is_too_long_to_be_matched_is_an_error():
    rule = compile_rule("claims.a.matches('b') || true", CLAIMS)
    assert rule.holds(bind({"claims": {"a": "a" * 65_536}}))
    assert rule.holds(bind({"claims": {"a": "", "l": [{"x": "a" * 65_537}]}}))
    with pytest.raises(EvaluationError, match="too long"):
        rule.holds(bind({"claims": {"a": "a" * 65_537}}))


def test_a_pattern_may_be_matched_with_every_element_of_a_list():
    rule = compile_rule("claims.l.exists(x, x.matches('^[0-9]{300}$'))", CLAIMS)
    assert rule.holds(bind({"claims": {"l": ["a", "1" * 300]}}))


@pytest.mark.parametrize(
    "rule",
    [
        "timestamp(now).getHours('Europe/Berlim') > 8",
        "timestamp(now).getDayOfWeek('berlin') in [1, 2]",
        "timestamp(now).getMinutes('+25:00') > 8",
        "timestamp(now).getHours('../../etc/passwd') > 8",
    ],
)
def test_a_misspelt_time_zone_is_a_fault_at_load(rule):
    with pytest.raises(ExpressionError, match=r"there is no time zone `.*`; write it like Europe/Berlin or \+02:00"):
        compile_rule(rule, frozenset({"now"}))


def test_a_time_zone_that_the_data_name_opens_no_file_beside_those_of_the_time_zones(monkeypatch):
    rule = compile_rule("timestamp(5).getHours(claims.zone)", CLAIMS)
    assert rule.value({"claims": {"zone": "Asia/Kolkata"}}) == 5
    opened = []
    monkeypatch.setattr("io.open", lambda *arguments: opened.append(arguments))
    monkeypatch.setattr("os.stat", lambda *arguments: opened.append(arguments))
    for name in ("../../../etc/passwd", "/etc/passwd", "Europe/Nowhere", "posixrules/x", "a" * 5000):
        with pytest.raises(EvaluationError, match="other"):
            rule.value({"claims": {"zone": name}})
    assert opened == []
