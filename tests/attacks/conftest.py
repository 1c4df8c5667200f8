"""One way to send a credential to both doors, and what must hold of every refusal there, whatever was sent."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from harness import ACCESS_TOKEN, CLIENT, GRANT, JWT, SECRET, Idp, Key, Service, Trap, b64

from sts.trust.remote_jwks import LACKS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
ROW = re.compile(r"^\| `(\w+)` \| (?:(\d+) `(\w+)`|-) \| (?:(\d+)[^|]*|-) \| (.*) \|$", re.MULTILINE)
DOCUMENTED = {
    name: (int(status or 0), error, int(forward or 0), sentence)
    for name, status, error, forward, sentence in ROW.findall(DOCUMENT.read_text(encoding="utf-8"))
}
TOLD_AT_401 = {"missing_credential", "expired"}
HEADER_LIMIT = 8190  # gunicorn's, for a whole field
MARKS = ("alice", "agency-7", "accountant")  # values of the provider's claims
BODY_TEXT = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §5.2


def secret_of(client):
    """The secret of a client of `World` (and of contract/minimal.yaml)."""
    return SECRET if client == CLIENT else f"{client}-secret-for-tests-only"


class Doors:
    """Both doors of one service. `refuse` asserts all that every refusal has in common, `accept` the opposite."""

    def __init__(self, service, trap):
        self.service, self.trap = service, trap
        self.audit_read, self.events, self.log_read = 0, {}, 0

    def at_token(self, token, token_type=ACCESS_TOKEN, *, audience="orders", client=CLIENT, secret=None, **form):
        form = {
            "grant_type": GRANT,
            "subject_token": token,
            "subject_token_type": token_type,
            "audience": audience,
            **form,
        }
        form = {name: value for name, value in form.items() if value is not None}
        return self.service.post(form, client=client, secret=secret or secret_of(client))

    def at_forward(self, token, uri="/orders/7", *, client=CLIENT, secret=None, method="GET", headers=()):
        pairs = [
            ("X-Gateway-Secret", secret or secret_of(client)),
            ("X-Original-Method", method),
            ("X-Original-URI", uri),
            ("X-Original-Host", "api.example.com"),
            *([] if token is None else [("Authorization", f"Bearer {token}".encode())]),
            *headers,
        ]
        return self.service.request("GET", f"/forward-auth/{client}", pairs)

    def event(self, answer):
        """The audit event of one answer, and its line."""
        with self.service.audit_file.open("rb") as file:
            file.seek(self.audit_read)
            lines = file.read()
        self.audit_read += len(lines)
        for line in lines.decode().splitlines():
            event = json.loads(line)
            self.events[event["request_id"]] = (event, line)
        return self.events[answer.headers["x-request-id"]]

    def refuse(self, token, reason, *, as_jwt=None, at_forward=None):
        """A token is refused for `reason`; `as_jwt` where it is declared a JWT, `at_forward` at the other door."""
        answers = [
            self.refused(self.at_token(token), reason, token),
            self.refused(self.at_token(token, JWT), as_jwt or reason, token),
        ]
        answer = self.at_forward(token)
        if len(token) + len("Authorization: Bearer ") > HEADER_LIMIT:
            assert answer.status == 431
        else:
            answers.append(self.refused(answer, at_forward or reason, token))
        return answers

    def refused(self, answer, reason, token=""):
        """This answer is the documented refusal for `reason`, and holds nothing of the token. Returns the event."""
        event, line = self.event(answer)
        if reason == "unknown_key" and event["facts"]["why"] == LACKS:  # nor does it pass where it may be a new key
            reason = "source_unreachable"
        assert (event["outcome"], event["reason"]) == ("refused", reason), (answer, event.get("facts"))
        assert event["duration_us"] < 1_000_000
        assert event["jti"] is event["kid"] is event["exp"] is None
        assert answer.headers["cache-control"] == "no-store"
        if event["door"] == "token":
            _is_oauth_error(answer, reason)
        else:
            _is_problem(answer, reason)
        with self.service.log_file.open("rb") as file:
            file.seek(self.log_read)
            log = file.read()
        self.log_read += len(log)
        told = f"{answer.headers} {answer.body.decode('ascii')} {line} {log.decode()}"
        for part in (*MARKS, *(part for part in token.split(".") if len(part) > 11)):
            assert part not in told
        assert self.trap.connections == 0
        return event

    def accept(self, token, **ask):
        """A token passes both doors; returns the claims that each hands out."""
        found = []
        for answer in (self.at_token(token, **ask), self.at_token(token, JWT, **ask), self.at_forward(token)):
            assert answer.status == 200, (answer, self.event(answer))
            found.append(self.service.verified(answer.token))
        assert self.trap.connections == 0
        return found


def _is_oauth_error(answer, reason):
    status, error, _, sentence = DOCUMENTED[reason]
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {"error": error, "error_reason": reason, "error_description": sentence}
    assert BODY_TEXT.fullmatch(sentence)
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert ("retry-after" in answer.headers) == (status == 503)


def _is_problem(answer, reason):
    _, _, status, sentence = DOCUMENTED[reason]
    assert answer.status == status
    if status == 401 and reason not in TOLD_AT_401:
        reason, sentence = "invalid_credential", "The credential is not valid."
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-auth-reason"] == reason
    problem = answer.json
    assert problem.pop("title")
    assert problem == {
        "type": f"urn:sts:error:{reason}",
        "status": status,
        "detail": sentence,
        "error_reason": reason,
        "instance": f"urn:sts:request:{answer.headers['x-request-id']}",
    }
    if status == 401:
        challenge = 'Bearer realm="sts"'
        if reason != "missing_credential":
            challenge += f', error="invalid_token", error_description="{sentence}"'
        assert answer.headers["www-authenticate"] == challenge
    assert "authorization" not in answer.headers
    assert "x-user-id" not in answer.headers


@pytest.fixture(scope="session")
def trap():
    """A listener whose address hostile tokens name."""
    listener = Trap()
    yield listener
    listener.socket.close()


@pytest.fixture(scope="session")
def doors(service, trap):
    """Both doors of a service on contract/minimal.yaml."""
    return Doors(service, trap)


@pytest.fixture(scope="session")
def thief():
    """Somebody else's keys, with the key ids of the provider."""
    return {"RS256": Key("rsa-1", "RS256"), "ES256": Key("ec-1", "ES256")}


@pytest.fixture(scope="session")
def make_source():
    """A source's settings, good for all tokens of `Idp`: `make_source(name, **changes)`."""
    return source


@pytest.fixture(scope="session")
def sign():
    """Sign claims with header and payload given as text, bytes or data, so that a test can put anything into them."""

    def part(value):
        return b64(value.encode() if isinstance(value, str) else value)

    def signed(key, header=None, claims=None):
        return key.sign_raw(part({"alg": key.alg, "kid": key.kid} if header is None else header), part(claims))

    return signed


ALL = ["orders", "billing", "open", "asleep"]


def client(name, **changes):
    good = {
        "auth": "secret",
        "secrets": [f"sha256:{hashlib.sha256(secret_of(name).encode()).hexdigest()}"],
        "audiences": ALL,
        "sources": ["first", "second", "odd", "file"],
        "profile": "nginx",
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def source(name, **changes):
    return {
        "type": "jwt",
        "issuer": f"https://{name}.example",
        "algorithms": ["RS256", "ES256"],
        "audience": ["api-gateway"],
        "audiences": ALL,
        "namespace": name,
        "identity": {
            "subject": "claims.sub",
            "scopes": "claims.scope",
            "tenant": "claims.agency_id",
            "note": "claims.note",
        },
        **changes,
    }


def world_of(first, second, odd):
    """Two issuers whose keys have the same ids, one with a cabinet of odd keys, one whose keys stand in a file."""
    return {
        "issuer": "https://sts.example.internal",
        "workers": 1,
        "clients": {
            CLIENT: client(CLIENT, actors=["second"]),
            "twin": client("twin"),
            "narrow": client("narrow", audiences=["billing"], sources=["second"]),
            "token-only": client("token-only", profile=None),
            "asleep": client("asleep", enabled=False),
        },
        "sources": {
            "first": source(
                "first", jwks_uri=first, algorithms=["RS256", "PS256", "ES256", "ES384", "ES512", "Ed25519"]
            ),
            "second": source("second", jwks_uri=second),
            "odd": source("odd", jwks_uri=odd),
            "file": source("file", jwks_file="file.jwks.json", audiences=["orders"]),
        },
        "audiences": {
            "orders": {
                "scopes": ["orders:read", "orders:write"],
                "claims": {"tenant": "identity.tenant"},
                "headers": {"X-User-ID": "identity.subject", "X-Note": "identity.note"},
            },
            "billing": {"scopes": ["billing:read"]},
            "open": {"claims": {"tenant": "identity.tenant"}},
            "hidden": {},
            "asleep": {"enabled": False},
        },
        "routes": {
            "orders": {"path": "/orders/**", "methods": ["GET"], "audience": "orders", "scopes": ["orders:read"]},
            "write": {"path": "/orders/**", "methods": ["POST"], "audience": "orders", "scopes": ["orders:write"]},
            "billing": {"path": "/billing/**", "audience": "billing", "scopes": ["billing:read"]},
            "open": {"path": "/open/**", "audience": "open"},
            "hidden": {"path": "/hidden/**", "audience": "hidden"},
            "asleep": {"path": "/asleep/**", "audience": "asleep"},
        },
    }


class Providers:
    """The four issuers of a world; making their keys costs more than starting a service."""

    def __init__(self):
        self.first, self.second, self.odd, self.file = (
            Idp(f"https://{name}.example") for name in ("first", "second", "odd", "file")
        )
        # PyJWT knows the algorithm by its older name only.
        self.more = {alg: Key(alg.lower(), alg) for alg in ("PS256", "ES384", "ES512")}
        self.more["Ed25519"] = Key("ed25519", "EdDSA")
        self.more["Ed25519"].jwk["alg"] = "Ed25519"
        self.first.keys += [key.jwk for key in self.more.values()]
        self.good = {provider: [dict(jwk) for jwk in provider.keys] for provider in self.all()}

    def all(self):
        return (self.first, self.second, self.odd, self.file)

    def mend(self):
        """Undo what a test has bent."""
        for provider in self.all():
            provider.keys, provider.answer, provider.fetches = [dict(jwk) for jwk in self.good[provider]], None, 0

    def close(self):
        for provider in self.all():
            provider.close()


class World:
    """The four issuers, the configuration that believes them, and once started the service and its doors."""

    def __init__(self, directory, trap, providers):
        self.directory, self.trap, self.service = Path(directory), trap, None
        self.first, self.second, self.odd, self.file = providers.all()
        self.more = providers.more
        self.configuration = world_of(self.first.url, self.second.url, self.odd.url)
        self.write_file(self.file.keys)

    def token(self, alg, **changes):
        """A good token of the first issuer under one of its algorithms."""
        key = {"RS256": self.first.rsa, "ES256": self.first.ec}.get(alg) or self.more[alg]
        return self.first.token(key, {"alg": alg}, **changes)

    @property
    def text(self):
        """The configuration as a file: JSON is YAML."""
        return json.dumps(self.configuration, indent=1)

    def write_file(self, keys):
        """Write the JWK set that the source `file` reads."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "file.jwks.json").write_text(json.dumps({"keys": keys}), encoding="utf-8")

    def start(self):
        self.service = Service(self.directory, self.text)
        self.doors = Doors(self.service, self.trap)
        return self

    def reload(self):
        self.service.write(self.text)
        assert self.service.reload()["event"] == "reloaded"

    def stop(self):
        assert self.service is None or self.service.stop() == 0, self.service.log()


@pytest.fixture(scope="session")
def world(tmp_path_factory, trap):
    """One world for all tests that do not change it."""
    providers = Providers()
    made = World(tmp_path_factory.mktemp("world"), trap, providers)
    yield made.start()
    made.stop()
    providers.close()


@pytest.fixture(scope="session")
def spare_providers():
    """Issuers for the worlds that are bent, one after the other."""
    providers = Providers()
    yield providers
    providers.close()


@pytest.fixture
def own_world(tmp_path, trap, spare_providers):
    """A world to bend: before `start`, or while it runs, with `reload`."""
    made = World(tmp_path / "world", trap, spare_providers)
    yield made
    made.stop()
    spare_providers.mend()
