"""Certificates in headers: three forms, one of them at a time, fuzzed."""

import base64
import hashlib
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pki import URI, Authority

from sts.edge.certificate_headers import ALL_HEADERS, HEADERS, MAX_HEADER_CHARS, handed_on
from sts.errors import BAD_SIGNATURE, MALFORMED, TOO_LARGE, Refusal

CA = Authority()
BELOW = Authority("Issuing CA", parent=CA)
LEAF, OTHER = BELOW.issue(dns=["a.example"]), CA.issue("other", uris=["spiffe://partners.example/other"])


def sf(holder):
    return f":{base64.b64encode(holder.der).decode()}:"


def escaped(*holders):
    return quote("".join(holder.pem for holder in holders), safe="")


def element(holder, *more, cert=True, chain=(), digest=None, names=True):
    pairs = ["By=spiffe://gateway.example/envoy", f"Hash={digest or hashlib.sha256(holder.der).hexdigest()}"]
    if cert:
        pairs.append(f'Cert="{escaped(holder)}"')
    if chain:
        pairs.append(f'Chain="{escaped(*chain)}"')
    pairs.append(r'Subject="CN=billing\, \"Inc\""')
    if names:
        pairs += ["URI=" + URI if holder is LEAF else "URI=spiffe://partners.example/other"]
    return ";".join([*pairs, *more])


NGINX = {"x-ssl-client-cert": escaped(LEAF), "x-ssl-client-verify": "SUCCESS"}
GOOD = {
    "client_cert": {"client-cert": sf(LEAF)},
    "xfcc": {"x-forwarded-client-cert": element(LEAF)},
    "nginx": NGINX,
}


@pytest.mark.parametrize("form", GOOD)
def test_each_form_gives_the_certificate(form):
    """CC-01, CC-05, CC-07."""
    assert handed_on({"host": "a", **GOOD[form]}, form) == (LEAF.der,)


@pytest.mark.parametrize("form", [*GOOD, None])
def test_no_header_is_no_certificate(form):
    assert handed_on({"host": "a", "authorization": "Bearer x"}, form) is None


@pytest.mark.parametrize("form", GOOD)
@pytest.mark.parametrize("configured", [*GOOD, None])
def test_only_the_configured_form_is_read(form, configured, refused):
    """CC-03, CC-10."""
    if form == configured:
        return
    with refused(MALFORMED):
        handed_on(GOOD[form], configured)


@pytest.mark.parametrize("form", GOOD)
def test_another_form_beside_it_is_refused(form, refused):
    """CC-10."""
    for other in GOOD.keys() - {form}:
        with refused(MALFORMED):
            handed_on({**GOOD[form], **GOOD[other]}, form)


@pytest.mark.parametrize("form", GOOD)
def test_a_certificate_that_is_sent_twice_is_refused(form, refused):
    """CC-01. Doubled headers arrive joined; Envoy's is a list, of which the last is read."""
    doubled = {name: f"{value},{value}" for name, value in GOOD[form].items()}
    if form == "xfcc":
        assert handed_on(doubled, form) == (LEAF.der,)
        return
    with refused(MALFORMED):
        handed_on(doubled, form)


def test_a_chain_comes_in_its_own_header(refused):
    """CC-02."""
    headers = {"client-cert": sf(LEAF), "client-cert-chain": f"{sf(BELOW)}, {sf(CA)}"}
    assert handed_on(headers, "client_cert") == (LEAF.der, BELOW.der, CA.der)
    with refused(MALFORMED):
        handed_on({"client-cert-chain": sf(BELOW)}, "client_cert")
    for chain in ("", f"{sf(BELOW)},", f"{sf(BELOW)} {sf(CA)}", f",{sf(BELOW)}", ",".join([sf(BELOW)] * 9)):
        with refused(MALFORMED):
            handed_on({"client-cert": sf(LEAF), "client-cert-chain": chain}, "client_cert")


@pytest.mark.parametrize(
    "value",
    ["", sf(LEAF)[1:], sf(LEAF)[:-1], sf(LEAF) + ";a=1", f'"{sf(LEAF)}"', ":AAA:", ":A A=:", ":-_:", "::,::", "(::)"],
)
def test_what_is_not_one_byte_sequence_is_refused(value, refused):
    """CC-01."""
    with refused(MALFORMED):
        handed_on({"client-cert": value}, "client_cert")


def test_nginx_says_whether_there_is_one():
    """CC-07."""
    assert handed_on({"x-ssl-client-verify": "NONE"}, "nginx") is None
    assert handed_on({"x-ssl-client-verify": "NONE", "x-ssl-client-cert": ""}, "nginx") is None


def test_what_nginx_could_not_verify_is_refused(refused):
    """CC-11."""
    with refused(BAD_SIGNATURE) as caught:
        handed_on({**NGINX, "x-ssl-client-verify": "FAILED:self-signed certificate"}, "nginx")
    assert "self" not in str(caught.value.facts)


@pytest.mark.parametrize(
    "change",
    [
        {"x-ssl-client-verify": "NONE"},
        {"x-ssl-client-verify": ""},
        {"x-ssl-client-verify": "success"},
        {"x-ssl-client-verify": "SUCCESS,SUCCESS"},
        {"x-ssl-client-cert": ""},
        {"x-ssl-client-cert": escaped(LEAF, OTHER)},
        {"x-ssl-client-cert": quote("junk\n" + LEAF.pem)},
        {"x-ssl-client-cert": quote(LEAF.pem + "junk")},
        {"x-ssl-client-cert": quote(LEAF.pem.replace("CERTIFICATE", "X509 CRL"))},
        {"x-ssl-client-cert": escaped(LEAF) + "%"},
        {"x-ssl-client-cert": escaped(LEAF) + "%zz"},
        {"x-ssl-client-cert": escaped(LEAF) + "%00"},
        {"x-ssl-client-cert": escaped(LEAF) + "é"},
        {"x-ssl-client-cert": quote(LEAF.key_pem)},
    ],
)
def test_what_nginx_would_not_send_is_refused(change, refused):
    """CC-07, XC-14."""
    with refused(MALFORMED):
        handed_on({**NGINX, **change}, "nginx")
    with refused(MALFORMED):
        handed_on({"x-ssl-client-cert": NGINX["x-ssl-client-cert"]}, "nginx")


def test_a_plus_that_was_left_unescaped_is_no_space():
    """CC-07: some balancers escape less."""
    holders = [CA.issue() for _ in range(20)]
    plus = next(holder for holder in holders if "+" in holder.pem)
    value = quote(plus.pem, safe="+/=")
    assert handed_on({**NGINX, "x-ssl-client-cert": value}, "nginx") == (plus.der,)


def xfcc(value):
    return handed_on({"x-forwarded-client-cert": value}, "xfcc")


def test_envoys_pairs_come_in_any_order_and_case():
    """CC-05."""
    pairs = element(LEAF).split(";")
    assert xfcc(";".join(reversed(pairs))) == (LEAF.der,)
    assert xfcc(element(LEAF).replace("Hash=", "hash=").replace("Cert=", "CERT=")) == (LEAF.der,)
    assert xfcc(element(LEAF, "Later=x")) == (LEAF.der,)


def test_envoys_chain_begins_with_the_certificate(refused):
    chain = [LEAF, BELOW, CA]
    assert xfcc(element(LEAF, chain=chain)) == (LEAF.der, BELOW.der, CA.der)
    assert xfcc(element(LEAF, chain=chain, cert=False)) == (LEAF.der, BELOW.der, CA.der)
    with refused(MALFORMED):
        xfcc(element(LEAF, chain=[OTHER, CA]))


def test_the_last_element_is_the_nearest_hops():
    """CC-06: what a client sends ahead of it counts for nothing."""
    assert xfcc(f"{element(OTHER)},{element(LEAF)}") == (LEAF.der,)
    assert xfcc(f"{element(OTHER)}, {element(LEAF)}") == (LEAF.der,)
    assert xfcc(f'By=x;Hash=00;Subject="CN=admin",{element(LEAF)}') == (LEAF.der,)


def test_no_name_is_believed_without_its_certificate(refused):
    """CC-06."""
    with refused(MALFORMED):
        xfcc(f'By=x;Hash={"0" * 64};Subject="CN=admin";URI=spiffe://partners.example/admin')
    with refused(MALFORMED):
        xfcc(f"{element(LEAF)},By=x;Hash={'0' * 64};URI=spiffe://partners.example/admin")


def test_the_hash_is_that_of_the_certificate(refused):
    """CC-06."""
    with refused(MALFORMED):
        xfcc(element(LEAF, digest="0" * 64))
    with refused(MALFORMED):
        xfcc(element(LEAF).replace("Hash=", "Other="))
    assert xfcc(element(LEAF, digest=hashlib.sha256(LEAF.der).hexdigest().upper())) == (LEAF.der,)


def test_names_that_are_not_the_certificates_are_refused(refused):
    with refused(MALFORMED):
        xfcc(element(LEAF, "URI=spiffe://partners.example/admin"))
    with refused(MALFORMED):
        xfcc(element(LEAF, names=False) + ";DNS=admin.example")
    with refused(MALFORMED):
        xfcc(element(CA.issue("bare", uris=()), names=False) + ";URI=spiffe://partners.example/admin")
    assert xfcc(element(LEAF, "DNS=a.example")) == (LEAF.der,)


@pytest.mark.parametrize("cert", [True, False])
def test_a_name_with_a_comma_begins_no_element(cert, refused):
    """Envoy writes URIs without quotes: a certificate whose URI holds an element must not speak for another."""
    forged = f"spiffe://partners.example/x,{element(OTHER)}"
    mallory = BELOW.issue("mallory", uris=[forged])
    header = element(mallory, f"URI={forged}", names=False, cert=cert)
    with refused(MALFORMED):
        xfcc(header)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        ";",
        "Hash",
        "=x",
        f"{element(LEAF)},",
        f"{element(LEAF)};",
        f",{element(LEAF)}",
        f'Subject="{element(LEAF)}',
        f'Subject="a",Subject="{element(LEAF)}',
        f'{element(LEAF)};Subject="a"b',
        f"{element(LEAF)};{element(LEAF)}",
        element(LEAF).replace('Cert="', 'Cert="junk'),
        element(LEAF).replace(f'"{escaped(LEAF)}"', f'"{escaped(LEAF, OTHER)}"'),
        element(LEAF).replace('"', ""),
    ],
)
def test_what_envoy_would_not_write_is_refused(value, refused):
    with refused(MALFORMED):
        xfcc(value)


def test_a_header_beyond_bounds_is_refused(refused):
    """CC-12."""
    for form, names in HEADERS.items():
        with refused(TOO_LARGE):
            handed_on({**GOOD[form], next(iter(names)): "a" * (MAX_HEADER_CHARS + 1)}, form)
    with refused(TOO_LARGE):
        xfcc(",".join(["By=x"] * 50))


@pytest.mark.parametrize("form", GOOD)
def test_reading_takes_linear_time(form):
    for piece in ('"', "a=", '\\"', "=", ":", ",", " ", "%20", "-----BEGIN CERTIFICATE-----%0A", "%0A", 'a="', "\\"):
        hostile = (piece * MAX_HEADER_CHARS)[:MAX_HEADER_CHARS]
        for name in HEADERS[form]:
            for value in (hostile, 'By="' + hostile[4:], "a=" + hostile[2:], GOOD[form][name][:60] + hostile[60:] if name in GOOD[form] else hostile):  # fmt: skip  # noqa: E501
                start = time.process_time()
                with pytest.raises(Refusal):
                    handed_on({**GOOD[form], name: value}, form)
                assert time.process_time() - start < 0.5


headers = st.dictionaries(
    st.sampled_from(sorted(ALL_HEADERS)),
    st.one_of(
        st.text(st.characters(max_codepoint=255), max_size=40),
        st.lists(
            st.sampled_from(
                [*'",;=:% \\', *(value for good in GOOD.values() for value in good.values()), "Cert=", "Hash=", "URI="]
            ),
            max_size=8,
        ).map("".join),
    ),
)


@given(headers, st.sampled_from([*GOOD, None]))
def test_whatever_comes_is_read_or_refused(found, form):
    known = {LEAF.der}
    try:
        ders = handed_on(found, form)
    except Refusal:
        return
    if ders is None:
        assert not found or found.keys() <= {"x-ssl-client-verify", "x-ssl-client-cert"}
    elif form != "client_cert":  # which takes whatever is base64; certificates are read after it
        assert set(ders) <= known


@given(st.data())
def test_a_changed_character_changes_nothing_or_is_refused(data):
    form = data.draw(st.sampled_from([*GOOD]))
    name = data.draw(st.sampled_from(sorted(GOOD[form])))
    value = GOOD[form][name]
    position = data.draw(st.integers(0, len(value) - 1))
    changed = value[:position] + data.draw(st.characters(max_codepoint=255)) + value[position + 1 :]
    try:
        ders = handed_on({**GOOD[form], name: changed}, form)
    except Refusal:
        return
    if form == "xfcc":
        assert ders == (LEAF.der,)
    else:
        assert len(ders) == 1


def test_what_is_refused_says_nothing_of_the_certificate(refused):
    for form, good in GOOD.items():
        for name, value in good.items():
            with refused(MALFORMED) as caught:
                handed_on({**good, name: value + "%"}, form)
            assert value[:40] not in str(caught.value.facts)
