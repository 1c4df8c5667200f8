"""A real Envoy that ends callers' TLS in front of `/token` and hands their certificates on, and names that forge."""

import contextlib
import copy
import hashlib
import json
import ssl
import subprocess
import time
from ipaddress import ip_address
from urllib.parse import quote

import pytest
import yaml
from cryptography.x509.oid import ExtendedKeyUsageOID
from harness import CLIENT, Service, b64, free_port, minimal, wait_for
from pki import PARTNERS, URI, Authority, hostile

from scripts import servers
from scripts.nginx import await_port, stop

SECRET = "proxy-secret-for-tests-only"
CERTIFICATE = "urn:sts:token-type:client_certificate"
TYPES = "type.googleapis.com/envoy.extensions"


def configuration(port, replicas, files, mode, detail):
    """Envoy with TLS that asks for certificates, and one route, to the replicas of the service.

    Where a replica takes no connection, Envoy asks another one. It sends nothing twice: an exchange may be once only.
    """
    retry = {
        "retry_on": "connect-failure",
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        "host_selection_retry_max_attempts": 3,
    }
    chain = {
        "certificate_chain": {"filename": str(files / "api.pem")},
        "private_key": {"filename": str(files / "api.key")},
    }
    tls = {
        "tls_certificates": [chain],
        "validation_context": {"trusted_ca": {"filename": str(files / "partner-ca.pem")}},
    }
    secret = {"header": {"key": "x-gateway-secret", "value": SECRET}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "forward_client_cert_details": mode,
        "set_current_client_cert_details": detail,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "sts", "retry_policy": retry}}],
                    "request_headers_to_add": [secret],
                }
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}
        ],
    }
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "transport_socket": {
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": {
                        "@type": f"{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
                        "common_tls_context": tls,
                    },
                },
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
            }
        ],
    }
    there = [{"socket_address": {"address": "127.0.0.1", "port_value": replica}} for replica in replicas]
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}} for address in there]}]
    cluster = {"name": "sts", "load_assignment": {"cluster_name": "sts", "endpoints": endpoints}}
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


@pytest.fixture(scope="module")
def ca():
    return Authority("Partner CA", now=time.time())


@pytest.fixture(scope="module")
def server_ca():
    return Authority("Server CA", now=time.time())


@pytest.fixture(scope="module")
def proxied(ca, idp, tmp_path_factory):
    directory = tmp_path_factory.mktemp("proxied")
    config = yaml.safe_load(minimal(idp))
    config["sources"]["corporate-idp"].update(audiences=["*"], namespace="")
    config["sources"]["partners"] = PARTNERS
    config["clients"][CLIENT].update(sources=["*"])
    digest = "sha256:" + hashlib.sha256(SECRET.encode()).hexdigest()
    config["proxies"] = [{"networks": ["127.0.0.0/8"], "secrets": [digest], "certificate_header": "xfcc"}]
    (directory / "partner-ca.pem").write_text(ca.pem)
    revoked = ca.issue("revoked")
    (directory / "partner.crl.pem").write_bytes(ca.crl(revoked))
    running = Service(directory, yaml.safe_dump(config))
    running.revoked = revoked
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture(scope="module")
def start_envoy(proxied, dead_port, ca, server_ca, tmp_path_factory):
    program = servers.find(servers.ENVOY)
    if program is None:
        pytest.skip("no envoy is installed, and none could be")
    with contextlib.ExitStack() as stack:

        def start(mode, **detail):
            files, port = tmp_path_factory.mktemp("envoy"), free_port()
            server = server_ca.issue(
                "api", uris=(), ips=[ip_address("127.0.0.1")], purposes=[ExtendedKeyUsageOID.SERVER_AUTH]
            )
            (files / "api.pem").write_text(server.pem)
            (files / "api.key").write_text(server.key_pem)
            (files / "partner-ca.pem").write_text(ca.pem)
            (files / "envoy.json").write_text(configuration(port, [dead_port, proxied.port], files, mode, detail))
            log = files / "log"
            with log.open("wb") as out:
                process = subprocess.Popen(
                    [program, "-c", str(files / "envoy.json"), "--use-dynamic-base-id", "--concurrency", "1"],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                )
            stack.callback(stop, process)
            await_port(port, process, log, seconds=30)
            return port

        yield start


DETAIL = {"cert": True, "chain": True, "subject": True, "uri": True, "dns": True}


@pytest.fixture(scope="module", params=["SANITIZE_SET", "APPEND_FORWARD"])
def envoy(request, start_envoy):
    return start_envoy(request.param, **DETAIL)


@pytest.fixture
def exchange(proxied, server_ca, tmp_path):
    """Exchange a certificate through Envoy, on a connection of `holder`."""

    def exchange(port, holder, *subject, headers=None):
        through = copy.copy(proxied)
        through.port, through.tls = port, ssl.create_default_context(cadata=server_ca.pem)
        if holder is not None:
            file = tmp_path / "client.pem"
            file.write_text(holder.pem + holder.key_pem)
            through.tls.set_ciphers("DEFAULT:@SECLEVEL=0")  # a hostile client has no scruples about its key
            through.tls.load_cert_chain(file)
        token = ".".join(b64(one.der) for one in subject)
        form = {"subject_token": token, "subject_token_type": CERTIFICATE, "audience": "orders"}
        form["grant_type"] = "urn:ietf:params:oauth:grant-type:token-exchange"
        return through.post(form, headers)

    return exchange


def test_a_callers_certificate_comes_through_envoy(exchange, envoy, proxied, ca):
    """CC-05."""
    leaf = ca.issue(dns=["billing.partners.example"])
    answer = exchange(envoy, leaf, leaf)
    assert answer.status == 200, proxied.events()[-1]
    assert proxied.verified(answer.json["access_token"])["sub"] == f"partner|{URI}"


SHAPES = {
    **dict.fromkeys(["of another CA", "of a CA nobody knows", "expired", "for servers only"], "no handshake"),
    "self-signed": "no handshake",
    **dict.fromkeys(["a CA's", "with two SANs", "beyond the prefix", "with a weak key", "revoked"], "refused"),
}


@pytest.fixture(scope="module")
def sanitizing(start_envoy):
    return start_envoy("SANITIZE_SET", **DETAIL)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_hostile_certificate_gets_no_token_through_envoy(exchange, sanitizing, proxied, ca, shape):
    """Envoy's handshake stops some of them; the others are ours to refuse."""
    shapes = hostile(ca) | {"revoked": (proxied.revoked, "revoked")}
    assert set(shapes) == set(SHAPES)
    holder, why = shapes[shape]
    if SHAPES[shape] == "no handshake":
        before = len(proxied.events())
        with pytest.raises(OSError):  # noqa: PT011 - the alert, or the connection that is gone after it
            exchange(sanitizing, holder, holder)
        assert len(proxied.events()) == before
        return
    answer = exchange(sanitizing, holder, holder)
    assert (answer.status, answer.json["error_reason"]) == (400, why)


def test_a_chain_out_of_order_is_refused_through_envoy(exchange, sanitizing, ca):
    leaf, below = ca.issue(), Authority("Issuing CA", now=ca.now, parent=ca)
    answer = exchange(sanitizing, leaf, leaf, below)
    assert (answer.status, answer.json["error_reason"]) == (400, "malformed")


def test_a_stale_crl_opens_nothing_through_envoy(exchange, sanitizing, proxied, ca):
    def publish(content):
        new = proxied.directory / "new.crl"
        new.write_bytes(content)
        new.rename(proxied.directory / "partner.crl.pem")

    try:
        publish(ca.crl(proxied.revoked, life=(-3600, -1)))
        leaf = ca.issue()
        answer = wait_for(lambda: (found := exchange(sanitizing, leaf, leaf)).status == 503 and found, 30, every=0.3)
        assert answer.json["error_reason"] == "source_unreachable"
    finally:
        publish(ca.crl(proxied.revoked))
        wait_for(lambda: {exchange(sanitizing, one, one).status for one in [ca.issue() for _ in range(6)]} == {200}, 30)


def test_a_certificate_that_is_not_the_callers_is_refused(exchange, envoy, ca):
    victim = ca.issue("victim", uris=["spiffe://partners.example/victim"])
    for holder in (ca.issue(), None):
        answer = exchange(envoy, holder, victim)
        assert (answer.status, answer.json["error_reason"]) == (400, "binding_failed")


@pytest.mark.parametrize("forged", ["whole", "hash and name", "open quote"])
def test_a_header_that_the_caller_forged_gives_it_nothing(exchange, envoy, ca, forged):
    """CC-06: the spoofed first element."""
    victim = ca.issue("victim", uris=["spiffe://partners.example/victim"])
    digest = hashlib.sha256(victim.der).hexdigest()
    header = {
        "whole": f'Hash={digest};Cert="{quote(victim.pem, safe="")}"',
        "hash and name": f"Hash={digest};URI=spiffe://partners.example/victim",
        "open quote": f'Hash={digest};Cert="{quote(victim.pem, safe="")}";Subject="',
    }[forged]
    for holder in (ca.issue(), None):
        answer = exchange(envoy, holder, victim, headers={"X-Forwarded-Client-Cert": header})
        assert (answer.status, answer.json["error_reason"]) in {(400, "binding_failed"), (400, "malformed")}


def test_a_name_with_a_comma_begins_no_element(exchange, envoy, ca):
    """Envoy writes URI names as they are: this certificate's holds a whole element for another's."""
    victim = ca.issue("victim", uris=["spiffe://partners.example/victim"])
    digest = hashlib.sha256(victim.der).hexdigest()
    forged = f'spiffe://partners.example/x,Hash={digest};Cert="{quote(victim.pem, safe="")}"'
    mallory = ca.issue("mallory", uris=[forged])
    answer = exchange(envoy, mallory, victim)
    assert (answer.status, answer.json["error_reason"]) in {(400, "binding_failed"), (400, "malformed")}


def test_an_envoy_that_hands_on_names_alone_is_refused(exchange, start_envoy, ca):
    """CC-06."""
    leaf = ca.issue()
    answer = exchange(start_envoy("SANITIZE_SET", uri=True, subject=True), leaf, leaf)
    assert (answer.status, answer.json["error_reason"]) == (400, "malformed")


def test_without_envoy_the_header_is_refused(proxied, ca):
    """CC-03: the same header, and no secret."""
    leaf = ca.issue()
    header = f'Hash={hashlib.sha256(leaf.der).hexdigest()};Cert="{quote(leaf.pem, safe="")}"'
    form = {"subject_token": b64(leaf.der), "subject_token_type": CERTIFICATE, "audience": "orders"}
    form["grant_type"] = "urn:ietf:params:oauth:grant-type:token-exchange"
    for more in ({}, {"X-Gateway-Secret": "wrong"}):
        answer = proxied.post(form, {"X-Forwarded-Client-Cert": header, **more})
        assert (answer.status, answer.json["error_reason"]) == (400, "malformed")
    assert proxied.events()[-1]["reason"] == "malformed"
