"""From a file to settings: the contract's configurations, includes, defaults, places and the environment."""

import copy
import json
import pickle
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
import trustme
import yaml
from harness import Key
from recipient import Pair, jwks

from sts.labels import DeploymentSecret
from sts.settings import SettingsError, changes_needing_restart, effective, load
from sts.settings.loading import NEEDS_RESTART

SECRET = "A" * 43


def test_the_smallest_useful_configuration_loads_as_it_stands(data):
    settings = load(data / "minimal.yaml", {})
    assert settings.issuer == "https://sts.example.internal"
    assert settings.listen.bind == "127.0.0.1:8080"
    assert settings.audiences["orders"].ttl == 300
    assert settings.var == data.absolute() / "var"
    assert settings.longest_ttl() == 300
    assert settings.threads == 64
    assert settings.secret is None


NOT_BUILT = {
    *("trust_domain", "cache.shared", "security_events"),
    *("clients.edge-gateway.gateway_cache", "clients.mesh-gateway.profile"),
    *("clients.sidecar.may_vouch", "sources.split-tokens.envelope"),
    *("sources.webhooks.type", "sources.field-devices.type"),
    "sources.gateway-session.type",
}

SECRETS = dict.fromkeys(("LEGACY_AS_SECRET", "REDIS_PASSWORD", "HR_SECRET"), "hush") | {"STS_SECRET": "0a" * 32}
"""The environment that it names."""


@pytest.fixture
def full(data, tmp_path):
    """The full configuration as it stands, with the files that it names."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "employees.csv").write_text("external_id,employee_id\nalice,E7\n")
    (tmp_path / "billing.enc.jwks.json").write_text(json.dumps(jwks(Pair())))
    (tmp_path / "batch-gateway.jwks.json").write_text(json.dumps({"keys": [Key("batch", "ES256").jwk]}))
    (tmp_path / "mesh-ca.pem").write_bytes(trustme.CA().cert_pem.bytes())
    path = tmp_path / "sts.yaml"
    path.write_text((data / "full.yaml").read_text())
    return path


def test_everything_of_the_full_configuration_that_is_not_built_is_refused_by_name(full):
    with pytest.raises(SettingsError) as caught:
        load(full, SECRETS)
    lines = full.read_text().splitlines()
    later = {fault.path: fault for fault in caught.value.faults if "not supported yet" in fault.problem}
    assert set(later) == NOT_BUILT
    for path, fault in later.items():
        name = fault.problem.split("`")[1]
        assert name in lines[fault.line - 1], (path, fault.line)
    # beside those only what no file of this machine can satisfy
    elsewhere = {"sources.corporate-idp.ca_file", "redis.password", "redis.ca_file", "secret", "state.store"}
    elsewhere |= {"sources.partner-certificates.ca_file", "sources.partner-certificates.crl_file"}
    elsewhere |= {"keys.seal_keys[0]", "tables.hr.client_secret"}
    assert {fault.path for fault in caught.value.faults} - NOT_BUILT <= elsewhere


def test_the_full_configuration_less_what_is_not_built_loads(full, partner_ca):
    config = yaml.safe_load(full.read_text())
    for section in ("clients", "sources"):
        for name in [
            path.split(".")[1] for path in NOT_BUILT if path.startswith(section) and path.endswith(("auth", "type"))
        ]:
            config[section].pop(name)
    for path in NOT_BUILT:
        *parents, key = path.split(".")
        place = config
        for parent in parents:
            place = place.get(parent, {})
        place.pop(key, None)
    for client in config["clients"].values():
        client["sources"] = [name for name in client["sources"] if name in config["sources"]]
    config["sources"]["corporate-idp"].pop("ca_file")
    config["redis"].pop("ca_file")
    config["sources"]["partner-certificates"]["ocsp"] = "off"  # which this reader takes for a boolean
    (full.parent / "partner-ca.pem").write_text(partner_ca.pem)
    (full.parent / "partner.crl.pem").write_bytes(partner_ca.crl())
    config["secret"] = {"env": "STS_SECRET"}  # a table is in Redis, so that one has to be given
    config["keys"].pop("seal_keys")
    full.write_text(yaml.safe_dump(config))
    settings = load(full, SECRETS)
    assert set(settings.sources) == {
        "partner-keys",
        "corporate-idp",
        "legacy-as",
        "split-tokens",
        "partner-certificates",
    }
    assert settings.audiences["billing"].ttl == 120
    assert settings.audiences["billing"].encryption.alg == "ECDH-ES+A256KW"
    assert settings.audit.file == full.parent / "var" / "audit.jsonl"
    assert settings.cache.min_remaining == 30


def test_every_fault_is_told_at_once_each_with_its_line(faults):
    found = faults(
        "issuer: http://sts.example.internal\n"
        "treads: 3\n"
        "clients:\n"
        "  edge:\n"
        "    auth: secret\n"
        "    secrets: [sha256:12]\n"
        "    audiences: [orderz]\n"
        "  twin: {auth: secret, secrets: ['sha256:" + "0" * 64 + "'], audiences: [orderz]}\n"
        "audiences:\n"
        "  orders: {ttl: 5, scops: [a]}\n"
        "  orders: {}\n"
        "  billing: {ttl: 5 minutes}\n"
        "routes:\n"
        "  a: {path: /a, audience: billing, methods: [get]}\n"
    )
    assert [(fault.line, fault.path) for fault in found] == [
        (1, "issuer"),
        (2, "treads"),
        (6, "clients.edge.secrets[0]"),
        (8, "clients.twin.audiences[0]"),
        (10, "audiences.orders.ttl"),
        (10, "audiences.orders.scops"),
        (11, "audiences.orders"),
        (12, "audiences.billing.ttl"),
        (14, "routes.a.methods[0]"),
    ]
    said = {fault.path: fault for fault in found}
    assert said["treads"].hint == "did you mean `threads`?"
    assert said["audiences.orders.scops"].hint == "did you mean `scopes`?"
    assert said["clients.twin.audiences[0]"].hint == "did you mean `orders`?"
    assert "sts clients secret" in str(said["clients.edge.secrets[0]"])


def test_a_missing_issuer_is_a_fault_even_in_an_empty_file(only_fault):
    fault = only_fault("")
    assert (fault.line, fault.path) == (1, "issuer")


def test_a_fault_of_yaml_is_told_alone_but_of_every_file(faults):
    found = faults("include: [conf.d/*.yaml]\nissuer: x\nbogus: 1\n", **{"conf.d__a_yaml": "a: [\n"})
    assert [(Path(fault.file).name, fault.problem[:17]) for fault in found] == [("a.yaml", "is not valid YAML")]


def test_an_include_adds_entries_and_keeps_their_places(base, loaded, faults):
    audiences = base.pop("audiences")
    base["include"] = ["conf.d/*.yaml", "more.yaml"]
    beside = {
        "conf.d__one_yaml": {"audiences": audiences},
        "more_yaml": "routes:\n  health: {path: /health, public: true}\n",
    }
    settings = loaded(base, **beside)
    assert set(settings.routes) == {"orders", "health"}
    assert settings.audiences["orders"].ttl == 300
    beside["more_yaml"] = "\nroutes:\n  health: {path: /health, publik: true}\n"
    assert ("more.yaml", 3, "routes.health.publik") in [
        (Path(fault.file).name, fault.line, fault.path) for fault in faults(base, **beside)
    ]


def test_a_name_defined_in_two_files_is_told_with_both_places(base, only_fault):
    base["include"] = "more.yaml"
    fault = only_fault(base, more_yaml="# a comment\naudiences:\n  orders: {ttl: 1h}\n")
    assert (Path(fault.file).name, fault.line, fault.path) == ("more.yaml", 3, "audiences.orders")
    assert "defined twice" in fault.problem
    assert "sts.yaml:" in fault.hint


def test_an_included_file_holds_entries_only(base, faults):
    base["include"] = ["more.yaml"]
    found = faults(base, more_yaml="issuer: https://evil.example.com\ninclude: [x.yaml]\nclients: [a]\n")
    assert [(fault.line, fault.path) for fault in found] == [(1, "issuer"), (2, "include"), (3, "clients")]
    assert "clients, sources, audiences, routes, tables" in found[0].hint


def test_a_pattern_may_match_nothing_but_a_plain_name_must_be_there(base, loaded, only_fault, tmp_path):
    (tmp_path / "conf.d").mkdir()
    base["include"] = ["conf.d/*.yaml"]
    assert loaded(base).include == ("conf.d/*.yaml",)
    base["include"] = ["conf.d/*.yaml", "more.yaml"]
    fault = only_fault(base)
    assert fault.path == "include[1]"
    assert "more.yaml" in fault.problem


@pytest.mark.parametrize("pattern", ["conf.d/*.yaml", "conf.d/*/x.yaml", "/nowhere/at/all/*.yaml", "sts.yaml/*"])
def test_a_pattern_whose_directory_is_not_there_is_a_fault(base, only_fault, pattern):
    """A directory misspelt, or not mounted, would drop its entries without a word."""
    base["include"] = ["*.yml", pattern]
    fault = only_fault(base)
    assert fault.path == "include[1]"
    assert f"{pattern.partition('/*')[0]} cannot be read" in fault.problem


def test_a_directory_that_a_pattern_itself_looks_for_may_be_missing(base, loaded):
    base["include"] = ["conf*/*.yaml", "*.yml", "./[a-z].yaml"]
    assert set(loaded(base).audiences) == {"orders"}


def test_a_file_that_two_patterns_match_is_read_once_and_the_file_itself_never(base, loaded):
    base["include"] = ["*.yaml", "more.yaml", "./more.yaml"]
    assert "health" in loaded(base, more_yaml="routes: {health: {path: /health, public: true}}\n").routes


def test_an_empty_included_file_is_no_fault(base, loaded):
    base["include"] = ["more.yaml"]
    loaded(base, more_yaml="# nothing yet\n")
    loaded(base, more_yaml="routes:\n")


def test_an_included_file_may_hold_tables_and_their_faults_are_told_there(base, only_fault):
    base["include"] = ["more.yaml"]
    fault = only_fault(base, more_yaml="tables:\n  staff: {file: x.csv, key: id}\n")
    assert (Path(fault.file).name, fault.line, fault.path) == ("more.yaml", 2, "tables.staff.file")
    assert "cannot be read" in fault.problem


def test_defaults_reach_every_entry_and_an_entry_wins_as_a_whole(base, loaded):
    base["defaults"] = {"audience": {"ttl": "10m", "scopes": ["a"], "claims": {"a": "identity.roles"}}}
    base["audiences"] = {"orders": {"scopes": ["orders:read"], "claims": {"b": "identity.roles"}}, "billing": {}}
    settings = loaded(base)
    assert (settings.audiences["orders"].ttl, settings.audiences["orders"].scopes) == (600, ("orders:read",))
    assert settings.audiences["orders"].claims == {"b": "identity.roles"}
    assert settings.audiences["billing"].claims == {"a": "identity.roles"}


def test_defaults_reach_included_entries_and_may_give_what_is_required(base, loaded):
    base["include"] = ["more.yaml"]
    base["defaults"] = {"client": {"auth": "secret", "audiences": ["orders"]}}
    del base["clients"]["edge"]["auth"], base["clients"]["edge"]["audiences"]
    settings = loaded(base, more_yaml={"clients": {"other": {"secrets": ["sha256:" + "b" * 64]}}})
    assert settings.clients["other"].audiences == settings.clients["edge"].audiences == ("orders",)


def test_a_fault_in_a_default_is_told_once_and_where_it_is_written(base, faults):
    base["audiences"]["billing"] = {"scopes": ["a"]}
    base["audiences"]["orders"].pop("ttl")
    text = "defaults:\n  audience:\n    ttl: soon\n    multy: true\n" + yaml.safe_dump(base)
    assert [(fault.line, fault.path) for fault in faults(text)] == [
        (3, "defaults.audience.ttl"),
        (4, "defaults.audience.multy"),
    ]


def test_a_fault_in_an_entry_stands_at_the_entry_even_where_there_is_a_default(base, only_fault):
    base["defaults"] = {"audience": {"ttl": "1m"}}
    base["audiences"]["orders"]["ttl"] = "soon"
    fault = only_fault(base)
    text = yaml.safe_dump(base, sort_keys=False).splitlines()
    assert (fault.path, text[fault.line - 1].strip()) == ("audiences.orders.ttl", "ttl: soon")


def test_a_default_is_judged_even_where_no_entry_takes_it(base, only_fault):
    base["defaults"] = {"audience": {"ttl": "soon"}}
    assert only_fault(base).path == "defaults.audience.ttl"


def test_defaults_of_an_unknown_kind_are_a_fault(base, only_fault):
    base["defaults"] = {"audiences": {"ttl": "10m"}}
    assert only_fault(base).hint == "did you mean `audience`?"


def test_var_stands_beside_the_file_and_the_environment_wins(base, loaded, tmp_path):
    assert loaded(base).var == tmp_path / "var"
    base["var"] = "state"
    assert loaded(base).var == tmp_path / "state"
    assert loaded(base, {"STS_VAR": "/srv/sts"}).var == Path("/srv/sts")
    assert loaded(base, {"STS_VAR": ""}).var == tmp_path / "state"


def test_relative_files_count_from_the_configuration_wherever_it_is_read_from(base, write, monkeypatch, tmp_path):
    path = write(base)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(Path("..") / path.name, {}).var.resolve() == tmp_path / "var"


def test_a_file_that_several_settings_name_is_read_once(two_sources, loaded, partner_ca, tmp_path):
    (tmp_path / "ca.pem").write_text(partner_ca.pem)
    for source in two_sources["sources"].values():
        source["ca_file"] = "ca.pem"
    one, other = loaded(two_sources).sources.values()
    assert one.ca_file is other.ca_file


def test_the_secret_comes_from_a_file_or_the_environment(base, loaded, tmp_path):
    base["secret"] = {"env": "STS_SECRET"}
    assert loaded(base, {"STS_SECRET": SECRET}).secret.get_secret_value() == SECRET
    (tmp_path / "key").write_text(SECRET + "\n")
    base["secret"] = {"file": "key"}
    assert loaded(base).secret.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("var", "environment", "file"),
    [
        (None, {}, "var/secret"),
        (None, {}, "./var/../var/secret"),
        ("state", {}, "state/secret"),
        ("state", {"STS_VAR": "{here}/other"}, "other/secret"),
        (None, {"STS_VAR": "{here}/other"}, "{here}/other/secret"),
        (None, {"STS_VAR": "{here}/link"}, "other/secret"),
    ],
)
def test_the_default_of_the_secret_written_out_is_the_default(base, loaded, tmp_path, var, environment, file):
    """It is made at the first start, so it may be missing, and its mode is judged as that of the default."""
    (tmp_path / "link").symlink_to("other")
    if var is not None:
        base["var"] = var
    environment = {name: value.format(here=tmp_path) for name, value in environment.items()}
    left_out = loaded(copy.deepcopy(base), environment)
    base["secret"] = {"file": file.format(here=tmp_path)}
    written = loaded(base, environment)
    assert written == left_out
    assert written.secret is None
    assert changes_needing_restart(left_out, written) == ()


@pytest.mark.parametrize(
    ("var", "environment", "secret"),
    [
        ("state", {}, {"file": "var/secret"}),
        (None, {"STS_VAR": "/srv/sts"}, {"file": "var/secret"}),
        (None, {}, {"file": "var/secrets"}),
    ],
)
def test_a_secret_file_that_is_not_that_of_var_must_be_there(base, only_fault, var, environment, secret):
    if var is not None:
        base["var"] = var
    base["secret"] = secret
    fault = only_fault(base, environment)
    assert (fault.path, "cannot be read" in fault.problem) == ("secret", True)


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        (SECRET, "write the deployment secret as"),
        ({"env": "NOWHERE"}, "NOWHERE is not set"),
        ({"file": "nowhere"}, "cannot be read"),
        ({"env": "SHORT"}, "32 random bytes"),
        ({"env": "STS_SECRET", "previous": {"env": "NOWHERE"}}, "NOWHERE is not set"),
        ({"env": "STS_SECRET", "previous": {"env": "SHORT"}}, "32 random bytes"),
        ({"env": "STS_SECRET", "previous": SECRET}, "write the deployment secret as"),
        ({"vault": "x"}, "{env: NAME} or {file: PATH}"),
    ],
)
def test_a_secret_that_cannot_be_used_is_a_fault_that_does_not_show_it(base, only_fault, secret, problem):
    base["secret"] = secret
    fault = only_fault(base, {"STS_SECRET": SECRET, "SHORT": "hunter2"})
    assert fault.path == "secret"
    assert problem in fault.problem
    assert SECRET not in str(fault)
    assert "hunter2" not in str(fault)


@pytest.mark.parametrize("written", ["sha256:hunter2", {"env": "WEAK"}, 12, {"hunter2": 1}, ["hunter2"]])
def test_no_fault_shows_what_a_client_secret_was(base, faults, written):
    base["clients"]["edge"]["secrets"] = [written]
    assert "hunter2" not in "\n".join(map(str, faults(base, {"WEAK": "hunter2"})))


def test_settings_travel_between_processes(data):
    settings = load(data / "minimal.yaml", {})
    copied = pickle.loads(pickle.dumps(settings))  # noqa: S301 - our own
    assert copied == settings
    assert copied.fingerprints() == settings.fingerprints()


def test_faults_travel_between_processes(faults):
    error = SettingsError(faults("bogus: 1"))
    assert pickle.loads(pickle.dumps(error)).faults == error.faults  # noqa: S301 - our own


def test_settings_are_frozen(data):
    settings = load(data / "minimal.yaml", {})
    with pytest.raises(ValueError, match="frozen"):
        settings.issuer = "https://evil.example.com"


RESTART = [
    ("issuer", "issuer", "https://new.example.internal"),
    ("listen", "listen", "127.0.0.1:9999"),
    ("workers", "workers", 7),
    ("threads", "threads", 7),
    ("var", "var", "elsewhere"),
    ("secret", "secret", {"env": "STS_SECRET"}),
    ("redis", "redis", {"url": "rediss://redis.example.internal:6379/0"}),
]


@pytest.mark.parametrize(("named", "key", "value"), RESTART)
def test_what_a_reload_cannot_change_is_named(base, loaded, named, key, value):
    old = loaded(copy.deepcopy(base), {"STS_SECRET": SECRET})
    base[key] = value
    assert changes_needing_restart(old, loaded(base, {"STS_SECRET": SECRET})) == (named,)


def test_the_page_of_operations_lists_the_settings_that_need_a_restart():
    page = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page.split("\n### Settings that need a restart\n")[1].split("\n#")[0]
    listed = [name for line in section.splitlines() if line.startswith("| `") for name in line.split("`")[1:2]]
    assert sorted(listed) == sorted(NEEDS_RESTART)


def test_a_changed_secret_needs_a_restart(base, loaded):
    base["secret"] = {"env": "STS_SECRET"}
    old, new = (loaded(base, {"STS_SECRET": secret}) for secret in (SECRET, "B" * 42 + "A"))
    assert changes_needing_restart(old, new) == ("secret",)


def test_a_previous_secret_and_the_seal_keys_need_a_restart_and_stand_in_no_revision(base, loaded):
    other = "B" * 42 + "A"
    environment = {"STS_SECRET": SECRET, "OTHER": other}
    base["secret"] = {"env": "STS_SECRET"}
    old = loaded(copy.deepcopy(base), environment)
    base["secret"] = {"env": "STS_SECRET", "previous": {"env": "OTHER"}}
    base["keys"] = {"seal_keys": [{"env": "OTHER"}, {"env": "STS_SECRET"}]}
    new = loaded(base, environment)
    assert changes_needing_restart(old, new) == ("secret", "keys.seal_keys")
    assert (old.given_secret().previous, new.given_secret().previous.key("x")) == (
        None,
        DeploymentSecret.parse(other).key("x"),
    )
    assert new.given_secret().keys("x") == [old.given_secret().key("x"), DeploymentSecret.parse(other).key("x")]
    assert old.revision == new.revision  # it stands in every log, and nobody may guess a secret from it
    for shown in (effective(new), repr(new), str(new.keys)):
        assert SECRET not in shown
        assert other not in shown


def test_a_seal_key_is_as_strong_as_a_secret(base, only_fault):
    base["keys"] = {"seal_keys": ["hunter2"]}
    fault = only_fault(base)
    assert (fault.path, "32 random bytes" in fault.problem, "hunter2" in str(fault)) == (
        "keys.seal_keys[0]",
        True,
        False,
    )


def test_a_ring_must_have_keys_of_every_algorithm_in_use_the_default_first(base, loaded):
    base["keys"] = {"algorithm": "PS256"}
    base["audiences"]["orders"]["algorithm"] = "ES384"
    base["audiences"]["other"] = {"ttl": "9m", "algorithm": "PS256", "enabled": False}
    wanted = loaded(base).wanted()
    assert (wanted.algorithms, wanted.default, wanted.longest_ttl) == (("PS256", "ES384"), "PS256", 540)


def test_what_a_reload_can_change_is_not_named(base, loaded):
    old = loaded(copy.deepcopy(base))
    base["audiences"]["orders"]["ttl"] = "1m"
    base["cache"] = {"memory": "1MB"}
    base["routes"] = {}
    base["keys"] = {"rotate_every": "7d"}
    assert changes_needing_restart(old, loaded(base)) == ()


def test_a_quota_that_changes_by_itself_does_not_block_reloads(base, loaded):
    old = loaded(base)
    new = old.model_copy(update={"workers": old.workers + 1})
    new.model_fields_set.discard("workers")  # as `load` leaves it where nothing is written
    assert changes_needing_restart(old, new) == ()


def leaves(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))


def replaced(value, path, new):
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 10**12)
    | st.text(max_size=12)
    | st.sampled_from(["*", "", "5m", "0s", "claims.sub", "X-A", "orders", "sha256:x", "https://x", "/**", "jwt"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@hypothesis.given(draws=st.data())
@hypothesis.settings(
    max_examples=120,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
    deadline=None,
)
def test_whatever_stands_anywhere_gives_settings_or_faults_that_can_be_printed(draws, two_sources, tmp_path):
    config = copy.deepcopy(two_sources) | {
        "listen": {"address": "127.0.0.1:1", "transport": "mesh"},
        "keys": {"poll": "1s"},
        "include": ["x/*.yaml"],
        "defaults": {"audience": {"ttl": "1m"}},
        "audit": {"file": "a"},
    }
    config["audiences"]["orders"].update(allow="true", claims={"a": "identity.roles"}, headers={"X-A": "client.id"})
    path = draws.draw(st.sampled_from(list(leaves(config))[1:]))
    config = replaced(config, path, draws.draw(anything))
    (tmp_path / "x").mkdir(exist_ok=True)
    file = tmp_path / "sts.yaml"
    file.write_text(json.dumps(config))
    found, settings = (), None
    try:
        settings = load(file, {})
    except SettingsError as error:
        found = error.faults
    assert (settings is None) == bool(found)
    assert all(str(fault).isprintable() and fault.problem for fault in found)
    # Of another file nothing is known: `include: "*"` finds a directory, and `/*` whatever this machine has there.
    assert all(fault.line == 1 for fault in found if fault.file == str(file))
    assert settings is None or (settings.revision and settings.fingerprints())
