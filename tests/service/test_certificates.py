"""Client certificates at the real service: handshakes with it, and certificates that gateways hand on."""

import base64
import hashlib
import ssl
import subprocess
import sys
import time
from ipaddress import ip_address
from urllib.parse import quote

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID
from harness import ACCESS_TOKEN, CLIENT, Service, b64, decoded, minimal, wait_for
from pki import DAY, PARTNERS, URI, Authority, Holder, hostile

CERTIFICATE = "urn:sts:token-type:client_certificate"
SERVER = [ExtendedKeyUsageOID.SERVER_AUTH]


def other(secret):
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


class World:
    """CAs whose certificates are good now, and the files that the service is given."""

    def __init__(self, directory):
        self.ca = Authority("Partner CA", now=time.time())
        self.server_ca = Authority("Server CA", now=time.time())
        self.directory = directory
        self.revoked = self.ca.issue("revoked")
        (directory / "partner-ca.pem").write_text(self.ca.pem)
        self.publish(self.revoked)

    def publish(self, *revoked, **more):
        """Put a new CRL where the service looks for it, as one should: whole."""
        new = self.directory / "new.crl"
        new.write_bytes(self.ca.crl(*revoked, **more))
        new.rename(self.directory / "partner.crl.pem")

    def configuration(self, idp, **changes):
        config = yaml.safe_load(minimal(idp))
        config["workers"] = 1  # each has a cache of its own
        config["sources"]["corporate-idp"].update(audiences=["*"], namespace="")
        config["sources"]["partners"] = {
            **PARTNERS,
            "identity": {**PARTNERS["identity"], "tenant": "certificate.issuer"},
        }
        gateway = config["clients"][CLIENT]
        gateway["sources"] = ["*"]
        for form in ("nginx", "client_cert", "xfcc"):
            config["clients"][f"{form.replace('_', '-')}-gateway"] = {
                **gateway,
                "secrets": [other(form)],
                "may_present": ["partners"],
                "certificate_header": form,
            }
        config.update(changes)
        return yaml.dump(config, Dumper=NoAliases)


class NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data):  # noqa: ARG002 - the service refuses aliases
        return True


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def plain(world, idp):
    """A service behind gateways."""
    running = Service(world.directory, world.configuration(idp))
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture(scope="module")
def direct(tmp_path_factory, idp, world):
    """A service that speaks TLS itself."""
    own = World(tmp_path_factory.mktemp("direct"))
    own.ca, own.revoked = world.ca, world.revoked
    (own.directory / "partner-ca.pem").write_text(own.ca.pem)
    own.publish(own.revoked)
    server = own.server_ca.issue(
        "localhost", uris=(), dns=["localhost"], purposes=SERVER, ips=[ip_address("127.0.0.1")]
    )
    (own.directory / "server.pem").write_text(server.pem)
    (own.directory / "server.key").write_text(server.key_pem)
    tls = {"cert_file": "server.pem", "key_file": "server.key"}
    config = own.configuration(idp, listen={"address": "127.0.0.1:0", "tls": tls})
    running = Service(own.directory, config, tls=context(own.server_ca, own.directory))
    running.world = own
    yield running
    assert running.stop() == 0, running.log()


def context(server_ca, directory, holder=None):
    found = ssl.create_default_context(cadata=server_ca.pem)
    if holder is not None:
        file = directory / f"{b64(hashlib.sha256(holder.der).digest())[:16]}.pem"
        file.write_text(holder.pem + holder.key_pem)
        found.load_cert_chain(file)
    return found


def text(*holders):
    return ".".join(b64(holder.der) for holder in holders)


HEADERS = {
    "nginx": lambda holder: {"X-SSL-Client-Cert": quote(holder.pem, safe=""), "X-SSL-Client-Verify": "SUCCESS"},
    "client_cert": lambda holder: {"Client-Cert": f":{base64.b64encode(holder.der).decode()}:"},
    "xfcc": lambda holder: {
        "X-Forwarded-Client-Cert": f'Hash={hashlib.sha256(holder.der).hexdigest()};Cert="{quote(holder.pem, safe="")}"'
    },
}


def forward(service, form, holder, token=None, **headers):
    """Ask at forward-auth as a gateway that hands certificates on in `form`."""
    handed = HEADERS[form](holder) if holder is not None else {}
    named = {name.replace("-", "_"): value for name, value in handed.items()}
    client = f"{form.replace('_', '-')}-gateway"
    return service.forward(token, client=client, X_Gateway_Secret=form, **named, **headers)


def reason(service):
    return service.events()[-1]["reason"]


@pytest.mark.parametrize("form", HEADERS)
def test_a_certificate_that_a_gateway_hands_on_becomes_an_internal_token(plain, world, form):
    """CC-04."""
    answer = forward(plain, form, world.ca.issue())
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    claims = plain.verified(answer.headers["authorization"].removeprefix("Bearer "))
    assert (claims["sub"], claims["scope"]) == (f"partner|{URI}", "orders:read")
    assert claims["act"]["sub"] == f"{form.replace('_', '-')}-gateway"
    event = plain.events()[-1]
    assert (event["kind"], event["source"]) == ("client_certificate", "partners")


def test_a_token_lives_no_longer_than_the_certificate(plain, world):
    leaf = world.ca.issue(life=(-DAY, 60))
    answer = forward(plain, "nginx", leaf)
    assert int(answer.headers["x-token-expires-at"]) <= leaf.certificate.not_valid_after_utc.timestamp()


def test_the_same_certificate_again_is_answered_from_the_cache(plain, world):
    leaf = world.ca.issue()
    first, second = forward(plain, "nginx", leaf), forward(plain, "nginx", leaf)
    assert (first.status, second.status) == (200, 200)
    assert first.headers["authorization"] == second.headers["authorization"]
    assert plain.events()[-1]["cached"]


SHAPES = [
    *("of another CA", "of a CA nobody knows", "expired", "for servers only", "a CA's", "with two SANs"),
    *("beyond the prefix", "with a weak key", "revoked", "self-signed"),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", HEADERS)
def test_a_hostile_certificate_is_refused(plain, world, form, shape):
    shapes = hostile(world.ca) | {"revoked": (world.revoked, "revoked")}
    assert set(shapes) == set(SHAPES)
    holder, why = shapes[shape]
    answer = forward(plain, form, holder)
    assert answer.status == 401
    assert reason(plain) == why
    assert "authorization" not in answer.headers


def test_a_header_from_a_client_that_may_hand_none_on_is_refused(plain, world):
    """CC-03: an end user can send any header through a gateway that does not own it."""
    for form, header in HEADERS.items():
        named = {name.replace("-", "_"): value for name, value in header(world.ca.issue()).items()}
        answer = plain.forward(None, **named)
        assert answer.status == 401, form
        assert reason(plain) == "malformed"


@pytest.mark.parametrize("form", HEADERS)
def test_another_form_than_the_configured_one_is_refused(plain, world, form):
    """CC-10."""
    for name, header in HEADERS.items():
        if name != form:
            named = {key.replace("-", "_"): value for key, value in header(world.ca.issue()).items()}
            answer = forward(plain, form, world.ca.issue(), **named)
            assert (answer.status, reason(plain)) == (401, "malformed")
            answer = plain.forward(None, client=f"{form.replace('_', '-')}-gateway", X_Gateway_Secret=form, **named)
            assert (answer.status, reason(plain)) == (401, "malformed")


def test_beside_a_token_a_certificate_is_no_credential(plain, world, idp):
    answer = forward(plain, "nginx", world.ca.issue(), token=idp.token())
    claims = plain.verified(answer.headers["authorization"].removeprefix("Bearer "))
    assert claims["sub"] == "alice"
    assert forward(plain, "nginx", world.ca.issue(), token="rubbish").status == 401


def test_a_token_that_is_bound_to_a_certificate_needs_it_every_time(plain, world, idp):
    """MT-05, CA-05: at forward-auth it is the end user's, kept token or not."""
    mine, other = world.ca.issue(), world.ca.issue()
    digest = hashlib.sha256(mine.der).digest()
    token = idp.token(cnf={"x5t#S256": b64(digest)})
    for _ in range(2):
        answer = forward(plain, "nginx", mine, token=token)
        assert answer.status == 200
        assert "cnf" not in decoded(answer.headers["authorization"].removeprefix("Bearer "))[1]
        for holder in (other, None):
            assert forward(plain, "nginx", holder, token=token).status == 401
            assert reason(plain) == "binding_failed"
    assert plain.events()[-3]["cached"]


def test_a_gateway_without_a_certificate_says_so(plain):
    assert forward(plain, "nginx", None, X_SSL_Client_Verify="NONE").headers["x-auth-reason"] == "missing_credential"


@pytest.mark.parametrize(
    ("twin", "status"),
    [("X-SSL-Client-Cert", 200), ("X_SSL_Client_Cert", 400), ("X-SSL_Client-Cert", 400), ("x_ssl_client_cert", 400)],
)
def test_the_twin_of_a_header_is_none(plain, world, twin, status):
    """CC-13: with dashes it is the certificate, with one underscore the server itself refuses the request."""
    headers = {
        "X-Gateway-Secret": "nginx",
        "X-Original-Method": "GET",
        "X-Original-URI": "/orders/1",
        "X-Original-Host": "api.example.com",
        "X-SSL-Client-Verify": "SUCCESS",
        twin: HEADERS["nginx"](world.ca.issue())["X-SSL-Client-Cert"],
    }
    assert plain.request("GET", "/forward-auth/nginx-gateway", headers).status == status


def test_a_chain_that_the_server_does_not_take_is_431_and_nothing_else_is_read_instead(plain, world):
    """CC-12."""
    leaf = world.ca.issue()
    long = {"X_SSL_Client_Cert": HEADERS["nginx"](leaf)["X-SSL-Client-Cert"] + "%0A" * 3000}
    answer = plain.forward(
        None, client="nginx-gateway", X_Gateway_Secret="nginx", X_SSL_Client_Verify="SUCCESS", **long
    )
    assert answer.status == 431
    assert "authorization" not in answer.headers


def test_at_token_a_client_that_may_hands_a_certificate_on(plain, world):
    leaf = world.ca.issue()
    form = {"subject_token": text(leaf), "subject_token_type": CERTIFICATE, "audience": "orders"}
    form["grant_type"] = "urn:ietf:params:oauth:grant-type:token-exchange"
    answer = plain.post(form, client="nginx-gateway", secret="nginx")
    assert answer.status == 200
    assert plain.verified(answer.json["access_token"])["sub"] == f"partner|{URI}"
    answer = plain.post(form)  # edge-gateway, which may not
    assert (answer.status, answer.json["error_reason"]) == (400, "binding_failed")


def test_at_token_a_certificate_header_is_refused(plain, world, idp):
    """CC-03: from who is no proxy."""
    for form, header in HEADERS.items():
        fields = {"subject_token": idp.token(), "subject_token_type": ACCESS_TOKEN, "audience": "orders"}
        fields["grant_type"] = "urn:ietf:params:oauth:grant-type:token-exchange"
        answer = plain.post(
            fields, headers=header(world.ca.issue()), client=f"{form.replace('_', '-')}-gateway", secret=form
        )
        assert (answer.status, answer.json["error_reason"]) == (400, "malformed")
        assert reason(plain) == "malformed"


def test_a_new_crl_is_in_force_without_a_reload_and_voids_what_is_cached(plain, world):
    """CA-03, XC-11."""
    leaf = world.ca.issue()
    assert forward(plain, "nginx", leaf).status == 200
    world.publish(world.revoked, leaf)
    wait_for(lambda: forward(plain, "nginx", leaf).status == 401, every=0.3)
    assert reason(plain) == "revoked"
    assert forward(plain, "nginx", world.ca.issue()).status == 200


def twin(holder):
    """The same certificate with the other ECDSA signature that fits it, (r, n - s): its holder can make it alone."""
    certificate = holder.certificate
    r, s = decode_dss_signature(certificate.signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signature = encode_dss_signature(r, order - s)
    signed = certificate.tbs_certificate_bytes
    algorithm = holder.der[4 + len(signed) : -len(certificate.signature) - 3]
    body = signed + algorithm + bytes([3, len(signature) + 1, 0]) + signature
    return Holder(x509.load_der_x509_certificate(b"\x30\x82" + len(body).to_bytes(2) + body), holder.key)


def test_a_certificate_that_is_revoked_here_comes_in_by_no_other_signature(plain, world, tmp_path):
    leaf = world.ca.issue()
    mutant = twin(leaf)
    assert mutant.der != leaf.der
    assert forward(plain, "nginx", mutant).status == 200
    (tmp_path / "leaked").write_text(text(leaf))
    command = [sys.executable, "-m", "sts", "revoke", "--credential", str(tmp_path / "leaked"), "-c", str(plain.file)]
    subprocess.run(command, check=True, capture_output=True)
    for holder in (leaf, mutant):
        wait_for(lambda holder=holder: forward(plain, "nginx", holder).status == 401)
        assert reason(plain) == "revoked"


def stale(metrics):
    ends = next(line for line in metrics.splitlines() if line.startswith("sts_crl_seconds_left{"))
    return metrics if float(ends.split()[-1]) < 0 else None


def test_a_stale_crl_is_a_fault_of_ours(plain, world):
    """CA-03, XC-11, BE-08."""
    try:
        world.publish(world.revoked, life=(-3600, -1))
        leaf = world.ca.issue()
        answer = wait_for(lambda: (found := forward(plain, "nginx", leaf)).status == 503 and found, every=0.3)
        assert answer.headers["x-auth-reason"] == "source_unreachable"
        metrics = wait_for(lambda: stale(plain.get("/metrics").body.decode()), every=0.3)  # of either worker
        assert 'sts_revocation_required{source="partners"} 1.0' in metrics
    finally:
        world.publish(world.revoked)
        wait_for(lambda: forward(plain, "nginx", world.ca.issue()).status == 200, every=0.3)


def direct_exchange(direct, holder, token_of):
    direct.tls = context(direct.world.server_ca, direct.world.directory, holder)
    return direct.exchange(token_of, token_type=CERTIFICATE)


def test_a_callers_own_certificate_is_its_credential(direct, world):
    leaf = world.ca.issue()
    answer = direct_exchange(direct, leaf, text(leaf))
    assert answer.status == 200
    assert direct.verified(answer.json["access_token"])["sub"] == f"partner|{URI}"
    assert decoded(answer.json["access_token"])[1]["client_id"] == CLIENT


def test_another_ones_certificate_is_not(direct, world):
    """A certificate is public: presenting one proves nothing."""
    mine, theirs = world.ca.issue(), world.ca.issue("victim", uris=["spiffe://partners.example/victim"])
    for holder in (mine, None):
        answer = direct_exchange(direct, holder, text(theirs))
        assert (answer.status, answer.json["error_reason"]) == (400, "binding_failed")


def test_a_revoked_certificate_of_the_connection_is_refused(direct, world):
    answer = direct_exchange(direct, world.revoked, text(world.revoked))
    assert (answer.status, answer.json["error_reason"]) == (400, "revoked")
