"""One service, its description, raw sockets, and a good request after each test."""

import base64
import socket
import urllib.parse
from pathlib import Path

import pytest
import yaml
from harness import ACCESS_TOKEN, CLIENT, GRANT, SECRET, Answer
from openapi_schema_validator import OAS31Validator

ROOT = Path(__file__).resolve().parents[2]
FORM = "application/x-www-form-urlencoded"
BASIC = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
ADDED = {"server", "date", "connection", "content-length"}  # by the HTTP server, to every answer


class Description:
    """docs/openapi.yaml, and whether an answer is one that it describes."""

    def __init__(self, document):
        self.document = document

    def resolved(self, node):
        while isinstance(node, dict) and "$ref" in node:
            target = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def operations(self):
        for path, item in self.document["paths"].items():
            for method, operation in item.items():
                if method in {"get", "head", "post", "put", "patch", "delete", "options", "trace"}:
                    yield path, method, operation

    def responses(self, path, method):
        operation = self.document["paths"][path].get(method.lower())
        if operation is None:
            return {"405": self.resolved(self.document["paths"][path]["x-other-methods"])}
        return {status: self.resolved(one) for status, one in operation["responses"].items()}

    def reasons(self, path, method, status):
        """The `error_reason`s that are described for one status."""
        for media in self.responses(path, method)[str(status)].get("content", {}).values():
            return set(media["schema"]["properties"]["error_reason"]["enum"])
        return set()

    def check(self, path, method, answer):
        """Assert that `answer` is described: its status, exactly its headers, and its body."""
        described = self.responses(path, method).get(str(answer.status))
        assert described is not None, (path, method, answer)
        headers = {name.lower(): self.resolved(one) for name, one in described.get("headers", {}).items()}
        content_type = answer.headers.get("content-type")
        found = {name: value for name, value in answer.headers.items() if name not in ADDED | {"content-type"}}
        assert found.keys() <= headers.keys(), (path, method, answer)
        assert {name for name, header in headers.items() if header["required"]} <= found.keys(), (path, method, answer)
        for name, value in found.items():
            self.validate(headers[name]["schema"], value)
        content = described.get("content", {})
        assert (content_type or "").partition(";")[0] in (content or {""}), (path, method, answer)
        assert (answer.body == b"") == (method.lower() == "head" or not content), (path, method, answer)
        if answer.body and "json" in content_type:
            self.validate(content[content_type]["schema"], answer.json)
            assert answer.json.get("status") in (None, answer.status, "ok", "ready", "not ready")

    def validate(self, schema, value):
        OAS31Validator({**schema, "components": self.document["components"]}).validate(value)


@pytest.fixture(scope="session")
def description():
    return Description(yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def credential(idp):
    """One good token for all tests that are not about tokens."""
    return idp.token(exp=4_000_000_000)


@pytest.fixture(scope="session")
def form(credential):
    """The pairs of a good form, with changes and more pairs; None leaves a parameter out."""

    def form(more=(), **changes):
        good = {
            "grant_type": GRANT,
            "subject_token": credential,
            "subject_token_type": ACCESS_TOKEN,
            "audience": "orders",
        }
        return [(name, value) for name, value in {**good, **changes}.items() if value is not None] + list(more)

    return form


@pytest.fixture(scope="session")
def post(service, form):
    """POST /token with these bytes (a good form, if none are given); headers of None are left out."""

    def post(body=None, target="/token", method="POST", **headers):
        if body is None:
            body = urllib.parse.urlencode(form()).encode()
        good = {"Content-Type": FORM, "Authorization": f"Basic {BASIC}"}
        good |= {name.replace("_", "-"): value for name, value in headers.items()}
        return service.request(method, target, {name: value for name, value in good.items() if value is not None}, body)

    return post


@pytest.fixture(scope="session")
def asked(service, credential):
    """Ask at forward-auth with these header pairs instead of, or (`more`) beside, the good ones."""

    def asked(more=(), method="GET", target=f"/forward-auth/{CLIENT}", body=None, **changes):
        good = {
            "X-Gateway-Secret": SECRET,
            "X-Original-Method": "GET",
            "X-Original-URI": "/orders/7",
            "X-Original-Host": "api.example.com",
            "Authorization": f"Bearer {credential}",
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }
        pairs = [(name, value) for name, value in good.items() if value is not None]
        return service.request(method, target, [*pairs, *more], body)

    return asked


def read_answers(data, heads=()):
    """The answers in these bytes, one after the other; interim ones (1xx) too. `heads` are those without body."""
    answers = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, head
        status, *lines = head.decode("latin-1").split("\r\n")
        answer = Answer(int(status.split(" ")[1]), [line.split(": ", 1) for line in lines], b"")
        if answer.status >= 200 and answer.status != 304 and len(answers) not in heads:
            length = int(answer.headers["content-length"])
            answer.body, data = data[:length], data[length:]
            assert len(answer.body) == length
        answers.append(answer)
    return answers


@pytest.fixture(scope="session")
def raw(service):
    """Send raw bytes, in pieces if they come as several; read until the service closes. Returns all answers."""

    def raw(*pieces, seconds=60.0, half_close=False, heads=()):
        received = b""
        with socket.create_connection(("127.0.0.1", service.port), timeout=seconds) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for piece in pieces:
                    connection.sendall(piece)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    received += chunk
            except ConnectionError:  # it was refused before all of it was sent
                pass
        return read_answers(received, heads)

    return raw


@pytest.fixture(autouse=True)
def _still_there(request):
    """After each test a good request is answered, and nothing of ours broke on the way."""
    if "service" not in request.fixturenames:
        yield
        return
    service, token = request.getfixturevalue("service"), request.getfixturevalue("credential")
    yield
    assert service.exchange(token).status == 200
    assert service.forward(token).status == 200
    log = service.log()
    assert '"level": "error"' not in log
    assert "Traceback" not in log
    assert token not in log
    assert SECRET not in log
