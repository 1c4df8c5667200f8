"""Rules compiled, files read, numbers fitting, before anything starts."""

import json

import pytest
import trustme
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm


def at(config, path, value):
    *parents, key = path.split(".")
    for parent in parents:
        config = config.setdefault(parent, {})
    config[key] = value


@pytest.mark.parametrize(
    ("path", "rule", "problem"),
    [
        ("sources.idp.require", "claims.a ==", "not a valid rule"),
        ("sources.idp.require", "identity.subject == 'a'", "identity"),
        ("sources.idp.require", "'a'", "true or false"),
        ("sources.idp.identity.tenant", "claim.tenant", "claim"),
        ("sources.idp.identity.subject", "claims.sub + ", "not a valid rule"),
        ("audiences.orders.allow", "identity.rolse.size() > 0", "did you mean `roles`?"),
        ("audiences.orders.allow", "claims.sub == 'a'", "claims"),
        ("sources.idp.identity.subject", "claims.iat", "it fails whatever `claims.iat` may be"),
        ("sources.idp.identity.scopes", "true", "of a type that cannot be used here"),
        ("sources.idp.require", "claims.sub || false", "types do not fit"),
        ("audiences.orders.claims.x", "identity.roles + 'x'", "types do not fit"),
        ("audiences.orders.headers.X-X", "{'a': identity.subject}", "types do not fit"),
        ("routes.orders.allow", "identity.scopes.startsWith('a')", "types do not fit"),
        ("audiences.orders.allow", "request.uri == '/'", "`request` has no `uri`"),
        ("audiences.orders.allow", "client.name == 'a'", "`client` has no `name`"),
        ("audiences.orders.allow", "route.path == 'a'", "`route` has no `path`"),
        ("audiences.orders.allow", "1 + 1", "true or false"),
        ("audiences.orders.claims.tenant", "identity.tenant", "`identity` has no `tenant`"),
        ("audiences.orders.headers.X-User", "identity.", "not a valid rule"),
        ("routes.orders.allow", "identity.rolse == []", "`identity` has no `rolse`"),
        ("audiences.orders.shadow", "identity.rolse == []", "did you mean `roles`?"),
        ("audiences.orders.shadow", "'a'", "true or false"),
        ("audiences.orders.shadow", "lookup('staff', identity.subject).id == 1", "must not look up a table"),
        ("audiences.orders.claims.staff", "lookup('staff', identity.subject).id", 'there is no table "staff"'),
        ("sources.idp.identity.subject", "lookup(claims.t, claims.sub).id", "the table of `lookup`"),
        ("routes.orders.allow", "ip_in(request.ip, '10.0.0.1/8')", "has host bits set"),
        ("routes.orders.allow", "ip_in(request.ip, ['10.0.0.0/8', 'home'])", "range of addresses"),
        ("audiences.orders.allow", "identity.subject.matches('(')", "no regular expression of RE2: missing )"),
        ("audiences.orders.allow", "identity.subject.matches(client.id)", "must stand there as a text"),
        ("audiences.orders.claims.x", "'%s'.format([identity.subject])", "`format` is not supported here"),
        ("routes.orders.allow", "google.protobuf.BoolValue{value: true} == true", "messages such as"),
        ("routes.orders.allow", "timestamp(now).getHours('Berlin') > 8", "there is no time zone `Berlin`"),
    ],
)
def test_a_rule_that_cannot_work_is_a_fault_at_its_own_path_and_line(base, only_fault, path, rule, problem):
    at(base, path, rule)
    fault = only_fault(base)
    assert fault.path == path
    assert problem in f"{fault.problem} {fault.hint}"
    text = yaml.safe_dump(base, sort_keys=False).splitlines()
    assert text[fault.line - 1].strip().startswith(path.rpartition(".")[2])


@pytest.fixture
def with_table(base, tmp_path):
    (tmp_path / "staff.csv").write_text("login,id,site\nalice,E7,home\n")
    base["tables"] = {
        "staff": {"file": "staff.csv", "key": "login"},
        "hr": {"url": "https://hr.example.com/{key}", "client_id": "sts", "client_secret": "hush"},
    }
    return base


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("sources.idp.identity.subject", "lookup('staff', claims.sub).id"),
        ("sources.idp.require", "lookup('staff', claims.sub).site == 'home'"),
        ("audiences.orders.claims.id", "lookup('staff', identity.subject).?id"),
        ("audiences.orders.headers.X-Id", "lookup('hr', identity.subject).whatever"),
        ("audiences.orders.allow", "size(lookup('staff', identity.subject)) > 0"),
        ("routes.orders.allow", "has(lookup('staff', identity.subject).site)"),
    ],
)
def test_rules_may_look_rows_up(with_table, loaded, path, rule):
    at(with_table, path, rule)
    loaded(with_table)


@pytest.mark.parametrize(
    ("path", "rule", "problem"),
    [
        ("sources.idp.identity.subject", "lookup('stuff', claims.sub).id", "did you mean `staff`?"),
        ("sources.idp.identity.subject", "lookup('staff', claims.sub).ids", "did you mean `id`?"),
        ("audiences.orders.allow", "has(lookup('staff', identity.subject).place)", 'no column "place"'),
        ("audiences.orders.claims.x", "lookup('staff', identity.subject)['nam']", 'no column "nam"'),
        ("audiences.orders.shadow", "lookup('staff', identity.subject).id == ''", "must not look up a table"),
    ],
)
def test_a_table_or_column_that_is_not_there_is_a_fault_where_it_is_read(with_table, only_fault, path, rule, problem):
    at(with_table, path, rule)
    fault = only_fault(with_table)
    assert fault.path == path
    assert problem in f"{fault.problem} {fault.hint}"


def test_a_table_that_cannot_be_used_is_one_fault_at_its_file(with_table, only_fault, tmp_path):
    (tmp_path / "staff.csv").write_text("login,id\nalice,E7\nalice,E8\n")
    at(with_table, "sources.idp.identity.subject", "lookup('staff', claims.sub).whatever")
    fault = only_fault(with_table)
    assert fault.path == "tables.staff.file"
    assert "line 3 has the same key as a row above it" in fault.problem


def test_a_tables_content_is_part_of_the_configuration(with_table, loaded, tmp_path):
    before = loaded(with_table)
    (tmp_path / "staff.csv").write_text("login,id,site\nalice,E8,home\n")
    after = loaded(with_table)
    changed = {name for name, found in after.fingerprints().items() if before.fingerprints()[name] != found}
    assert changed == {"table/staff"}
    assert before.revision != after.revision


def test_rules_may_read_what_any_source_gives_a_faulty_or_disabled_one_too(two_sources, loaded, faults):
    two_sources["sources"]["other"]["identity"]["tenant"] = "claims.tid"
    two_sources["sources"]["other"]["enabled"] = False
    two_sources["audiences"]["orders"]["claims"] = {"tenant": "identity.tenant", "all": "identity.scopes"}
    loaded(two_sources)
    two_sources["sources"]["other"]["leeway"] = "9h"
    assert [fault.path for fault in faults(two_sources)] == ["sources.other.leeway"]


def test_a_source_maps_the_subject(base, only_fault):
    del base["sources"]["idp"]["identity"]["subject"]
    fault = only_fault(base)
    assert (fault.path, fault.problem) == ("sources.idp.identity.subject", "`subject` is missing")


@pytest.fixture
def from_file(base):
    del base["sources"]["idp"]["jwks_uri"]
    base["sources"]["idp"]["jwks_file"] = "idp_json.json"
    return base


def jwks(*keys):
    return json.dumps({"keys": list(keys)})


def test_a_jwks_file_with_a_fitting_key_is_taken(from_file, loaded, tmp_path):
    key = json.loads(RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048).public_key()))
    (tmp_path / "idp_json.json").write_text(jwks(key))
    assert loaded(from_file).sources["idp"].jwks_file.path == tmp_path / "idp_json.json"


def test_a_jwks_file_that_cannot_be_used_is_a_fault(from_file, only_fault, tmp_path):
    file = tmp_path / "idp_json.json"
    assert "cannot be read" in only_fault(from_file).problem
    file.write_text("{}")
    assert "cannot be used" in only_fault(from_file).problem
    key = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
    file.write_text(jwks(key))  # the source allows RS256 only
    fault = only_fault(from_file)
    assert fault.path == "sources.idp.jwks_file"
    assert "no usable key" in fault.problem


def test_a_ca_file_holds_certificates(base, only_fault, loaded, tmp_path):
    base["sources"]["idp"]["ca_file"] = "ca.pem"
    assert only_fault(base).path == "sources.idp.ca_file"
    (tmp_path / "ca.pem").write_text("not a certificate")
    assert only_fault(base).path == "sources.idp.ca_file"
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    loaded(base)


def test_a_schedule_that_cannot_fit_the_longest_ttl_is_a_fault(base, only_fault, loaded):
    """RO-04. Lesson R.2 (Vault #11438)."""
    base["keys"] = {"rotate_every": "1h"}
    fault = only_fault(base)
    assert fault.path == "keys"
    assert "rotate_every" in fault.problem
    base["keys"] = {"rotate_every": "2h"}
    loaded(base)
    base["audiences"]["long"] = {"ttl": "2h"}
    assert "longest ttl 2h" in only_fault(base).problem


@pytest.mark.parametrize("claim", ["auth_time", "acr", "amr"])
def test_no_mapping_writes_what_evidence_takes_from_the_credential(base, only_fault, loaded, claim):
    """JW-32, AT-05."""
    orders = base["audiences"]["orders"]
    orders["claims"] = {claim: "identity.subject"}
    assert loaded(base)
    orders["evidence"] = True
    fault = only_fault(base)
    assert fault.path == f"audiences.orders.claims.{claim}"
    assert "from the credential" in fault.problem


def test_the_claim_evidence_is_never_mapped(base, only_fault):
    base["audiences"]["orders"]["claims"] = {"evidence": "identity.subject"}
    assert "is reserved" in only_fault(base).problem
