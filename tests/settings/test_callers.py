"""What only the whole configuration can tell of callers."""

import json

import pytest
import trustme

from sts.settings import examine

COMMON = {"audiences": ["orders"]}
KINDS = {
    "tls": {"auth": "tls", "ca_file": "ca.pem", "san_dns": "gateway.example.com"},
    "pinned": {"auth": "tls", "certificates": ["sha256:" + "a" * 64]},
    "private_key_jwt": {"auth": "private_key_jwt", "jwks_uri": "https://gateway.example.com/jwks"},
    "access_token": {"auth": "access_token", "source": "idp", "client_id": "partner"},
    "network": {"auth": "network", "networks": ["unix"], "uids": [1]},
}


@pytest.fixture
def files(tmp_path):
    """The files that the tests' configurations name."""
    ca = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    own = ca.issue_cert("localhost")
    (tmp_path / "cert.pem").write_bytes(own.cert_chain_pems[0].bytes())
    (tmp_path / "key.pem").write_bytes(own.private_key_pem.bytes())
    return tmp_path


TLS = {"cert_file": "cert.pem", "key_file": "key.pem"}


def with_client(base, kind, **changes):
    base["clients"]["other"] = KINDS[kind] | COMMON | changes
    return base


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("files")
def test_every_way_of_a_caller_loads(base, loaded, kind):
    settings = loaded(with_client(base, kind))
    assert settings.clients["other"].auth == KINDS[kind]["auth"]
    assert settings.fingerprints()["client/other"]


@pytest.mark.parametrize(("kind", "told"), [("private_key_jwt", True), ("access_token", True), ("tls", False)])
@pytest.mark.usefixtures("files")
def test_a_client_that_cannot_prove_itself_at_forward_auth_has_no_profile(base, loaded, only_fault, kind, told):
    config = with_client(base, kind, profile="nginx")
    if told:
        assert only_fault(config).path == "clients.other.profile"
    else:
        assert loaded(config)


def test_an_access_token_is_of_a_source_that_issues_jwts(base, only_fault, two_sources):
    assert only_fault(with_client(base, "access_token", source="idq", sources=["*"])).hint.endswith("`idp`?")
    two_sources["sources"]["opaque"] = {
        "type": "introspection", "endpoint": "https://as.example.com", "client_id": "sts", "client_secret": "hush",
        "audience": "x", "audiences": ["*"], "namespace": "o", "identity": {"subject": "claims.sub"},
    }  # fmt: skip
    fault = only_fault(with_client(two_sources, "access_token", source="opaque", sources=["*"]))
    assert (fault.path, fault.problem) == ("clients.other.source", "opaque does not issue JWTs")


@pytest.mark.parametrize(
    ("kind", "key", "content"),
    [
        ("tls", "ca_file", "nothing"),
        ("private_key_jwt", "jwks_file", "{}"),
        ("private_key_jwt", "jwks_file", json.dumps({"keys": [{"kty": "oct", "k": "AAAA"}]})),
        ("private_key_jwt", "ca_file", "nothing"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_fault_of_its_client(base, only_fault, tmp_path, kind, key, content):
    (tmp_path / "named").write_text(content)
    config = with_client(base, kind, **{key: "named"})
    if key == "jwks_file":
        del config["clients"]["other"]["jwks_uri"]
    assert only_fault(config).path == f"clients.other.{key}"
    config["clients"]["other"]["enabled"] = False  # a reload may enable it
    assert only_fault(config).path == f"clients.other.{key}"


@pytest.mark.parametrize(
    ("kind", "changes", "above", "told"),
    [
        ("tls", {}, {}, "no client could present a certificate"),
        ("tls", {"profile": "nginx"}, {"proxies": True}, "at forward-auth"),
        ("tls", {}, {"proxies": True}, ""),
        ("tls", {"profile": "nginx"}, {"tls": TLS}, ""),
        ("pinned", {}, {"tls": TLS}, "`listen.tls.ca_file` is missing"),
        ("pinned", {}, {"tls": TLS, "proxies": True}, ""),
        ("pinned", {}, {"tls": TLS | {"ca_file": "ca.pem"}}, ""),
        ("network", {}, {}, ""),
    ],
)
@pytest.mark.usefixtures("files")
def test_a_certificate_that_nobody_could_present_is_warned_of(base, write, kind, changes, above, told):
    config = with_client(base, kind, **changes)
    if "tls" in above:
        config["listen"] = {"address": "127.0.0.1:8443", "tls": above["tls"]}
    if "proxies" in above:
        proxy = {"networks": ["127.0.0.0/8"], "secrets": ["sha256:" + "b" * 64], "certificate_header": "client_cert"}
        config["proxies"] = [proxy]
    found = [warning for warning in examine(write(config), {})[1] if warning.path == "clients.other.auth"]
    assert [told in warning.problem for warning in found] == ([True] if told else [])


@pytest.mark.parametrize(
    ("networks", "listen", "told"),
    [
        (["unix"], "127.0.0.1:8080", "no Unix socket"),
        (["127.0.0.0/8"], "unix:/run/sts/sts.sock", "a Unix socket"),
        (["unix", "127.0.0.0/8"], "127.0.0.1:8080", ""),
        (["unix"], "unix:/run/sts/sts.sock", ""),
        (["127.0.0.0/8"], "127.0.0.1:8080", ""),
    ],
)
def test_a_place_that_nobody_calls_from_is_warned_of(base, write, networks, listen, told):
    uids = {"uids": [1]} if "unix" in networks else {}
    config = base | {"listen": listen}
    config["clients"]["other"] = {"auth": "network", "networks": networks} | uids | COMMON
    found = [one.problem for one in examine(write(config), {})[1] if one.path == "clients.other.networks"]
    assert [one.endswith("`listen` is " + told) for one in found] == ([True] if told else [])


def test_a_client_whose_own_issuer_is_disabled_is_warned_of(write, two_sources):
    config = with_client(two_sources, "access_token", sources=["idp"])
    assert [one.path for one in examine(write(config), {})[1]] == []
    config["sources"]["idp"]["enabled"] = False
    assert "clients.other.source" in [one.path for one in examine(write(config), {})[1]]


def test_an_audience_whose_tokens_nobody_could_be_bound_to_is_warned_of(base, write, files):
    base["audiences"]["orders"]["bind"] = "caller_certificate"
    (found,) = examine(write(base), {})[1]
    assert found.path == "audiences.orders.bind"
    base["listen"] = {"address": "127.0.0.1:8443", "tls": TLS}
    assert examine(write(base), {})[1] == ()
    assert files


@pytest.mark.usefixtures("files")
def test_a_handshake_takes_the_cas_of_enabled_clients_and_of_the_listener(base, loaded):
    config = with_client(base, "tls") | {"listen": {"address": "127.0.0.1:1", "tls": TLS}}
    assert [file.path.name for file in loaded(config).handshake_cas()] == ["ca.pem"]
    config["listen"]["tls"] = TLS | {"ca_file": "cert.pem"}
    assert [file.path.name for file in loaded(config).handshake_cas()] == ["cert.pem", "ca.pem"]
    config["clients"]["other"]["enabled"] = False
    assert [file.path.name for file in loaded(config).handshake_cas()] == ["cert.pem"]
    config["listen"] = "127.0.0.1:1"
    assert loaded(config).handshake_cas() == ()
