"""docs/openapi.yaml describes what the service gives, and nothing else, by its code and by real answers."""

import http.client
import json

import pytest
from openapi_spec_validator import validate

import sts
from sts.clients import failures
from sts.edge import form, token
from sts.edge.discovery import metadata
from sts.errors import REASONS, Reason

DOOR = "/forward-auth/{client_id}"
FORWARD_AUTH_ONLY = {"no_route", "ambiguous_path", "unsafe_header_value", "profile_header_missing"}
TOKEN_ONLY = {"audience_missing"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
PAGES = ("/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")


def reasons(status_of, *, without):
    """All reasons of the code by status at one door, the derived ones too."""
    derived = [one for module in (form, token, failures) for one in vars(module).values() if isinstance(one, Reason)]
    found = {}
    for reason in [*REASONS.values(), *derived]:
        if reason.name not in without:
            found.setdefault(status_of(reason), set()).add((reason.error, reason.name))
    return found


def test_the_description_is_valid_openapi(description):
    validate(description.document)


def test_the_description_has_the_version_of_the_package(description):
    from importlib.metadata import version  # noqa: PLC0415 - only here

    assert description.document["info"]["version"] == version(sts.__name__)


def test_every_path_of_the_service_is_described_and_no_other(description):
    """What Flask serves, and what stands before it: the two doors and the introspection of our own tokens."""
    from sts.edge.discovery import discovery, health, site  # noqa: PLC0415 - the rest of this file is about HTTP

    app = site(
        discovery("https://sts.example.internal", dict, lambda: 0.0), health(lambda: None, lambda: ("", b""), tuple)
    )
    served = {(rule.rule, method.lower()) for rule in app.url_map.iter_rules() for method in rule.methods}
    described = {(path, method) for path, method, _ in description.operations()}
    doors = {(path, method) for path, method in described if path in ("/token", "/introspect", DOOR)}
    assert described - doors == served
    assert doors == {("/token", "post"), ("/introspect", "post")} | {
        (DOOR, method.lower()) for method in METHODS if method != "PROPFIND"
    }


def test_every_reason_of_the_token_door_is_described_with_its_status_and_code_and_no_other(description):
    """EP-09."""
    wanted = reasons(lambda reason: reason.token_status, without=FORWARD_AUTH_ONLY)
    described = {}
    responses = description.responses("/token", "post") | description.responses("/token", "get")
    for status, response in responses.items():
        if status != "200":
            properties = response["content"]["application/json"]["schema"]["properties"]
            codes = properties["error"].get("enum") or [properties["error"]["const"]]
            described[int(status)] = (set(codes), set(properties["error_reason"]["enum"]))
    assert described == {
        status: ({error for error, _ in pairs}, {name for _, name in pairs}) for status, pairs in wanted.items()
    }


def test_introspection_refuses_as_the_token_door_does_and_for_no_other_reason(description):
    at_token = description.responses("/token", "post")
    for status, response in description.responses("/introspect", "post").items():
        if status not in {"200", "400"}:
            assert response == at_token[status]
    assert description.responses("/introspect", "get") == description.responses("/token", "get")


def test_every_reason_of_forward_auth_is_described_with_its_status_and_no_other(description):
    wanted = {
        status: {name for _, name in pairs}
        for status, pairs in reasons(lambda reason: reason.forward_status, without=TOKEN_ONLY).items()
    }
    wanted[401] = {"missing_credential", "expired", "invalid_credential"}  # a stranger is told no more
    described = {status: description.reasons(DOOR, "get", status) for status in description.responses(DOOR, "get")}
    assert {int(status): names for status, names in described.items() if status != "200"} == wanted


def test_the_description_of_the_metadata_is_its_content(description):
    wanted = metadata("https://sts.example.internal")
    schema = description.document["components"]["schemas"]["Metadata"]
    assert set(schema["required"]) == set(wanted)
    assert set(schema["properties"]) == set(metadata("https://sts.example.internal", mutual_tls=True))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_every_path_gets_what_is_described(service, description, asked, post, method):
    """EP-01: also the methods that no path lists."""
    for path in description.document["paths"]:
        if path == DOOR:
            listed = method if method != "PROPFIND" else "GET"
            description.check(path, listed, asked(method=method))
            description.check(path, listed, asked(method=method, Authorization=None))
            description.check(path, listed, asked(method=method, X_Gateway_Secret="no"))
            description.check(path, listed, asked(method=method, X_Original_Host=None))
        elif path == "/token":
            description.check(path, method, post(method=method))
        else:
            description.check(path, method, service.request(method, path))


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_page_that_has_not_changed_is_not_sent_again(service, description, path, method):
    first = service.request(method, path)
    description.check(path, method, first)
    for known in (first.headers["etag"], "*", f'"x", W/{first.headers["etag"]}'):
        again = service.request(method, path, {"If-None-Match": known})
        assert again.status == 304
        description.check(path, method, again)
    assert service.request(method, path, {"If-None-Match": '"other"'}).status == 200


def test_operators_alone_read_metrics_and_a_forwarded_request_finds_nothing(service, description):
    assert service.get("/metrics").headers["content-type"].startswith("text/plain")
    answer = service.get("/metrics", {"X-Forwarded-For": "127.0.0.1"})
    assert answer.status == 404
    description.check("/metrics", "get", answer)
    ready = service.get("/readyz", {"X-Forwarded-For": "127.0.0.1"})
    assert ready.json == {"status": "ready"}


@pytest.mark.parametrize("host", ["st..", "..", "a..b"])
def test_a_page_asked_for_under_no_host_at_all_is_refused_and_a_door_does_not_look(raw, description, host):
    for path in ("/healthz", "/readyz", "/metrics", *PAGES):
        (answer,) = raw(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1"))
        assert answer.status == 400
        description.check(path, "get", answer)
    (answer,) = raw(f"GET /token HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1"))
    assert answer.status == 405


def test_a_page_that_is_not_there_is_a_problem_document(service, description):
    """ER-01."""
    response = description.resolved({"$ref": "#/components/responses/NotFound"})
    for target in ("/", "/nothing", "/token/", "/%74oken", "/TOKEN", "/.well-known/", "/%00", "/<script>", "/a" * 1000):
        answer = service.get(target)
        assert answer.status == 404, target
        description.validate(response["content"]["application/problem+json"]["schema"], answer.json)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"
        assert target.strip("/") not in json.dumps(answer.json) or target == "/"


def test_a_status_line_is_the_one_of_the_standard(service):
    """The reason phrase is for people, yet the same at both doors and on the pages."""
    for target, status in (("/token", 405), ("/healthz", 200), ("/nothing", 404)):
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        connection.request("GET", target)
        answer = connection.getresponse()
        assert answer.status == status
        assert answer.reason.lower() == http.client.responses[status].lower()
        connection.close()
