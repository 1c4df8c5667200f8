"""Keys and entries read by themselves: what a fault says, and that one does not hide another."""

import pytest
import yaml
from pydantic import ValidationError

from sts.options import Section
from sts.settings import model as _all_sections  # noqa: F401 - so that each is known


@pytest.mark.parametrize(
    ("section", "key", "value", "path", "problem", "hint"),
    [
        ("audiences", "ttl", 300, "ttl", "a duration is a whole number and a unit", ""),
        ("audiences", "ttl", "0s", "ttl", "at least 1s", "Maximum lifetime"),
        ("audiences", "ttl", "200d", "ttl", "at most 24h", "at most 24h"),
        ("audiences", "multi", "perhaps", "multi", "must be true or false", "without quotes; yes, no, on and off"),
        ("audiences", "scopes", "a b", "scopes", "must be a list", "The scopes"),
        ("audiences", "scopes", [], "scopes", "must not be empty", "The scopes"),
        ("audiences", "scopes", ["a b"], "scopes[0]", '"a b" does not fit', "The scopes"),
        ("audiences", "claims", ["a"], "claims", "must be a mapping", "CEL per claim"),
        ("audiences", "claims", {"iss": "'me'"}, "claims.iss", "reserved", ""),
        ("audiences", "claims", {"a": 1}, "claims.a", "must be a text", "CEL per claim"),
        ("audiences", "headers", {"User Id": "client.id"}, "headers.User Id", 'an identity header is "X-" and', ""),
        ("audiences", "format", "xml", "format", "\"xml\" is not one of: 'jwt'", "a signed JWT"),
        ("audiences", "format", "txn_token", "format", "`txn_token` is not supported yet", "later release"),
        ("audiences", "format", "jwe", "", "`format: jwe` and `encryption` go together", ""),
        ("audiences", "encryption", {"alg": "dir"}, "encryption.alg", '"dir" is not one of', ""),
        ("audiences", "encryption", {"alg": "RSA1_5"}, "encryption.alg", '"RSA1_5" is not one of', ""),
        ("audiences", "encryption", {"alg": "PBES2-HS256+A128KW"}, "encryption.alg", "is not one of", ""),
        ("audiences", "encryption", {"enc": "A128CBC-HS256"}, "encryption.enc", "is not one of", ""),
        ("audiences", "encryption", {"zip": "DEF"}, "encryption.zip", "unknown key", ""),
        ("audiences", "encryption", {"alg": "ECDH-ES"}, "encryption", "write exactly one of jwks_uri and", ""),
        ("audiences", "encryption", {"jwks_uri": "http://a.example"}, "encryption.jwks_uri", "http is for a", ""),
        ("audiences", "format", ["jwe"], "format", '"list" is not one of', "signed JWT"),
        ("audiences", "algorithm", "HS256", "algorithm", '"HS256" is not one of', "algorithm of the signature"),
        ("audiences", "scope", ["a"], "scope", "unknown key", "did you mean `scopes`?"),
        ("audiences", "zzz", ["a"], "zzz", "unknown key", "known here: algorithm, allow"),
        ("clients", "networks", ["10.0.0.1/8"], "networks[0]", "address range", ""),
        (
            "clients",
            "auth",
            "basic",
            "auth",
            "\"basic\" is not one of: 'secret', 'private_key_jwt', 'tls', 'network', 'access_token'",
            "known here: access_token, network, private_key_jwt, secret, tls",
        ),
        ("clients", "auth", 12, "auth", '"12" is not one of', ""),
        ("clients", "sources", 5, "sources", "must be a list", "The sources whose"),
        ("sources", "type", "vouched", "type", "`vouched` is not supported yet", "later release"),
        ("sources", "type", "saml", "type", "\"saml\" is not one of: 'jwt', 'introspection'", ""),
        ("sources", "algorithms", [], "algorithms", "must not be empty", "The accepted signature"),
        ("sources", "algorithms", ["HS256"], "algorithms[0]", '"HS256" is not one of', "The accepted signature"),
        ("sources", "algorithms", ["none"], "algorithms[0]", '"none" is not one of', "The accepted signature"),
        ("sources", "jwks_uri", "http://idp.example.com/", "jwks_uri", "https", ""),
        ("sources", "jwks_uri", None, "", "exactly one of jwks_uri", ""),
        ("sources", "envelope", {}, "envelope", "`envelope` is not supported yet", "later release"),
        ("routes", "path", "orders", "path", 'a path begins with "/"', ""),
        ("routes", "public", True, "", "no effect", ""),
        ("routes", "methods", ["get"], "methods[0]", '"get" does not fit', "The methods"),
    ],
)
def test_what_is_wrong_in_an_entry_is_told_with_what_would_be_right(  # noqa: PLR0917 - the columns of the table
    base, faults, section, key, value, path, problem, hint
):
    """JK-03, JW-01, JW-03, JW-32."""
    name = next(iter(base[section]))
    base[section][name][key] = value
    place = ".".join(filter(None, (section, name, path)))
    found = {fault.path: fault for fault in faults(base)}
    assert place in found, list(found)
    assert problem in found[place].problem
    assert hint in found[place].hint


@pytest.mark.parametrize(
    ("key", "value", "path", "problem"),
    [
        ("issuer", "https://sts.example.internal/", "issuer", "no trailing slash"),
        ("issuer", "https://sts.example.internal?a", "issuer", "query"),
        ("issuer", "https://sts.example.internal#a", "issuer", "fragment"),
        ("issuer", "http://sts.example.internal", "issuer", "https"),
        ("issuer", "sts", "issuer", "URL"),
        ("issuer", None, "issuer", "missing"),
        ("threads", 0, "threads", "greater than or equal to 1"),
        ("threads", "many", "threads", "must be a whole number"),
        ("workers", 1.5, "workers", "must be a whole number"),
        ("keys", {"rotate_every": "0s"}, "keys.rotate_every", "more than 0s"),
        ("cache", {"memory": 64}, "cache.memory", "a size is a whole number and a unit"),
        ("cache", {"shared": "redis"}, "cache.shared", "`shared` is not supported yet"),
        ("cache", [], "cache", "must be a mapping of settings"),
        ("keys", {"store": "sqlite"}, "keys.store", '"sqlite" is not one of'),
        ("keys", {"store": "vault"}, "keys.store", '"vault" is not one of'),
        ("keys", {"algorithm": "EdDSA"}, "keys.algorithm", '"EdDSA" is not one of'),
        ("keys", {"rotate_evry": "30d"}, "keys.rotate_evry", "unknown key"),
        ("forward_auth", {"token_header": "X-Request-ID"}, "forward_auth.token_header", "reserved name"),
        ("ops_networks", ["0.0.0.0/33"], "ops_networks[0]", "address range"),
        ("ops_networks", [12], "ops_networks[0]", "address range"),
        ("ops_networks", [False], "ops_networks[0]", "address range"),
        ("clients", ["edge"], "clients", "a mapping of names to settings"),
        ("clients", {"edge gateway": {}}, "clients.edge gateway", "cannot be a name"),
        ("audiences", {"*": {}}, "audiences.*", "cannot be a name"),
        ("audiences", {"orders": "5m"}, "audiences.orders", "must be a mapping of settings"),
        ("tables", {"t": {"file": "t.csv"}}, "tables.t", "`key` is missing"),
        ("tables", {"t": {}}, "tables.t", "exactly one of file, redis and url"),
        ("tables", {"t": {"file": "t.csv", "key": "id", "cache_ttl": "5s"}}, "tables.t", "`cache_ttl` does not belong"),
        ("tables", {"t": {"redis": "{key}"}}, "tables.t.redis", "a prefix and the key"),
        ("tables", {"t": {"url": "https://hr.example.com/people"}}, "tables.t", "no place for the key"),
        ("tables", {"t": {"url": "https://{key}.example.com/"}}, "tables.t.url", "path or query"),
        ("tables", {"t": {"url": "https://hr.example.com:{key}/"}}, "tables.t.url", "not a URL"),
        ("tables", {"t": {"url": "http://hr.example.com/{key}"}}, "tables.t.url", "write https"),
        ("tables", {"t": {"url": "https://hr.example.com/{key}", "client_id": "a"}}, "tables.t", "both client_id and"),
        ("listen", {"address": "127.0.0.1:1", "tls": {}}, "listen.tls.cert_file", "`cert_file` is missing"),
        ("include", [5], "include[0]", "must be a text"),
        ("defaults", {"client": []}, "defaults.client", "must be a mapping"),
        ("routess", {}, "routess", "unknown key"),
    ],
)
def test_what_is_wrong_in_a_section_is_told_with_its_path(base, faults, key, value, path, problem):
    """MD-02."""
    base[key] = value
    found = {fault.path: fault.problem for fault in faults(base)}
    assert path in found, list(found)
    assert problem in found[path]


@pytest.mark.parametrize(
    "issuer",
    ["https://sts.example.internal", "https://sts.example.internal/a", "http://127.0.0.1:8080", "http://[::1]:8080"],
)
def test_an_issuer_is_an_https_url_or_http_on_loopback(base, loaded, issuer):
    """MD-02."""
    assert loaded(base | {"issuer": issuer}).issuer == issuer


@pytest.mark.parametrize("written", ["on", "yes", "Y", "1", "0", '"true"', "1.0"])
@pytest.mark.parametrize(
    ("section", "key"),
    [(section, "enabled") for section in ("clients", "sources", "audiences", "routes")]
    + [("audiences", "multi"), ("sources", "discovery"), ("routes", "public"), ("routes", "preflight")],
)
def test_only_true_and_false_are_booleans(base, faults, section, key, written):
    name = next(iter(base[section]))
    text = yaml.safe_dump(base[section][name] | {key: "HERE"}, default_flow_style=True, width=9999)
    base[section][name] = "ENTRY"
    whole = yaml.safe_dump(base).replace("ENTRY", text.strip().replace("HERE", written))
    found = {fault.path: (fault.problem, fault.hint) for fault in faults(whole)}
    assert found[f"{section}.{name}.{key}"] == (
        "must be true or false",
        "without quotes; yes, no, on and off are texts here (YAML 1.2)",
    )


@pytest.mark.parametrize("wrong", [True, "64", 64.0])
@pytest.mark.parametrize("path", ["workers", "threads", "audiences.orders.max_token_bytes"])
def test_only_whole_numbers_are_numbers(base, only_fault, path, wrong):
    *parents, key = path.split(".")
    place = base
    for parent in parents:
        place = place[parent]
    place[key] = wrong
    fault = only_fault(base)
    assert (fault.path, fault.problem, fault.hint) == (path, "must be a whole number", "without quotes")


def test_no_section_takes_a_look_alike():
    sections = [Section]
    for section in sections:
        sections.extend(one for one in section.__subclasses__() if one.__module__.startswith("sts."))
    taken = [
        f"{section.__name__}.{name}"
        for section in sections
        for name, field in section.model_fields.items()
        if field.annotation in {bool, int}
        for wrong in ("1", "64000", "true", 1 if field.annotation is bool else True)
        if not any(detail["loc"][:1] == (name,) for detail in errors(section, {name: wrong}))
    ]
    assert len(sections) > 8
    assert taken == []


def errors(section, values):
    try:
        section.model_validate(values)
    except ValidationError as error:
        return error.errors()
    return []


def test_required_keys_are_told_each_at_the_entry_with_what_they_mean(base, faults):
    base["clients"]["bare"] = {"auth": "secret"}
    found = {fault.path: fault for fault in faults(base)}
    assert {"clients.bare.audiences", "clients.bare.secrets"} <= set(found)
    assert found["clients.bare.audiences"].problem == "`audiences` is missing"
    assert found["clients.bare.audiences"].hint.startswith("Which audiences it may request")
    assert found["clients.bare.audiences"].line == found["clients.bare.secrets"].line > 1


def test_an_entry_that_does_not_say_its_kind_is_asked_for_that_and_nothing_else(base, faults):
    base["sources"]["bare"] = {"identity": 7}
    told = [(fault.path, fault.problem) for fault in faults(base) if fault.path.startswith("sources.bare.")]
    assert ("sources.bare.type", "`type` is missing") in told
    assert not [path for path, _ in told if path.startswith("sources.bare.identity")]


def test_an_entry_of_a_kind_that_is_not_built_has_one_fault_only(base, faults):
    base["sources"]["opaque"] = {
        "type": "vouched",
        "endpoint": "https://as.example.com",
        "match": {"prefix": "a"},
    }
    assert [fault.path for fault in faults(base) if "opaque" in fault.path and "not supported" in fault.problem] == [
        "sources.opaque.type"
    ]


def test_a_fault_in_one_section_does_not_hide_the_checks_across_the_others(base, faults):
    base["threads"] = "many"
    base["clients"]["edge"]["audiences"] = ["orders", "nowhere"]
    base["audiences"]["orders"]["allow"] = "identity.rolse == []"
    assert {"threads", "clients.edge.audiences[1]", "audiences.orders.allow"} <= {fault.path for fault in faults(base)}


def test_an_empty_entry_is_an_entry_with_nothing_but_defaults(base, loaded):
    base["audiences"]["billing"] = {}
    assert loaded(base).audiences["billing"].ttl == 300


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("clients: {edge: {networks: }}", "clients.edge.networks"),
        ("clients: {edge: {networks: [127.0.0.0/8, ~]}}", "clients.edge.networks[1]"),
        ("clients: {edge: {sources: null}}", "clients.edge.sources"),
        ("sources: {idp: {require: }}", "sources.idp.require"),
        ("sources: {idp: {max_age: ~}}", "sources.idp.max_age"),
        ("sources: {idp: {identity: {roles: }}}", "sources.idp.identity.roles"),
        ("audiences: {orders: {allow: }}", "audiences.orders.allow"),
        ("audiences: {orders: {ttl: }}", "audiences.orders.ttl"),
        ("audiences: {orders: {claims: }}", "audiences.orders.claims"),
        ("audiences: {orders: }", "audiences.orders"),
        ("routes: {orders: {methods: }}", "routes.orders.methods"),
        ("routes: {orders: {host: }}", "routes.orders.host"),
        ("cache: {min_remaining: }", "cache.min_remaining"),
        ("listen: {address: 127.0.0.1:1, transport: }", "listen.transport"),
        ("audit: {file: }", "audit.file"),
        ("include: [~]", "include[0]"),
        ("defaults: {audience: {allow: }}", "defaults.audience.allow"),
        ("defaults: {audience: }", "defaults.audience"),
    ],
)
def test_a_key_with_nothing_behind_it_is_a_fault_and_told_once(base, only_fault, text, path):
    """`allow:` whose rule is commented out must not open what it was written to close."""

    def merge(into, more):
        for key, value in more.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                merge(into[key], value)
            else:
                into[key] = value

    merge(base, yaml.safe_load(text))
    fault = only_fault(base)
    assert fault.path == path
    assert fault.problem == "is empty"
    assert fault.hint.startswith("write a value or leave the key out")


def test_a_rule_that_is_commented_out_is_told_with_its_line(base, faults):
    base["audiences"] = {}
    text = yaml.safe_dump(base).replace("audiences: {}\n", "")
    found = faults("audiences:\n  orders:\n    allow:\n      # \"'admin' in identity.roles\"\n" + text)
    assert [(fault.line, fault.path) for fault in found if fault.problem == "is empty"] == [
        (3, "audiences.orders.allow")
    ]


def test_an_empty_key_does_not_fall_back_to_the_default(base, only_fault):
    base["defaults"] = {"audience": {"allow": "'admin' in identity.roles"}}
    base["audiences"]["orders"]["allow"] = None
    assert only_fault(base).path == "audiences.orders.allow"


def test_an_empty_key_of_an_included_file_is_a_fault_there(base, only_fault):
    base["include"] = ["more.yaml"]
    fault = only_fault(base, more_yaml="audiences:\n  billing:\n    allow:\n")
    assert (fault.file.endswith("more.yaml"), fault.line, fault.path) == (True, 3, "audiences.billing.allow")


def test_a_section_left_empty_is_an_empty_section(base, loaded):
    base["routes"] = None
    base["cache"] = None
    settings = loaded(base)
    assert settings.routes == {}
    assert settings.cache.memory == 64_000_000


def test_a_value_that_fits_none_of_several_forms_is_told_once(base, only_fault):
    base["clients"]["edge"]["networks"] = [{}]
    assert only_fault(base).path == "clients.edge.networks[0]"
