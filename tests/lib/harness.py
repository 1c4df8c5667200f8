"""A real service over real sockets, and an identity provider whose every answer a test may bend.

`Idp` signs with PyJWT and `cryptography`, never with our own code. `Service` is `sts serve` as a user starts it, with
gunicorn workers, from a configuration file. What it answered, audited and logged is kept for a test to read.
"""

import base64
import contextlib
import http.client
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from web import Web

from scripts.nginx import free_port

MINIMAL = Path(__file__).resolve().parent.parent / "settings" / "data" / "minimal.yaml"
SECRET = "edge-gateway-secret-for-tests-only"
CLIENT = "edge-gateway"
ISSUER = "https://sts.example.internal"
IDP = "https://idp.example.com"
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"


def b64(data):
    data = data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def decoded(token):
    """Header and claims of a token, unverified."""
    header, claims, _ = token.split(".")
    return json.loads(unb64(header)), json.loads(unb64(claims))


def wait_for(condition, seconds=60.0, every=0.02):
    """Wait until `condition()` is true, or fail the test: for as long as the slowest machine may need."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(every)
    return found


def in_time(attempt, lives=(3, 10, 40, 160)):
    """The first `attempt(seconds)` that comes to something: with ever longer lives, until this machine is fast enough.

    For what ends after some seconds, and must have been used before.
    """
    for seconds in lives:
        if found := attempt(seconds):
            return found
    raise AssertionError("it ended each time before it was used")


def _has_loaded(worker):
    """Whether a worker has built its application: the last thing it does before it serves is to ignore SIGHUP."""
    with contextlib.suppress(OSError):  # it may be gone
        ignored = re.search(r"^SigIgn:\s*([0-9a-f]+)$", Path(f"/proc/{worker}/status").read_text(), re.MULTILINE)
        return bool(int(ignored[1], 16) >> (signal.SIGHUP - 1) & 1)
    return False


def _is_stopped(pid):
    """Whether no thread of the process runs any more."""
    try:
        threads = [thread.joinpath("stat").read_text() for thread in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:  # a thread has just ended, or the whole process
        return not Path(f"/proc/{pid}").exists()
    return all(stat.rpartition(")")[2].split()[0] in "TZX" for stat in threads)


class Key:
    """A signing key of an identity provider, and its public JWK."""

    def __init__(self, kid, alg="RS256"):
        self.kid, self.alg = kid, alg
        if alg[:2] in ("RS", "PS"):
            self.private, algorithm = rsa.generate_private_key(65537, 2048), RSAAlgorithm
        elif alg[:2] == "ES":
            curve = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}[alg]
            self.private, algorithm = ec.generate_private_key(curve()), ECAlgorithm
        else:
            self.private, algorithm = ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm
        self.jwk = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        self.jwk = {**self.jwk, "kid": kid, "use": "sig", "alg": alg}
        self.jwk.pop("key_ops", None)

    def sign(self, claims, header=None):
        """A signed JWT of exactly these claims; a header member that is None is left out."""
        wanted = {"kid": self.kid, "typ": "JWT", **(header or {})}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        alg = wanted.pop("alg", self.alg)
        header = {"alg": alg, **wanted}
        return self.sign_raw(b64(header), b64(claims))

    def sign_raw(self, header, claims):
        """Sign two encoded parts as they stand, so that a test can put anything into them."""
        signing_input = f"{header}.{claims}".encode()
        algorithm = jwt.get_algorithm_by_name(self.alg)
        return f"{header}.{claims}.{b64(algorithm.sign(signing_input, self.private))}"


class Idp(Web):
    """An identity provider: keys, a JWKS over HTTP, tokens. `answer` may be replaced by what a test needs."""

    protocol = "HTTP/1.0"

    def __init__(self, issuer=IDP):
        super().__init__()
        self.issuer = issuer
        self.rsa, self.ec = Key("rsa-1", "RS256"), Key("ec-1", "ES256")
        self.keys = [self.rsa.jwk, self.ec.jwk]
        self.fetches = 0
        self.url += "/jwks.json"

    def handle(self, handler):
        self.fetches += 1
        if self.answer is not None:
            self.answer(handler)
        else:
            handler.reply({"keys": self.keys})

    def claims(self, **changes):
        """Good claims with changes; a claim that is None is left out."""
        now = int(time.time())
        good = {
            "iss": self.issuer,
            "sub": "alice",
            "aud": "api-gateway",
            "iat": now - 5,
            "exp": now + 600,
            "scope": "orders:read orders:write billing:read",
            "roles": ["accountant"],
            "agency_id": "agency-7",
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def token(self, key=None, header=None, **changes):
        """A good token with changes."""
        return (key or self.rsa).sign(self.claims(**changes), header)


class Trap:
    """A listener to which nobody may ever connect."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()


class Answer:
    """One HTTP answer."""

    def __init__(self, status, headers, body):
        self.status, self.body = status, body
        self.headers = {}
        for name, value in headers:
            self.headers[name.lower()] = (
                f"{self.headers[name.lower()]}, {value}" if name.lower() in self.headers else value
            )

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def reason(self):
        """The stable reason: `error_reason` of a JSON refusal, or the problem type's last part."""
        found = self.json
        return found.get("error_reason") or found.get("type", "").rpartition(":")[2].rpartition("/")[2]

    @property
    def token(self):
        """The internal token of either door."""
        if self.body:
            return self.json["access_token"]
        return self.headers["authorization"].removeprefix("Bearer ")

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Service:
    """`sts serve` as a process, from a configuration file.

    `tls` is how the test speaks to one that has TLS (an `ssl.SSLContext`, with the test's certificate if it has one;
    may be changed between requests), `unix` the path of a socket at which it listens instead, `port` one that another
    service had, `through` a command that becomes the service (`prlimit`), `audit` what gets its standard output.
    """

    def __init__(
        self,
        directory,
        configuration,
        *,
        environment=None,
        ready=True,
        tls=None,
        unix=None,
        port=None,
        through=(),
        audit=None,
    ):
        self.tls, self.unix = tls, unix
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.file = self.directory / "sts.yaml"
        self.write(configuration)
        self.log_file = self.directory / "log"
        self.audit_file = self.directory / "audit.jsonl"
        with self.log_file.open("ab") as log, self.audit_file.open("ab") as audit_file:
            self.process = subprocess.Popen(
                [*through, sys.executable, "-m", "sts", "serve", "-c", str(self.file), "--listen", self.address()],
                stdin=subprocess.DEVNULL,
                stdout=audit_file if audit is None else audit,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        if ready:
            try:
                wait_for(self.is_complete, 120)  # a second where nothing else runs
                self.everywhere(self.is_ready)
            except BaseException:
                self.stop()  # nobody else could
                raise

    def address(self):
        return f"127.0.0.1:{self.port}" if self.unix is None else f"unix:{self.unix}"

    def write(self, configuration):
        """Write the configuration; unless it has an `audit` section, each event is there before its answer."""
        if "audit:" not in configuration and '"audit"' not in configuration:
            if configuration.startswith("{"):  # JSON
                configuration = '{"audit": {"flush": 0}, ' + configuration[1:]
            else:
                configuration += "\naudit: {flush: 0}\n"
        self.file.write_text(configuration, encoding="utf-8")

    def is_ready(self):
        """Whether the worker that is asked, which may be any of them, says that it is ready."""
        assert self.process.poll() is None, f"the service ended: {self.log()}"
        with contextlib.suppress(OSError):
            return self.get("/readyz").status == 200
        return False

    def is_complete(self):
        """Whether there are as many workers as are configured, each with its configuration loaded."""
        assert self.process.poll() is None, f"the service ended: {self.log()}"
        told = [json.loads(line) for line in self.log().splitlines() if '"event": "serving"' in line]
        return bool(told) and sum(map(_has_loaded, self.workers())) == told[-1]["workers"]

    def workers(self):
        """The pids of the worker processes, as the kernel knows them."""
        pid = self.process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    @contextlib.contextmanager
    def only(self, worker):
        """Let one worker alone serve: the others are stopped, and go on afterwards.

        Not for long: after 30 s without a sign of life the master replaces a worker. What takes its time is waited for
        with `everywhere`.
        """
        others = self.workers() - {worker}
        try:
            for pid in others:
                os.kill(pid, signal.SIGSTOP)
            wait_for(lambda: all(map(_is_stopped, others)), every=0.001)
            yield
        finally:
            for pid in others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def each(self, ask):
        """What `ask()` returns where one worker alone serves, for each of them."""
        found = []
        for worker in sorted(self.workers()):
            with self.only(worker):
                found.append(ask())
        return found

    def everywhere(self, condition, seconds=60.0):
        """Wait until `condition()` is true whichever worker serves. All may work between two looks."""
        return wait_for(lambda: all(self.each(condition)), seconds, every=0.1)

    def log(self):
        return self.log_file.read_text(encoding="utf-8")

    def events(self):
        """All audit events so far, oldest first."""
        return [json.loads(line) for line in self.audit_file.read_text(encoding="utf-8").splitlines()]

    def reload(self):
        """Send SIGHUP and wait until the master has said what came of it; returns that line."""
        before = len(self.log())
        self.process.send_signal(signal.SIGHUP)

        def told():
            lines = [line for line in self.log()[before:].splitlines() if line.startswith("{")]
            found = [json.loads(line) for line in lines]
            ends = ("reloaded", "reload refused, nothing has changed")
            return next((line for line in found if line["event"] in ends), None)

        return wait_for(told)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def connection(self):
        if self.unix is not None:
            return UnixConnection(self.unix, timeout=60)
        if self.tls is not None:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def request(self, method, target, headers=(), body=None):
        connection = self.connection()
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in dict(headers).items() if isinstance(headers, dict) else headers:
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def get(self, target, headers=()):
        return self.request("GET", target, headers)

    def raw(self, data, seconds=10.0):
        """Send raw bytes, read until the service closes or `seconds` are over; returns what came."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(data)
            received = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                while chunk := connection.recv(65536):
                    received += chunk
            return received

    def post(self, form, headers=None, *, client=CLIENT, secret=SECRET):
        """POST /token with a form: pairs or a mapping."""
        body = urllib.parse.urlencode(form).encode()
        basic = base64.b64encode(f"{client}:{secret}".encode()).decode()
        wanted = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Basic {basic}"}
        return self.request("POST", "/token", {**wanted, **(headers or {})}, body)

    def exchange(self, token, audience="orders", *, token_type=ACCESS_TOKEN, **fields):
        """Exchange a token at `/token`."""
        form = {"grant_type": GRANT, "subject_token": token, "subject_token_type": token_type, "audience": audience}
        return self.post({name: value for name, value in {**form, **fields}.items() if value is not None})

    def forward(self, token, uri="/orders/7", method="GET", host="api.example.com", *, client=CLIENT, **headers):
        """Ask at `/forward-auth` as nginx does; a header that is None is left out."""
        wanted = {
            "X-Gateway-Secret": SECRET,
            "X-Original-Method": method,
            "X-Original-URI": uri,
            "X-Original-Host": host,
            "Authorization": None if token is None else f"Bearer {token}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return self.request(
            "GET", f"/forward-auth/{client}", {name: value for name, value in wanted.items() if value is not None}
        )

    def jwks(self):
        return self.get("/.well-known/jwks.json").json

    def verified(self, token, audience="orders"):
        """The claims of a token of ours, verified by PyJWT against the JWKS that is served."""
        kid = jwt.get_unverified_header(token)["kid"]
        keys = jwt.PyJWKSet.from_dict(self.jwks())
        return jwt.decode(token, keys[kid], algorithms=["ES256"], audience=audience, issuer=ISSUER)


def minimal(idp, **replaced):
    """contract/minimal.yaml with the provider's address; `replaced` are texts by what stands there."""
    text = MINIMAL.read_text(encoding="utf-8").replace("http://127.0.0.1:9000/jwks.json", idp.url)
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="session")
def idp():
    """One provider for tests that only ask it for tokens. A test that bends it makes its own `Idp`."""
    provider = Idp()
    yield provider
    provider.close()


@pytest.fixture(scope="session")
def service(idp, tmp_path_factory):
    """One service on contract/minimal.yaml, with two workers, for all tests that do not change it."""
    running = Service(tmp_path_factory.mktemp("service"), minimal(idp) + "\nworkers: 2\n")
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture
def make_idp():
    """Make providers that a test may bend."""
    made = []

    def make(**arguments):
        made.append(Idp(**arguments))
        return made[-1]

    yield make
    for provider in made:
        provider.close()


@pytest.fixture
def make_service(tmp_path):
    """Start services on a configuration of the test's own."""
    made = []

    def make(configuration, **arguments):
        made.append(Service(tmp_path / f"service-{len(made)}", configuration, **arguments))
        return made[-1]

    yield make
    for running in made:
        running.stop()
