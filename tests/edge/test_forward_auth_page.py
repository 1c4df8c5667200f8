"""docs/forward-auth.md lists the headers that the code reads and that a running service sends."""

import re
from pathlib import Path

import pytest

from sts.credentials.api_key import ApiKeySourceSettings
from sts.edge.certificate_headers import ALL_HEADERS
from sts.edge.forward_auth import HEADROOM_BYTES
from sts.edge.profiles import PROFILES
from sts.edge.reply import RETRY_AFTER

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "forward-auth.md").read_text(encoding="utf-8")
SERVER = {"content-length", "date", "server", "connection"}
IDENTITY = {"x-user-id", "x-tenant-id"}
STATUSES = (200, 401, 403, 503)


def rows(heading, first="header"):
    """The rows of the tables of one section, each as its cells."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [cells for cells in found if cells[0] != first and not cells[0].startswith("---")]


def names(cell):
    return {name.lower() for name in re.findall(r"`([A-Za-z-]+)`", cell)}


def shown(status, *, scope=False, public=False):
    """The headers that the page promises for an answer with this status."""
    found = set()
    for cells in rows("Response headers"):
        word = cells[1 + STATUSES.index(status)]
        wanted = word == "yes" or ("insufficient_scope" in word and scope) or ("public" in word and not public)
        if wanted:
            found |= IDENTITY if "identity header" in cells[0] else names(cells[0])
    return found


def sent(answer):
    return set(answer.headers) - SERVER


def test_the_profiles_headers_are_those_that_the_code_reads():
    (profile,) = PROFILES.values()
    listed = [name.lower() for cells in rows("Request headers")[:5] for name in names(cells[0])]
    assert listed == list(profile.headers)
    required = [name.lower() for cells in rows("Request headers")[:5] if "503" in cells[2] for name in names(cells[0])]
    assert required == [profile.method, profile.target, profile.host]


def test_the_other_request_headers_are_those_that_the_code_reads():
    listed = set().union(*(names(cells[0]) for cells in rows("Request headers")[5:]))
    preflight = {"origin", "access-control-request-method"}
    key_header = ApiKeySourceSettings.model_fields["header"].default.lower()
    assert listed == {"x-gateway-secret", "authorization", key_header, "x-request-id", *preflight, *ALL_HEADERS}


def test_an_allowed_request_has_the_headers_of_the_page(service, idp):
    answer = service.forward(idp.token())
    assert (answer.status, sent(answer)) == (200, shown(200))
    assert (answer.headers["x-user-id"], answer.headers["cache-control"]) == ("alice", "no-store")


def test_a_public_route_has_every_header_with_the_mark_for_absent(service):
    answer = service.forward(None, "/health")
    assert answer.status == 200
    assert sent(answer) == shown(200, public=True)
    assert {answer.headers[name] for name in IDENTITY | {"authorization"}} == {"-"}


def test_refusals_have_the_headers_of_the_page(service, idp):
    refused = [
        (service.forward(None), 401, False),
        (service.forward("rubbish"), 401, False),
        (service.forward(idp.token(scope="billing:read")), 403, True),
        (service.forward(idp.token(), "/unknown"), 403, False),
        (service.forward(idp.token(), X_Original_Host=None, host=""), 503, False),
    ]
    for answer, status, scope in refused:
        assert (answer.status, sent(answer)) == (status, shown(status, scope=scope)), answer


@pytest.mark.parametrize("doubled", ["X-Original-Method", "X-Original-Host"])
def test_a_header_that_arrives_twice_counts_as_missing(service, idp, doubled):
    good = {"X-Original-Method": "GET", "X-Original-URI": "/orders/7", "X-Original-Host": "api.example.com"}
    good |= {"X-Gateway-Secret": "edge-gateway-secret-for-tests-only", "Authorization": f"Bearer {idp.token()}"}
    answer = service.request("GET", "/forward-auth/edge-gateway", [*good.items(), (doubled, good[doubled])])
    assert (answer.status, answer.headers["x-auth-reason"]) == (503, "profile_header_missing")


def test_the_figures_are_those_of_the_code():
    assert f"plus {HEADROOM_BYTES} bytes" in PAGE
    assert f"| `Retry-After` | no | no | no | yes | `{RETRY_AFTER[1]}` seconds |" in PAGE
