"""A policy server that may be slow, down or hostile: nothing but a JSON object in time is an answer."""

import json
import threading
import time

import pytest

from sts.errors import SOURCE_UNREACHABLE, Refusal
from sts.lookups.opa import OpaServer, OpaSettings

QUESTION = {"audience": "orders", "identity": {"subject": "ælice"}}


@pytest.fixture
def opa(fake_opa, clock):
    made = []

    def opa(timeout=5.0, waiters=2):
        settings = OpaSettings.model_construct(url=fake_opa.url, timeout=timeout, ca_file=None)
        made.append(OpaServer(settings, clock, waiters))
        return made[-1]

    yield opa
    for server in made:
        server.close()


def test_the_question_is_posted_as_input_and_the_answer_comes_back(opa, fake_opa):
    fake_opa.headers = {"Cache-Control": "max-age=7"}
    said = opa().ask(QUESTION)
    assert (said.document, said.max_age) == ({"result": True}, 7.0)
    ((path, headers, body),) = fake_opa.requests
    assert (path, headers["Content-Type"]) == ("/v1/data/sts/allow", "application/json")
    assert json.loads(body) == {"input": QUESTION}


def test_connections_are_kept(opa, fake_opa):
    server = opa()
    assert [server.ask(QUESTION).max_age for _ in range(5)] == [None] * 5
    assert fake_opa.connections == 1


def drip(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(2000):
        handler.wfile.write(b'{"result": true}' + b" " * 1000)


HOSTILE = {
    "an error": lambda handler: handler.reply(b'{"result": true}', 500),
    "not found": lambda handler: handler.reply(b"{}", 404),
    "another success": lambda handler: handler.reply(b'{"result": true}', 201),
    "a redirect": lambda handler: handler.reply(b'{"result": true}', 307, {"Location": handler.path}),
    "garbage": lambda handler: handler.reply(b"\x00\xff"),
    "HTML": lambda handler: handler.reply(b"<html>true</html>"),
    "nothing": lambda handler: handler.reply(b""),
    "a bare true": lambda handler: handler.reply(b"true"),
    "a list": lambda handler: handler.reply(b'[{"result": true}]'),
    "two results": lambda handler: handler.reply(b'{"result": false, "result": true}'),
    "too deep": lambda handler: handler.reply(b'{"result": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "huge": lambda handler: handler.reply(b'{"result": true, "x": "' + b"x" * 100_000 + b'"}'),
    "endless": endless,
    "a content encoding": lambda handler: handler.reply(b'{"result": true}', headers={"Content-Encoding": "gzip"}),
    "cut off": lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
    "no HTTP": lambda handler: handler.wfile.write(b"\x16\x03\x01"),
    "slow": lambda _handler: time.sleep(40),
    "a byte at a time": drip,
}


@pytest.mark.parametrize("says", HOSTILE.values(), ids=HOSTILE)
def test_everything_but_a_json_object_in_time_is_no_answer(opa, fake_opa, refused, says):
    fake_opa.says = says
    began = time.monotonic()
    server = opa(timeout=2.0)
    with refused(SOURCE_UNREACHABLE) as caught:
        server.ask(QUESTION)
    assert time.monotonic() - began < 30
    assert "ælice" not in str(caught.value.facts)
    fake_opa.says = True
    assert server.ask(QUESTION).document == {"result": True}


def test_a_server_that_is_not_there_is_no_answer_and_soon_not_asked_any_more(opa, fake_opa, refused):
    fake_opa.close()
    server = opa()
    for _ in range(3):
        with refused(SOURCE_UNREACHABLE) as caught:
            server.ask(QUESTION)
    assert server.trouble
    with refused(SOURCE_UNREACHABLE) as caught:
        server.ask(QUESTION)
    assert "not asked" in caught.value.facts["why"]


def test_a_slow_server_holds_no_more_requests_than_may_wait_and_the_others_are_told_at_once(opa, fake_opa):
    release = threading.Event()
    fake_opa.says = lambda handler: (release.wait(60), handler.reply(b'{"result": true}'))
    server, answers = opa(timeout=5.0, waiters=2), []
    waiting = [threading.Thread(target=lambda: answers.append(server.ask(QUESTION))) for _ in range(2)]
    for thread in waiting:
        thread.start()
    while len(fake_opa.asked) < 2:
        time.sleep(0.01)
    with pytest.raises(Refusal) as caught:
        server.ask(QUESTION)
    assert "too many" in caught.value.facts["why"]
    release.set()
    for thread in waiting:
        thread.join()
    assert len(answers) == 2


@pytest.mark.parametrize(
    "url",
    [
        *("http://opa.example.internal/v1/data/sts/allow", "https://opa.example.internal/v1/policies/x"),
        *(
            "http://localhost:8181/v1/data/sts/allow",
            "https://u:p@opa.example.internal/v1/data/x",
            "ftp://127.0.0.1/v1/data/x",
        ),
        *("https://opa.example.internal", "https://opa.example.internal/?/v1/data/", ""),
    ],
)
def test_only_a_rule_over_tls_or_on_this_machine_is_a_url(url):
    with pytest.raises(ValueError, match="url"):
        OpaSettings.model_validate({"url": url})


@pytest.mark.parametrize("timeout", ["0s", "6s", "1m", 1])
def test_the_wait_is_bounded(timeout):
    with pytest.raises(ValueError, match="timeout"):
        OpaSettings.model_validate({"url": "https://opa.example.internal/v1/data/x", "timeout": timeout})
    assert OpaSettings.model_validate({"url": "https://opa.example.internal/v1/data/x"}).timeout == 0.2
