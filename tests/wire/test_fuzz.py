"""`make fuzz` in small, and schemathesis from the published description: no answer but the described ones."""

import contextlib
import random

import hypothesis
import pytest
import schemathesis
from harness import CLIENT, SECRET
from schemathesis.checks import CHECKS, load_all_checks

from scripts.fuzz.__main__ import run
from scripts.fuzz.inputs import KINDS, bent
from scripts.fuzz.places import PARSER, Here, There

load_all_checks()
WANTED = CHECKS.get_by_names(
    [
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)


@pytest.fixture(scope="module")
def here(tmp_path_factory, idp):
    with contextlib.closing(Here(tmp_path_factory.mktemp("here"), idp.url)) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_is_answered_with_anything_but_a_documented_answer(here, credential, kind):
    seen = run(kind, 250, here.send, credential.encode(), seed=7)
    assert seen.total() >= 250
    assert len(seen) > 1, "the inputs all end at one check"


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_over_a_socket_breaks_the_service(service, credential, kind):
    run(kind, 40, There(service.port).send, credential.encode(), seed=8)


def test_a_fault_is_found_and_shown_with_its_input(credential):
    """The check of the check: a server that repeats a token is caught."""

    def leaks(data):
        return 200, {}, data

    with pytest.raises(AssertionError):
        run("form", 50, leaks, credential.encode(), seed=9)


def test_bent_inputs_keep_their_framing():
    dice = random.Random(1)  # noqa: S311 - no secret hangs on it
    corpus = [b"POST /token HTTP/1.1\r\nContent-Length: 3\r\n\r\na=b"]
    for _ in range(200):
        head, end, body = bent(dice, corpus, whole=True).partition(b"\r\n\r\n")
        assert end
        assert b"\nContent-Length: " not in head or head.endswith(b"\nContent-Length: %d" % len(body))


@pytest.fixture(scope="module")
def schema(description, service):
    loaded = schemathesis.openapi.from_dict(description.document)
    loaded.config.update(base_url=f"http://127.0.0.1:{service.port}")
    return loaded


GOOD, BAD = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
DOORS = [("/token", "POST"), *(("/forward-auth/{client_id}", method) for method in ("GET", "POST", "OPTIONS"))]
PAGES = [("/.well-known/jwks.json", "GET"), ("/.well-known/openid-configuration", "HEAD"), ("/readyz", "GET")]


@pytest.mark.parametrize(
    ("operation", "mode"), [(one, mode) for one in DOORS for mode in (GOOD, BAD)] + [(one, GOOD) for one in PAGES]
)
def test_schemathesis_finds_no_answer_that_is_not_described(schema, operation, mode):
    """Half of the requests as a good client, so that more than its authentication is reached."""
    path, method = operation
    operation = schema[path][method]

    @hypothesis.settings(
        max_examples=10, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), known=hypothesis.strategies.booleans())
    def one(case, known):
        headers, auth = {}, None
        if known and path == "/token":
            auth = (CLIENT, SECRET)
        elif known and "{client_id}" in path:
            case.path_parameters["client_id"] = CLIENT
            headers = {"X-Gateway-Secret": SECRET}
        response = case.call(headers=headers, auth=auth)
        if response.status_code not in PARSER - {400, 413} and response.headers.get("content-type") != ["text/html"]:
            case.validate_response(response, checks=WANTED)

    one()
