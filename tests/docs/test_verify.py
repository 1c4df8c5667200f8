"""The snippets of docs/verify.md are run as they stand there, against a JWKS server and tokens that are not ours."""

import base64
import hashlib
import hmac
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

PAGE = Path(__file__).resolve().parents[2] / "docs" / "verify.md"
pytestmark = pytest.mark.timeout(300)  # the first build of Go's standard library takes a while on two busy cores

ISSUER = "https://sts.example.internal"

# What a backend adds to the snippet here: it answers each line, "verify <token>" or "zero floor" (maxAge, stale).
DRIVERS = {
    "python": (
        "driver.py",
        """
import sys
from verify import Refused, Verifier
verifier = Verifier(sys.argv[1], "orders", sys.argv[2])
for line in sys.stdin:
    word, _, token = line.strip().partition(" ")
    if word == "zero":
        setattr(verifier, {"maxAge": "max_age"}.get(token, token), 0)
        print("done", flush=True)
        continue
    try:
        print("good", verifier.verify(token, "orders:read")["sub"], flush=True)
    except Refused as error:
        print("refused", error, flush=True)
""",
    ),
    "go": (
        "driver.go",
        """
package main

import ("bufio"; "fmt"; "os"; "strings"; "time")

func main() {
	verifier := NewVerifier(os.Args[1], "orders", os.Args[2])
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		word, token, _ := strings.Cut(lines.Text(), " ")
		if word == "zero" {
			*map[string]*time.Duration{
				"floor": &verifier.floor, "maxAge": &verifier.maxAge, "stale": &verifier.stale,
			}[token] = 0
			fmt.Println("done")
		} else if claims, err := verifier.Verify(token, "orders:read"); err != nil {
			fmt.Println("refused", err)
		} else {
			fmt.Println("good", claims["sub"])
		}
	}
}
""",
    ),
    "java": (
        "Driver.java",
        """
import java.io.*;
import java.time.Duration;

class Driver {
    public static void main(String[] arguments) throws Exception {
        var verifier = new Verifier(arguments[0], "orders", arguments[1]);
        var lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null;) {
            if (line.startsWith("zero ")) {
                if (line.endsWith("floor")) verifier.floor = Duration.ZERO;
                if (line.endsWith("maxAge")) verifier.maxAge = Duration.ZERO;
                if (line.endsWith("stale")) verifier.stale = Duration.ZERO;
                System.out.println("done");
                continue;
            }
            try {
                System.out.println("good " + verifier.verify(line.substring(7), "orders:read").get("sub"));
            } catch (java.security.GeneralSecurityException error) {
                System.out.println("refused " + error.getMessage());
            }
        }
    }
}
""",
    ),
    "javascript": (
        "driver.mjs",
        """
import { createInterface } from "node:readline";
import { Verifier } from "./verify.mjs";
const verifier = new Verifier(process.argv[2], "orders", process.argv[3]);
for await (const line of createInterface({ input: process.stdin })) {
  const [word, token] = line.split(" ");
  if (word === "zero") {
    verifier[token] = 0;
    console.log("done");
    continue;
  }
  try {
    console.log("good", (await verifier.verify(token ?? "", "orders:read")).sub);
  } catch (error) {
    console.log("refused", error.message);
  }
}
""",
    ),
}
FILES = {"python": "verify.py", "go": "verify.go", "java": "Verifier.java", "javascript": "verify.mjs"}
PROGRAMS = {"python": [], "go": ["go"], "java": ["javac", "java"], "javascript": ["node"]}


class Key:
    def __init__(self, kid):
        self.kid = kid
        self.private = ec.generate_private_key(ec.SECP256R1())
        numbers = self.private.public_key().public_numbers()
        self.jwk = {
            "kty": "EC",
            "crv": "P-256",
            "use": "sig",
            "alg": "ES256",
            "kid": kid,
            "x": base64url(numbers.x.to_bytes(32, "big")),
            "y": base64url(numbers.y.to_bytes(32, "big")),
        }
        self.pem = self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


class Service:
    """Stands in for the token service: its JWKS over HTTP, which may fail, and how often it was fetched."""

    def __init__(self):
        self.key = Key("first")
        self.published = [self.key.jwk]
        self.fetches = 0
        self.status = 200
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                service.fetches += 1
                body = json.dumps({"keys": service.published}).encode()
                self.send_response(service.status)
                self.send_header("Content-Type", "application/jwk-set+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}/.well-known/jwks.json"


class Backend:
    """One snippet at work: a process that answers a line for a line."""

    def __init__(self, command, folder, uri):
        self.process = subprocess.Popen(
            [*command, ISSUER, uri], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def verify(self, token):
        return self.ask(f"verify {token}")

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(members):
    return base64url(json.dumps(members).encode())


def snippet(language):
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"docs/verify.md has {len(found)} snippets in {language}"
    return found[0]


def build(language, folder):
    """Write snippet and driver, compile where that is needed, and return the command that runs them."""
    driver, source = DRIVERS[language]
    (folder / FILES[language]).write_text(snippet(language), encoding="utf-8")
    (folder / driver).write_text(source, encoding="utf-8")
    if language == "python":
        return [sys.executable, "-W", "error", driver]
    if language == "javascript":
        return ["node", driver]
    if language == "java":
        subprocess.run(
            ["javac", "-Xlint:all", "-Werror", "-J-XX:TieredStopAtLevel=1", FILES[language], driver],
            cwd=folder,
            check=True,
            timeout=280,
        )
        return ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", ".", "Driver"]
    (folder / "go.mod").write_text("module backend\n\ngo 1.21\n", encoding="utf-8")
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOPROXY": "off"}  # it needs nothing but the standard library
    subprocess.run(["go", "build", "-o", "backend"], cwd=folder, check=True, timeout=280, env=environment)
    return ["./backend"]


@pytest.fixture(scope="module", params=sorted(DRIVERS))
def command(request, tmp_path_factory):
    for program in PROGRAMS[request.param]:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    return build(request.param, folder), folder


@pytest.fixture
def service():
    service = Service()
    thread = threading.Thread(target=service.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield service
    service.server.shutdown()
    thread.join()
    service.server.server_close()


@pytest.fixture
def backend(command, service):
    backend = Backend(*command, service.uri)
    yield backend
    backend.close()


def mint(key, *, algorithm="ES256", header=None, without=(), **claims):
    now = int(time.time())
    members = {
        "iss": ISSUER,
        "sub": "u|alice",
        "aud": "orders",
        "iat": now,
        "exp": now + 300,
        "jti": "j-1",
        "client_id": "edge-gateway",
        "scope": "orders:read orders:write",
        "act": {"sub": "edge-gateway", "iss": ISSUER, "act": {"sub": "é\n\u2028😀", "iss": "x"}},
        "roles": ["a", "b"],
        "admin": None,
    } | claims
    for name in without:
        members.pop(name, None)
    header = {"typ": "at+jwt", "kid": key.kid} | (header or {})
    if header["kid"] is None:
        del header["kid"]
    return jwt.encode(members, key.private, algorithm=algorithm, headers=header)


def unsigned(spelling):
    body = mint(Key("x")).split(".")[1]
    return f"{part({'alg': spelling, 'typ': 'at+jwt', 'kid': 'first'})}.{body}."


def signed_with_public_key(key):
    """HS256 whose secret is the public key: what a verifier believes that takes `alg` from the token."""
    body = mint(key).split(".")[1]
    signed = f"{part({'alg': 'HS256', 'typ': 'at+jwt', 'kid': key.kid})}.{body}"
    return f"{signed}.{base64url(hmac.new(key.pem, signed.encode(), hashlib.sha256).digest())}"


def sign(key, signed):
    """The signature of ES256 over `signed`, in DER."""
    return key.private.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))


def signed(key, algorithm):
    """A token with a good ES256 signature whose header names another algorithm."""
    signed = f"{part({'alg': algorithm, 'typ': 'at+jwt', 'kid': key.kid})}.{mint(key).split('.')[1]}"
    r, s = utils.decode_dss_signature(sign(key, signed))
    return f"{signed}.{base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def der_signature(key):
    signed = mint(key).rpartition(".")[0]
    return f"{signed}.{base64url(sign(key, signed))}"


GOOD = {
    "plain": lambda key, _: mint(key),
    "signed by hand": lambda key, _: signed(key, "ES256"),
    "several audiences": lambda key, _: mint(key, aud=["billing", "orders"]),
    "expired within the clock skew": lambda key, now: mint(key, exp=now - 10),
    "begins within the clock skew": lambda key, now: mint(key, nbf=now + 10),
    "fractional times": lambda key, now: mint(key, exp=now + 100.5, nbf=now - 0.5),
}
BAD = {
    "expired": lambda key, now: mint(key, exp=now - 60),
    "no exp": lambda key, _: mint(key, without=["exp"]),
    "exp as a word": lambda key, _: mint(key, exp="tomorrow"),
    "not valid yet": lambda key, now: mint(key, nbf=now + 100),
    "another audience": lambda key, _: mint(key, aud="billing"),
    "other audiences": lambda key, _: mint(key, aud=["billing", "orders2"]),
    "audience as part of a text": lambda key, _: mint(key, aud="orders billing"),
    "no audience": lambda key, _: mint(key, without=["aud"]),
    "another issuer": lambda key, _: mint(key, iss="https://sts.example.com"),
    "issuer with a slash more": lambda key, _: mint(key, iss=ISSUER + "/"),
    "no issuer": lambda key, _: mint(key, without=["iss"]),
    "typ JWT": lambda key, _: mint(key, header={"typ": "JWT"}),
    "typ of a logout token": lambda key, _: mint(key, header={"typ": "logout+jwt"}),
    "no typ": lambda key, _: mint(key, header={"typ": None}),
    "a critical extension": lambda key, _: mint(key, header={"crit": ["exp"]}),
    "alg none": lambda *_: unsigned("none"),
    "alg nOnE": lambda *_: unsigned("nOnE"),
    "a good signature under the name of none": lambda key, _: signed(key, "none"),
    "a good signature under the name of ES384": lambda key, _: signed(key, "ES384"),
    "HS256 with the public key": lambda key, _: signed_with_public_key(key),
    "a foreign key under our kid": lambda *_: mint(Key("first")),
    "a foreign key under its own kid": lambda *_: mint(Key("foreign")),
    "a foreign key in the header": lambda *_: mint(stranger := Key("foreign"), header={"jwk": stranger.jwk}),
    "no kid": lambda key, _: mint(key, header={"kid": None}),
    "a changed payload": lambda key, _: swap_payload(mint(key), mint(key, sub="u|mallory")),
    "a signature of zeros": lambda key, _: mint(key).rpartition(".")[0] + "." + base64url(bytes(64)),
    "a signature in DER": lambda key, _: der_signature(key),
    "no signature": lambda key, _: mint(key).rpartition(".")[0] + ".",
    "four parts": lambda key, _: mint(key) + ".x",
    "no token": lambda *_: "x",
    "a header that is a list": lambda key, _: f"{part(['ES256'])}.{mint(key).partition('.')[2]}",
    "a header nested deeply": lambda key, _: (
        f"{base64url(b'[' * 50_000 + b']' * 50_000)[:60_000]}.{mint(key).partition('.')[2]}"
    ),
    "a scope too few": lambda key, _: mint(key, scope="orders:write"),
    "a scope that only begins alike": lambda key, _: mint(key, scope="orders:read2 orders"),
    "no scope": lambda key, _: mint(key, without=["scope"]),
}


def swap_payload(token, other):
    head, _, signature = token.split(".")
    return f"{head}.{other.split('.')[1]}.{signature}"


@pytest.fixture(scope="module")
def settled(command):
    """One backend and its service for all tokens of a language, so that each costs no process."""
    service = Service()
    thread = threading.Thread(target=service.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    backend = Backend(*command, service.uri)
    yield service, backend
    backend.close()
    service.server.shutdown()
    thread.join()
    service.server.server_close()


@pytest.mark.parametrize("token", GOOD)
def test_a_good_token_passes(settled, token):
    service, backend = settled
    assert backend.verify(GOOD[token](service.key, int(time.time()))) == "good u|alice"


@pytest.mark.parametrize("token", BAD)
def test_a_bad_token_is_refused(settled, token):
    service, backend = settled
    assert backend.verify(mint(service.key)) == "good u|alice"
    assert backend.verify(BAD[token](service.key, int(time.time()))).startswith("refused")


def test_keys_are_fetched_once_and_invented_key_ids_do_not_flood_the_service(backend, service):
    assert backend.verify(mint(service.key)) == "good u|alice"
    for number in range(20):
        assert backend.verify(mint(Key(f"invented-{number}"))).startswith("refused")
        assert backend.verify(mint(service.key)) == "good u|alice"
    assert service.fetches == 1


def test_a_new_key_is_fetched_after_the_floor(backend, service):
    assert backend.verify(mint(service.key)) == "good u|alice"
    new = Key("second")
    service.published = [service.key.jwk, new.jwk]
    assert backend.verify(mint(new)).startswith("refused")
    assert backend.ask("zero floor") == "done"
    assert backend.verify(mint(new)) == "good u|alice"
    assert backend.verify(mint(service.key)) == "good u|alice"
    assert service.fetches == 2


def test_keys_of_other_kinds_in_the_set_do_no_harm(backend, service):
    service.published = [
        {"kty": "AKP", "alg": "ML-DSA-65", "use": "sig", "kid": "pq", "pub": "AA"},
        {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "Ed25519", "kid": "ed", "x": base64url(bytes(32))},
        service.key.jwk,
        Key("encryption").jwk | {"use": "enc", "alg": "ECDH-ES"},
    ]
    assert backend.verify(mint(service.key)) == "good u|alice"


def test_a_key_for_encryption_verifies_nothing(backend, service):
    other = Key("encryption")
    service.published = [service.key.jwk, other.jwk | {"use": "enc"}]
    assert backend.verify(mint(other)).startswith("refused")
    assert backend.verify(mint(service.key)) == "good u|alice"


def test_the_last_good_keys_serve_on_while_the_service_fails(backend, service):
    assert backend.verify(mint(service.key)) == "good u|alice"
    service.status = 503
    assert backend.ask("zero floor") == backend.ask("zero maxAge") == "done"
    assert backend.verify(mint(service.key)) == "good u|alice"
    assert backend.verify(mint(Key("unknown"))).startswith("refused")
    assert service.fetches == 3
    assert backend.verify(mint(service.key)) == "good u|alice"


def test_the_last_good_keys_do_not_serve_for_ever(backend, service):
    assert backend.verify(mint(service.key)) == "good u|alice"
    service.status = 503
    assert backend.ask("zero stale") == "done"
    assert backend.verify(mint(service.key)).startswith("refused")


def test_a_key_that_was_taken_back_verifies_nothing_once_the_set_is_fetched_again(backend, service):
    assert backend.verify(mint(service.key)) == "good u|alice"
    service.published = [Key("second").jwk]
    assert backend.verify(mint(service.key)) == "good u|alice"
    assert backend.ask("zero floor") == backend.ask("zero maxAge") == "done"
    assert backend.verify(mint(service.key)).startswith("refused")


def test_without_keys_nothing_passes(backend, service):
    service.status = 503
    assert backend.verify(mint(service.key)).startswith("refused")
    service.status = 200
    assert backend.ask("zero floor") == "done"
    assert backend.verify(mint(service.key)) == "good u|alice"
