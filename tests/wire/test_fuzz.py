"""`make fuzz` in small, and schemathesis from the published description: no answer but the described ones."""

import contextlib
import random
from functools import partial

import hypothesis
import pytest
import schemathesis
from harness import CLIENT, SECRET, b64
from schemathesis.checks import CHECKS, load_all_checks

from scripts.demo.provider import Provider
from scripts.demo.service import Service as Process
from scripts.fuzz import answers, callers, inputs, tls
from scripts.fuzz.__main__ import attempt_at, check_service, documents, requests, run
from scripts.fuzz.bounds import MEMORY_MB, THREADS, Size
from scripts.fuzz.inputs import bent
from scripts.fuzz.places import PARSER, Here, There, judge
from scripts.fuzz.world import FORMS, GOOD, Material, World, gateway

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
def world():
    with Provider() as provider, World(provider) as made:
        yield made


@pytest.fixture(scope="module")
def here(tmp_path_factory, world):
    with contextlib.closing(Here(tmp_path_factory.mktemp("here"), world)) as made:
        yield made


@pytest.fixture(scope="module")
def there(tmp_path_factory, world):
    directory = tmp_path_factory.mktemp("there")
    with Process(directory, "", world.configuration(directory)) as service:
        place = There.of(service, world)
        yield place
        check_service(service, place.who, None)


KINDS = [*inputs.KINDS, *callers.KINDS]


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_is_answered_with_anything_but_a_documented_answer(here, kind):
    seen = run(kind, requests(here.who)[kind], 200, partial(attempt_at, here), seed=7)
    assert seen.total() >= 200
    assert len(seen) > 1, "the inputs all end at one check"


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_over_a_socket_breaks_the_service(there, kind):
    run(kind, requests(there.who)[kind], 20, partial(attempt_at, there), seed=8)


@pytest.mark.parametrize("kind", callers.KINDS)
def test_what_a_kind_of_input_is_made_of_is_good_before_it_is_bent(here, kind):
    """Else all of its inputs would end at the first check."""
    good = {
        "introspect": lambda: callers.posted(
            b"/introspect", [(b"token", here.who.own)], callers.basic("orders-service")
        ),
        "api_key": lambda: callers.asked(CLIENT, (b"X-API-Key", here.who.api_key)),
        "certificate": lambda: callers.exchange(
            world_leaf(here), callers.CERTIFICATE, [], callers.basic("xfcc-gateway")
        ),
        "assertion": lambda: callers.exchange(
            here.who.token, callers.JWT, [], (b"Authorization", b"Bearer " + here.who.world.holding())
        ),
        "claims": lambda: callers.exchange(
            here.who.world.person(), callers.JWT, [], callers.basic(CLIENT), audience=b"guarded"
        ),
        "actor": lambda: callers.exchange(
            here.who.token,
            callers.JWT,
            [(b"actor_token", here.who.world.person()), (b"actor_token_type", callers.JWT)],
            callers.basic(CLIENT),
        ),
        "own": lambda: callers.exchange(
            here.who.own, callers.JWT, [], callers.basic("orders-service"), audience=b"billing"
        ),
    }
    assert attempt_at(here, good[kind]()) == "200"


def world_leaf(here):
    return b64(here.who.world.leaf_der).encode()


@pytest.mark.parametrize("form", FORMS)
def test_a_certificate_in_each_form_is_good_before_it_is_bent(here, form):
    world = here.who.world
    pairs = callers.handed(form, world.leaf_der, world.leaf_pem)
    assert attempt_at(here, callers.asked(gateway(form), *pairs)) == "200"


@pytest.mark.parametrize("path", GOOD)
def test_no_answer_of_a_server_that_is_asked_is_a_fault_of_ours(here, path):
    with answers.said(here, path) as attempt:
        assert attempt(here.who.world.outside.says[path]) == "200"
        seen = run(f"{path} answer", answers.http_answers(path), 120, attempt, seed=7)
    assert seen.keys() > {"503"}


@pytest.mark.parametrize("kind", ["JWKS", "recipient's JWKS", "CRL", "OCSP", "certificate file"])
def test_no_document_is_a_fault_of_its_parser(world, tmp_path, kind):
    strategy, attempt = documents(world, tmp_path)[kind]
    assert len(run(kind, strategy, 300, attempt, seed=7)) > 1, "they all end at one check"


def test_no_tls_record_breaks_the_service(tmp_path, world):
    listener = tls.Listener(tmp_path)
    configuration = world.configuration(tmp_path, listen={"address": "127.0.0.1:{port}", "tls": listener.settings})
    with Process(tmp_path, "", configuration, tls=listener.context()) as service:
        assert tls.fuzz(listener, service.port, 40, seed=7).total() == 40
        assert not tls.renegotiate(service.port)
        check_service(service, Material(world.provider.token().encode(), world), None)


def test_a_fault_is_found_and_shown_with_its_input(here):
    """The check of the check: a server that repeats a token is caught, and one that tells the audit."""

    def leaks(data):
        return judge((200, {}, data), here.who.token)

    with pytest.raises(AssertionError):
        run("form", requests(here.who)["form"], 50, leaks, seed=9)
    with pytest.raises(AssertionError, match="audit"):
        here.judge_told(here.who.api_key, decided=False)


def test_growth_beyond_the_bounds_is_found():
    with pytest.raises(AssertionError, match="MB"):
        Size(50.0, 10).check(Size(50.0 + MEMORY_MB, 10))
    with pytest.raises(AssertionError, match="threads"):
        Size(50.0, 10).check(Size(50.0, 10 + THREADS))


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
