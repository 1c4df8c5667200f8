"""Which headers say which request a gateway asks about."""

import pytest

from sts.edge.profiles import PROFILES, is_preflight
from sts.errors import Refusal
from sts.model import RequestFacts

NGINX = {
    "x-original-method": "GET",
    "x-original-uri": "/orders/1?x=1",
    "x-original-host": "api.example.com",
    "x-original-proto": "https",
    "x-original-addr": "192.0.2.7",
}


def facts(**changes):
    changed = {**NGINX, **{f"x-original-{name}": value for name, value in changes.items()}}
    return PROFILES["nginx"].facts({name: value for name, value in changed.items() if value is not None})


def reason_of(**changes):
    with pytest.raises(Refusal) as refused:
        facts(**changes)
    return refused.value.reason.name


def test_the_nginx_profile_reads_its_five_headers():
    assert facts() == RequestFacts("GET", "api.example.com", "/orders/1", "https", "192.0.2.7")


@pytest.mark.parametrize("name", ["method", "uri", "host"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_required_header_that_is_absent_or_empty_is_the_gateways_fault(name, value):
    """FA-04."""
    assert reason_of(**{name: value}) == "profile_header_missing"


@pytest.mark.parametrize(
    ("name", "value"),
    [("method", "GET,POST"), ("method", "GET, GET"), ("method", "G T"), ("method", "GET\x00"), ("host", "a.b,a.b")],
)
def test_a_doubled_header_is_the_gateways_fault(name, value):
    """FA-03, FA-04."""
    assert reason_of(**{name: value}) == "profile_header_missing"


@pytest.mark.parametrize("name", ["method", "uri", "host"])
def test_no_other_convention_stands_in_for_a_missing_header(name):
    """FA-03."""
    other = {
        "x-forwarded-method": "GET",
        "x-forwarded-uri": "/orders/1",
        "x-forwarded-host": "api.example.com",
        "x-original-url": "/orders/1",
        "host": "api.example.com",
    }
    with pytest.raises(Refusal) as refused:
        PROFILES["nginx"].facts(
            {**other, **{key: value for key, value in NGINX.items() if key != f"x-original-{name}"}}
        )
    assert refused.value.reason.name == "profile_header_missing"


@pytest.mark.parametrize(
    ("host", "read"),
    [
        ("API.Example.COM", "api.example.com"),
        ("api.example.com:8443", "api.example.com"),
        ("api.example.com.", "api.example.com"),
        ("api.example.com.:443", "api.example.com"),
        ("api.example.com:", "api.example.com"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("[2001:DB8::1]:443", "[2001:db8::1]"),
        ("my_service", "my_service"),
    ],
)
def test_the_host_is_lower_cased_and_its_port_stripped(host, read):
    assert facts(host=host).host == read


@pytest.mark.parametrize(
    "host",
    [
        "a b",
        "a..b",
        ".",
        "..",
        "a:b",
        "a:80:90",
        "user@a",
        "a/b",
        "a\\b",
        "-a",
        "a-",
        "müller.example",
        "[::1",
        "::1",
        "a" * 64,
        "a." * 126 + "aa",
        "a\x00",
        "a%2eb",
        ":443",
        "[]",
    ],
)
def test_a_host_that_is_none_has_no_route(host):
    assert reason_of(host=host) == "no_route"


def test_an_ambiguous_target_is_refused():
    """FA-05."""
    assert reason_of(uri="/orders/../billing") == "ambiguous_path"
    assert reason_of(uri="http://api.example.com/orders") == "ambiguous_path"


@pytest.mark.parametrize(
    ("address", "read"),
    [
        (None, ""),
        ("", ""),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7,10.0.0.1", ""),
        ("192.0.2.7:1234", ""),
        ("192.0.2.007", ""),
        ("fe80::1%eth0", ""),
        ("unix:", ""),
        ("3221225991", ""),
    ],
)
def test_the_address_is_an_address_or_nothing(address, read):
    assert facts(addr=address).ip == read


@pytest.mark.parametrize(
    ("scheme", "read"), [(None, ""), ("HTTPS", "https"), ("http", "http"), ("https,http", ""), ("x", "")]
)
def test_the_scheme_is_http_or_https_or_nothing(scheme, read):
    assert facts(proto=scheme).scheme == read


def test_a_preflight_needs_both_of_its_headers():
    both = {"origin": "https://app.example.com", "access-control-request-method": "PUT"}
    assert is_preflight(both)
    for name in both:
        assert not is_preflight({**both, name: ""})
        assert not is_preflight({key: value for key, value in both.items() if key != name})
