"""`sts exchange` against the running service, and against what is no such service."""

import base64
import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import urllib.parse

import pytest
import trustme
from harness import ACCESS_TOKEN, CLIENT, GRANT, SECRET, free_port
from recipient import Pair
from web import Web

from sts.jose import encrypt, import_encryption_jwk


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return path


@pytest.fixture
def exchange(sts, service, secret_file):
    """Exchange at the running service."""
    url = f"http://127.0.0.1:{service.port}"

    def exchange(*arguments, **more):
        return sts("exchange", "--url", url, "--client", CLIENT, "--secret-file", secret_file, *arguments, **more)

    return exchange


@pytest.fixture
def stranger(secret_file, sts):
    """Something else that answers: `says` is its status and body, `heard` what it was sent."""

    def answer(handler):
        server.heard.append((handler.path, dict(handler.headers), handler.body))
        status, body = server.says
        handler.reply(body, status, {"Location": f"{server.url}/elsewhere"})

    server = Web(answer)
    server.heard, server.says = [], (200, b"{}")
    server.exchange = lambda *arguments, **more: sts(
        *("exchange", "--url", server.url, "--client", "c", "--secret-file", secret_file, "--audience", "orders"),
        *arguments,
        **more,
    )
    yield server
    server.close()


def test_the_answer_is_shown_decoded_and_the_token_is_not(exchange, service, idp):
    token = idp.token()
    result = exchange("--audience", "orders", input=token)
    assert (result.exit_code, result.stderr) == (0, "")
    shown = json.loads(result.stdout)
    assert shown["answer"]["issued_token_type"] == ACCESS_TOKEN
    assert shown["answer"]["access_token"].endswith(" bytes)")
    assert shown["header"]["typ"] == "at+jwt"
    assert shown["claims"]["sub"] == "alice"
    assert service.exchange(token).token not in result.stdout


def test_raw_is_the_token_alone_and_it_verifies(exchange, service, idp):
    result = exchange("--audience", "orders", "--raw", "--scope", "orders:read", "--type", "jwt", input=idp.token())
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    assert service.verified(line)["scope"] == "orders:read"


def test_the_credential_may_stand_in_a_file(exchange, idp, tmp_path):
    file = tmp_path / "inbound.jwt"
    file.write_text(idp.token() + "\n")
    assert exchange("--audience", "billing", file).exit_code == 0


def test_the_secret_is_asked_for_unseen(sts, service, idp, tmp_path, monkeypatch):
    monkeypatch.setattr("sts.cli.exchange._has_terminal", lambda: True)
    file = tmp_path / "inbound.jwt"
    file.write_text(idp.token())
    url = f"http://127.0.0.1:{service.port}/"
    arguments = ("exchange", "--url", url, "--client", CLIENT, "--audience", "orders", "--raw", file)
    result = sts(*arguments, input=SECRET + "\n")
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output
    assert "Client secret" in result.stderr
    assert service.verified(result.stdout.strip())


def test_without_a_terminal_the_secret_must_stand_in_a_file():
    done = subprocess.run(
        [sys.executable, "-m", "sts", "exchange", "--url", "http://127.0.0.1:1", "--client", "c", "--audience", "a"],
        input="x.y.z",
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # without the terminal that the tests may have
    )
    told = "sts: --secret-file is required without a terminal\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--audience", "nowhere"], "no_consent"),
        (["--audience", "orders", "--audience", "billing"], "no_consent"),
        (["--audience", "orders", "--scope", "billing:read"], "insufficient_scope"),
        (["--audience", "orders", "--type", "urn:x:saml"], "bad_type"),
    ],
)
def test_a_refusal_is_shown_and_ends_with_1(exchange, idp, arguments, reason):
    result = exchange(*arguments, "--raw", input=idp.token())
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.search(
        rf"sts: refused with 400: {reason}; see the audit log, request_id [0-9a-f]{{32}}\n$", result.stderr
    )
    assert f'"error_reason": "{reason}"' in result.stderr


def test_a_wrong_secret_is_refused_and_not_repeated(exchange, idp, secret_file):
    secret_file.write_text("a-wrong-secret")
    result = exchange("--audience", "orders", input=idp.token())
    assert result.exit_code == 1
    assert "refused with 401: client_refused" in result.stderr
    assert "a-wrong-secret" not in result.output


def test_nobody_there_ends_with_3(sts, secret_file):
    url = f"http://127.0.0.1:{free_port()}"
    asked = ("exchange", "--url", url, "--client", "c", "--secret-file", secret_file, "--audience", "orders")
    result = sts(*asked, input="x")
    assert (result.exit_code, result.stdout) == (3, "")
    assert f"{url}/token cannot be reached: Connection refused" in result.stderr


@pytest.fixture
def unreachable(sts, secret_file):
    """What the command says where nothing can be exchanged at the address."""

    def run(url, *more):
        asked = ("exchange", "--url", url, "--client", "c", "--secret-file", secret_file, "--audience", "orders", *more)
        result = sts(*asked, input="x")
        assert (result.exit_code, result.stdout) == (3, "")
        return result.stderr

    return run


def test_a_name_that_nobody_knows_is_told_as_such(unreachable):
    assert "NameResolutionError" not in unreachable("http://nowhere.invalid")


def test_a_listener_that_hangs_up_or_speaks_no_tls_is_told_as_such(unreachable):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            for _ in range(2):
                connection, _ = listener.accept()
                connection.recv(100)
                connection.sendall(b"no protocol at all\r\n\r\n")
                connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert "does not speak TLS" in unreachable(f"https://{address}")
        assert "closed without a response" in unreachable(f"http://{address}")


def test_a_certificate_that_is_not_believed_is_told_with_the_option(unreachable):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake_hands():
            connection, _ = listener.accept()
            with contextlib.suppress(OSError):
                context.wrap_socket(connection, server_side=True)

        threading.Thread(target=shake_hands, daemon=True).start()
        said = unreachable(f"https://127.0.0.1:{listener.getsockname()[1]}")
    assert "its certificate is not trusted: " in said
    assert "--ca-file" in said


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"{}"),
        (200, b"[]"),
        (200, b"<html>"),
        (200, b"\xff"),
        (200, b'{"access_token": 5}'),
        (302, b""),
        (404, b"not found"),
    ],
)
def test_an_answer_that_is_not_the_services_ends_with_3(stranger, status, body):
    stranger.says = (status, body)
    result = stranger.exchange(input="x")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "is this the address of the service?" in result.stderr
    assert len(stranger.heard) == 1  # the credential follows no redirect


def test_a_token_that_is_no_jwt_is_still_an_answer(stranger):
    stranger.says = (200, b'{"access_token": "opaque", "token_type": "Bearer"}')
    assert json.loads(stranger.exchange(input="x").stdout) == {
        "answer": {"access_token": "(6 bytes)", "token_type": "Bearer"}
    }
    assert stranger.exchange("--raw", input="x").stdout == "opaque\n"


def test_of_an_encrypted_token_the_header_is_shown(stranger):
    token = encrypt("a.b.c", import_encryption_jwk(Pair(kid="billing-1").jwk, "ECDH-ES"))
    stranger.says = (200, json.dumps({"access_token": token}).encode())
    shown = json.loads(stranger.exchange(input="x").stdout)
    assert (shown["header"]["kid"], shown["header"]["cty"]) == ("billing-1", "JWT")
    assert shown["claims"].startswith("encrypted")


def test_nothing_in_an_answer_can_speak_to_the_terminal(stranger):
    stranger.says = (400, json.dumps({"error_reason": "\x1b[31m\u202e", "more": "\ud800"}).encode())
    result = stranger.exchange(input="x")
    assert result.exit_code == 1
    assert {"\x1b", "\u202e", "\ud800"}.isdisjoint(result.output)


def test_what_is_sent_is_the_request_of_the_rfc(stranger, secret_file):
    """RFC 8693 §2.1, RFC 6749 §2.3.1; bytes go as they are given, for the service to judge."""
    secret_file.write_text("sécret")
    stranger.exchange("--audience", "\udcff", "--type", "jwt", input="a token&b=c")
    ((path, headers, body),) = stranger.heard
    assert path == "/token"
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert headers["Authorization"] == "Basic " + base64.b64encode("c:sécret".encode()).decode()
    assert urllib.parse.parse_qsl(body.decode(), encoding="latin-1") == [
        ("grant_type", GRANT),
        ("subject_token", "a token&b=c"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("audience", "orders"),
        ("audience", "ÿ"),
    ]


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8080", "ftp://x", "http://", "http://[", "http://a:99999", "http://a?b"]
)
def test_an_address_that_is_none_is_told_with_status_2(sts, secret_file, url):
    asked = ("exchange", "--url", url, "--client", "c", "--secret-file", secret_file, "--audience", "orders")
    result = sts(*asked, input="x")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--url takes the address of the service" in result.stderr


def test_a_missing_option_is_told_with_status_2(sts):
    assert sts("exchange", "--url", "http://a", "--client", "c").exit_code == 2


@pytest.mark.parametrize("which", ["the credential", "the secret"])
def test_what_is_no_text_is_one_line(stranger, secret_file, which):
    if which == "the secret":
        secret_file.write_bytes(b"\xff")
    result = stranger.exchange(input=b"\xff")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"sts: {which} is not UTF-8 text\n")
