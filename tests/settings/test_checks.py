"""What only the whole configuration can be judged by."""

import copy

import pytest


def by_path(faults):
    return {fault.path: fault for fault in faults}


def test_the_bases_of_these_tests_are_right(base, two_sources, loaded):
    loaded(base)
    loaded(two_sources)


@pytest.mark.parametrize(
    ("section", "key", "value", "path", "problem", "hint"),
    [
        ("clients", "audiences", ["ordres"], "audiences[0]", "there is no audience", "did you mean `orders`?"),
        ("clients", "sources", ["idq"], "sources[0]", "there is no source", "did you mean `idp`?"),
        ("clients", "actors", ["*", "idq"], "actors[1]", "there is no source", "did you mean `idp`?"),
        ("clients", "default_audience", "ordres", "default_audience", "there is no audience", "did you mean"),
        ("sources", "audiences", ["*", "billing"], "audiences[1]", "there is no audience", "known here: orders"),
        ("routes", "audience", "billing", "audience", "there is no audience", "known here: orders"),
        ("clients", "profile", "envoy", "profile", "`envoy` is not supported yet", "later release"),
        ("clients", "profile", "apache", "profile", 'there is no profile "apache"', "nginx"),
        (
            "routes",
            "scopes",
            ["orders:wirte"],
            "scopes[0]",
            "not a scope of the audience",
            "did you mean `orders:write`?",
        ),
        ("routes", "scopes", None, "scopes", "must be written", "orders:read, orders:write"),
    ],
)
def test_names_that_lead_nowhere_are_faults(  # noqa: PLR0917 - the columns of the table
    base, faults, section, key, value, path, problem, hint
):
    name = next(iter(base[section]))
    base[section][name][key] = value
    fault = by_path(faults(base))[f"{section}.{name}.{path}"]
    assert problem in fault.problem
    assert hint in fault.hint


def test_a_default_audience_must_be_one_that_the_client_may_ask_for(base, only_fault, loaded):
    base["audiences"]["billing"] = {}
    base["clients"]["edge"]["default_audience"] = "billing"
    assert "not one of the client's" in only_fault(base).problem
    base["clients"]["edge"]["audiences"] = ["*"]
    loaded(base)


def test_a_star_is_no_default_audience_and_no_audience_of_a_route(base, faults):
    base["clients"]["edge"]["default_audience"] = "*"
    assert "clients.edge.default_audience" in by_path(faults(base))


def test_names_of_faulty_and_disabled_entries_exist(base, faults, loaded):
    base["audiences"]["orders"]["enabled"] = False
    loaded(base)
    base["audiences"]["orders"]["ttl"] = "soon"
    assert set(by_path(faults(base))) == {"audiences.orders.ttl"}


def test_a_route_to_an_audience_without_scopes_names_none(base, only_fault, loaded):
    del base["audiences"]["orders"]["scopes"]
    assert "has no scopes" in only_fault(base).problem
    del base["routes"]["orders"]["scopes"]
    loaded(base)


@pytest.mark.parametrize(
    ("section", "name", "key"),
    [
        *(("clients", "edge", "sources"), ("sources", "idp", "audiences"), ("sources", "other", "audiences")),
        *(("sources", "idp", "namespace"), ("sources", "other", "namespace")),
    ],
)
def test_from_two_sources_on_every_part_of_the_consent_is_written(two_sources, only_fault, section, name, key):
    del two_sources[section][name][key]
    fault = only_fault(two_sources)
    assert (fault.path, fault.problem[:15]) == (f"{section}.{name}.{key}", "must be written")


def test_a_second_source_counts_even_if_it_is_disabled_or_included(base, faults):
    second = copy.deepcopy(base["sources"]["idp"]) | {"issuer": "https://b.example.com", "enabled": False}
    missing = {"clients.edge.sources", "sources.idp.audiences", "sources.idp.namespace"}
    assert missing <= set(by_path(faults(base | {"sources": base["sources"] | {"other": second}})))
    included = {"sources": {"other": second}}
    assert missing <= set(by_path(faults(base | {"include": ["more.yaml"]}, more_yaml=included)))


def test_a_second_source_counts_even_if_it_is_not_supported_yet(base, faults):
    base["sources"]["keys"] = {"type": "api_key"}
    assert "clients.edge.sources" in by_path(faults(base))


def test_one_source_needs_no_consent_in_writing(base, loaded):
    assert loaded(base).sources["idp"].audiences is None


def test_two_sources_share_a_namespace_only_if_both_say_that_their_subjects_are_the_same(two_sources, faults, loaded):
    first, second = two_sources["sources"].values()
    second["namespace"] = ""
    assert {"sources.idp.namespace", "sources.other.namespace"} == set(by_path(faults(two_sources)))
    first["same_subjects"] = True
    assert {"sources.other.namespace"} == set(by_path(faults(two_sources)))
    second["same_subjects"] = True
    loaded(two_sources)


def test_two_sources_with_one_issuer_are_told_with_the_other_place(two_sources, only_fault):
    two_sources["sources"]["other"]["issuer"] = "https://idp.example.com"
    fault = only_fault(two_sources)
    assert fault.path == "sources.other.issuer"
    assert "sts.yaml:" in fault.problem


def test_our_own_issuer_is_no_source(base, only_fault):
    base["sources"]["idp"]["issuer"] = base["issuer"]
    assert "our own issuer" in only_fault(base).problem


def test_two_audiences_with_one_aud_are_refused(base, only_fault):
    base["audiences"]["orders"]["aud"] = "https://a.example"
    base["audiences"]["billing"] = {"aud": "https://a.example"}
    assert only_fault(base).path == "audiences.billing.aud"


def test_an_aud_that_is_the_name_of_another_audience_is_refused_in_both_orders(base, only_fault):
    base["audiences"]["billing"] = {"aud": "orders"}
    assert only_fault(base).path == "audiences.billing.aud"
    base["audiences"] = dict(reversed(base["audiences"].items()))
    assert only_fault(base).path == "audiences.billing.aud"


def test_an_aud_that_is_its_own_name_is_fine(base, loaded):
    base["audiences"]["orders"]["aud"] = "orders"
    loaded(base)


def test_routes_that_tie_are_told_with_the_other_place(base, only_fault):
    base["routes"]["twin"] = {"path": "/orders/**", "audience": "orders", "scopes": ["orders:write"]}
    fault = only_fault(base)
    assert fault.path == "routes.twin"
    assert "route orders" in fault.problem
    assert "sts.yaml:" in fault.problem


def test_two_clients_do_not_share_a_secret_and_the_fault_does_not_show_it(base, only_fault):
    base["clients"]["other"] = {"auth": "secret", "secrets": ["sha256:" + "a" * 64], "audiences": ["orders"]}
    fault = only_fault(base)
    assert fault.path == "clients.other.secrets[0]"
    assert "edge" in fault.problem
    assert "aaaa" not in str(fault)


def test_one_secret_written_twice_is_no_second_secret(base, only_fault):
    base["clients"]["edge"]["secrets"] = ["sha256:" + "a" * 64] * 2
    assert only_fault(base).path == "clients.edge.secrets[1]"


@pytest.mark.parametrize(
    "header",
    [
        *("X-Accel-Redirect", "X-Forwarded-User", "X-Original-URI", "X-Gateway-Secret", "X-Request-ID"),
        *("X-Auth-Reason", "X-Token-Expires-At", "x-request-id", "X-REQUEST-ID"),
    ],
)
def test_an_identity_header_with_another_meaning_is_refused(base, only_fault, header):
    base["audiences"]["orders"]["headers"] = {header: "identity.subject"}
    assert only_fault(base).path == f"audiences.orders.headers.{header}"


def test_the_token_header_is_no_identity_header(base, only_fault):
    base["forward_auth"] = {"token_header": "X-Internal-Token"}
    base["audiences"]["orders"]["headers"] = {"X-internal-token": "identity.subject"}
    assert "token_header" in only_fault(base).problem


def test_two_headers_that_differ_in_case_only_are_refused_across_audiences(base, only_fault):
    base["audiences"]["orders"]["headers"] = {"X-User": "identity.subject"}
    base["audiences"]["billing"] = {"headers": {"X-USER": "identity.subject"}}
    assert only_fault(base).path == "audiences.billing.headers.X-USER"


def test_one_header_in_two_audiences_is_fine(base, loaded):
    base["audiences"]["orders"]["headers"] = base["audiences"]["orders"].get("headers", {}) | {"X-User": "client.id"}
    base["audiences"]["billing"] = {"headers": {"X-User": "identity.subject"}}
    loaded(base)


@pytest.mark.parametrize(("ttl", "least"), [("5m", "5m"), ("1m", "2m"), ("1s", "1000ms")])
def test_a_life_in_the_cache_that_no_token_has_is_a_fault(base, only_fault, ttl, least):
    """It would switch the cache off without a word."""
    base["audiences"] = {
        "once": {"ttl": "1h", "reuse": "unique"},
        "short": {"ttl": "1s"},
        "orders": base["audiences"]["orders"] | {"ttl": ttl},
    }
    base["cache"] = {"min_remaining": least}
    fault = only_fault(base)
    assert fault.path == "cache.min_remaining"
    assert f"not below the longest ttl, {ttl} of " in fault.problem
    assert f"less than {ttl}" in fault.hint


def test_a_life_in_the_cache_below_the_longest_ttl_is_right_and_so_is_any_where_nothing_is_cached(base, loaded):
    base["audiences"] |= {"short": {"ttl": "1s"}}
    base["cache"] = {"min_remaining": "299s"}
    assert loaded(base).cache.min_remaining == 299
    base["audiences"]["orders"]["enabled"] = False  # to disable an audience must always be possible
    assert loaded(base).cache.min_remaining == 299
    base["cache"] = {"min_remaining": "1h"}
    for audience in base["audiences"].values():
        audience["reuse"] = "unique"
    assert loaded(base).cache.min_remaining == 3600


def test_the_longest_ttl_is_not_judged_where_an_audience_is_faulty(base, only_fault):
    base["audiences"]["long"] = {"ttl": "1h", "typ": "jwt"}
    base["cache"] = {"min_remaining": "10m"}
    assert only_fault(base).path == "audiences.long.typ"


def test_the_ttl_that_is_taken_where_none_is_written_counts_as_well(base, only_fault):
    del base["audiences"]["orders"]["ttl"]
    base["cache"] = {"min_remaining": "5m"}
    assert only_fault(base).path == "cache.min_remaining"


def test_a_backend_is_named_and_never_all_of_them(base, faults):
    base["clients"]["edge"]["backend_of"] = ["orders", "*"]
    assert [fault.path for fault in faults(base)] == ["clients.edge.backend_of[1]"]


@pytest.mark.parametrize("theirs", ["sk_live_", "sk_", "sk_live_x"])
def test_an_opaque_token_cannot_begin_as_an_api_key_does(two_sources, only_fault, theirs):
    """Such a token would be nobody's: what begins as a key is never sent to another server."""
    shared = {"audiences": ["orders"], "audience": "api", "client_id": "sts", "client_secret": "a-secret"}
    two_sources["sources"] = {
        "keys": {
            "type": "api_key",
            "prefix": "sk_live_",
            "audiences": ["orders"],
            "namespace": "key",
            "identity": {"subject": "key.owner", "scopes": "key.scopes"},
        },
        "opaque": {
            **shared,
            "type": "introspection",
            "endpoint": "https://as.example.com/introspect",
            "issuer": "https://as.example.com",
            "match": {"prefix": theirs},
            "namespace": "opaque",
            "identity": {"subject": "claims.sub"},
        },
    }
    fault = only_fault(two_sources)
    assert fault.path == "sources.opaque.match.prefix"
    assert "overlap" in fault.problem
