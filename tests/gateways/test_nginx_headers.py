"""nginx with the shipped configuration: no header of untrusted-headers.txt arrives as a client sent it."""

import json
import re

import pytest

from scripts import nginx
from scripts.nginx import SHIPPED

LIST = SHIPPED.parent.parent / "untrusted-headers.txt"
NAMES = [line for line in LIST.read_text(encoding="ascii").splitlines() if line and not line.startswith("#")]
ALLOW = (200, [("Authorization", "Bearer a.b.c"), ("X-User-ID", "alice"), ("X-Tenant-ID", "-")])
PUBLIC = (200, [("Authorization", "-"), ("X-User-ID", "-"), ("X-Tenant-ID", "-"), ("X-Token-Expires-At", "-")])
SPELLINGS = {
    "as listed": str,
    "in lower case": str.lower,
    "in upper case": str.upper,
    "with underscores": lambda name: name.replace("-", "_"),
    "with one underscore": lambda name: name.replace("-", "_", 1),
    "with dots": lambda name: name.replace("-", "."),
}
FORGED = "forged-by-the-client"


def test_the_list_names_each_header_once_and_in_full():
    """nginx cannot remove headers by a pattern, so that a name with a wildcard would protect nothing."""
    assert [name for name in NAMES if not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", name)] == []
    assert len(NAMES) == len({name.lower() for name in NAMES})


def test_the_file_that_nginx_includes_removes_exactly_what_the_list_names():
    text = (SHIPPED.parent / "sts-untrusted-headers.conf").read_text(encoding="ascii")
    assert re.findall(r'^proxy_set_header +(\S+) +"";$', text, re.MULTILINE) == NAMES
    assert len(re.findall(r"^proxy_set_header", text, re.MULTILINE)) == len(NAMES)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-HTTP-Method-Override",
            "X-Method-Override",
            "Remote-User",
            "X-Remote-User",
        ),
        *(f"X-Forwarded-{name}" for name in ("User", "Email", "Groups", "Preferred-Username", "Access-Token", "Uri")),
        *(f"X-Forwarded-{name}" for name in ("Path", "Method", "Scheme", "Ssl", "Server", "For", "Host", "Proto")),
        *(f"X-Auth-Request-{name}" for name in ("User", "Email", "Groups", "Preferred-Username", "Access-Token")),
        *("True-Client-IP", "X-Client-IP", "X-Gateway-Secret", "X-Original-URI", "Forwarded", "Client-Cert"),
    ],
)
def test_what_backends_are_known_to_believe_is_on_the_list(name):
    assert name in NAMES


@pytest.mark.parametrize("says", [ALLOW, PUBLIC], ids=["allowed", "public"])
@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_no_header_of_the_list_reaches_the_backend_as_the_client_sent_it(
    start_nginx, stand_in, backend, send, spell, says
):
    """FA-06: `proxy_pass` gives a backend all headers of the client but those that the gateway names."""
    stand_in.says = says
    port = start_nginx(stand_in.port, backend.port)
    arrived, sent = [], 0
    for name in NAMES:
        if (spelling := spell(name)) in NAMES and spell is not str:
            continue  # has no other spelling of this kind
        sent += 1
        raw = f"GET /orders/1 HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n{spelling}: {FORGED}\r\n\r\n"
        answer = send(port, raw.encode())
        assert answer.status == 200, spelling
        if FORGED in json.dumps(answer.seen):
            arrived.append(spelling)
    assert arrived == []
    assert sent > len(NAMES) / 2


def test_all_headers_of_the_list_at_once_leave_only_the_gateways_own_words(start_nginx, stand_in, backend, send):
    stand_in.says = PUBLIC
    lines = "".join(f"{name}: {FORGED}\r\n" for name in NAMES)
    raw = f"GET /health HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n{lines}X-Own: kept\r\n\r\n"
    seen = send(start_nginx(stand_in.port, backend.port), raw.encode()).seen["headers"]
    words = {"host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-real-ip"}
    assert set(seen) == words | {"x-own"}


def test_a_header_of_the_list_that_the_service_answers_arrives_with_the_services_value(
    start_nginx, stand_in, backend, send, monkeypatch
):
    """A backend may know its users by X-Remote-User: the line with a value holds beside the included file."""
    shipped = nginx.configuration
    changes = {"X-User-ID": "X-Remote-User", "x_user_id": "x_remote_user"}

    def changed(*directory, **ports):
        text = shipped(*directory, **ports)
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        return text

    monkeypatch.setattr(nginx, "configuration", changed)
    stand_in.says = (200, [("Authorization", "Bearer a.b.c"), ("X-Remote-User", "alice"), ("X-Tenant-ID", "-")])
    raw = f"GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nX-Remote-User: {FORGED}\r\n\r\n"
    assert send(start_nginx(stand_in.port, backend.port), raw.encode()).seen["headers"]["x-remote-user"] == "alice"
