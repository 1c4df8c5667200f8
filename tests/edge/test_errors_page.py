"""docs/errors.md says what the code does."""

from pathlib import Path

from sts.clients import failures
from sts.credentials import api_key
from sts.credentials.introspection import MAX_TOKEN as MAX_OPAQUE
from sts.edge import form, token
from sts.errors import REASONS, Reason
from sts.lookups import opa
from sts.redis_link import PROMPT
from sts.resilience import breaker
from sts.server import connection, master, message
from sts.state import change_feed, sqlite
from sts.trust import introspection, issuers, remote_jwks, upstream
from sts.trust.fetch import Bounds
from sts.x509 import chain, crl, names, responders

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
FORWARD_AUTH_ONLY = {"no_route", "ambiguous_path", "unsafe_header_value", "profile_header_missing"}
TOKEN_ONLY = {"audience_missing"}


def row(reason):
    at_token = "-" if reason.name in FORWARD_AUTH_ONLY else f"{reason.token_status} `{reason.error}`"
    challenge = f" `{reason.challenge}`" if reason.challenge else ""
    at_forward_auth = "-" if reason.name in TOKEN_ONLY else f"{reason.forward_status}{challenge}"
    return f"| `{reason.name}` | {at_token} | {at_forward_auth} | {reason.sentence} |"


def test_the_page_lists_every_reason_and_no_other():
    """EP-09."""
    rows = [line for line in PAGE.split("## ", 1)[0].splitlines() if line.startswith("| `")][1:]
    assert rows == [row(reason) for reason in REASONS.values()]


def test_the_page_lists_every_other_code_of_the_token_door():
    section = PAGE.split("## ")[1]
    derived = [
        value for module in (form, token, failures) for value in vars(module).values() if isinstance(value, Reason)
    ]
    wanted = {
        (str(reason.token_status), f"`{reason.error}`", f"`{reason.name}`")
        for reason in derived
        if reason not in REASONS.values()
    }
    listed = {tuple(cell.strip() for cell in line.split("|")[2:5]) for line in section.splitlines() if line[:2] == "| "}
    assert wanted == {cells for cells in listed if cells[0].isdigit()}


def test_what_callers_read_stays_within_the_characters_of_an_error_description():
    """TE-35."""
    for reason in REASONS.values():  # RFC 6749 §5.2, RFC 6750 §3
        assert all(
            character in " !" or "#" <= character <= "[" or "]" <= character <= "~" for character in reason.sentence
        )


FIGURES = {
    "request line": f"{message.MAX_LINE_BYTES} bytes",
    "one header field": f"{message.MAX_FIELD_BYTES} bytes",
    "header fields": f"{message.MAX_FIELDS}",
    "the whole head, while it arrives": f"{message.MAX_HEAD_BYTES // 1024} KiB",
    "body at `/token`": f"{form.MAX_BODY_BYTES // 1024} KiB",
    "framing and content of a chunked body": f"{message.MAX_CHUNKED_BYTES // 1024} KiB",
    "chunks of a body": str(message.MAX_CHUNKS),
    "parameters of a form": f"{form.MAX_PARAMETERS}",
    "arrival of a request, head and body": f"{connection.ARRIVAL_S:g} s",
    "TLS handshake": f"{connection.ARRIVAL_S:g} s",
    "one write of an answer": f"{connection.WRITE_S:g} s",
    "idle kept-alive connection": f"{connection.KEEPALIVE_S:g} s",
    "connections of a worker": "1000, or four times `threads` if more",
    "failures of client authentication, per peer and lane of ids": (
        f"{failures.BURST}, then {failures.PER_MINUTE} a minute"
    ),
    "lanes of client ids per peer": f"{failures.LANES}",
    "requests that wait for one issuer's keys": (
        "an eighth of `threads`, [shared by caller](caches.md#who-waits); "
        f"at a cold start all, for {remote_jwks.GRACE:g} s"
    ),
    "requests that wait for one table with `url`": "an eighth of `threads`, twice as many for all",
    "wait for a row of a table with `url`": f"{upstream.PATIENCE:g} s, each of at most four rows",
    "requests that wait for any issuer's keys": {3: "three eighths of `threads`"}[issuers.MANY],
    "requests that wait for the same request in progress": "an eighth of `threads`",
    "wait for an issuer's keys": f"{remote_jwks.PATIENCE:g} s",
    "requests that ask OPA at once": "an eighth of `threads`",
    "wait for OPA, for each audience that asks it": (
        f"`opa.timeout` ({opa.OpaSettings.model_fields['timeout'].default * 1000:g} ms)"
    ),
    "an answer of OPA": f"{opa.MAX_ANSWER // 1024} KiB",
    "questions to one introspection server at once": "an eighth of `threads`",
    "wait for an introspection server": (
        f"{Bounds().connect:g} s to connect, {Bounds().read:g} s for the next bytes, {Bounds().total:g} s in all, "
        f"{upstream.PATIENCE:g} s with a slow resolver"
    ),
    "an answer of an introspection server": f"{introspection.MAX_ANSWER // 1024} KiB",
    "an API key": f"{api_key.MAX_CHARS} characters",
    "API keys in the store": f"{change_feed.LIMIT:,}".replace(",", " "),
    "an opaque token": f"{MAX_OPAQUE} characters",
    "pause after three failures in a row of an introspection server, OPA or a table with `url`": {
        3: f"{breaker.PAUSE:g} s, then one request asks"
    }[breaker.FAILURES],
    "wait for Redis in a request (a client's assertion, a row of a table with `redis`)": (
        f"{PROMPT.connect * 1000:g} ms to connect, {PROMPT.answer * 1000:g} ms for each answer"
    ),
    "wait for the SQLite state in a request (a client's assertion)": f"{sqlite.PATIENCE_S * 1000:g} ms",
    "certificates of one credential or header": (
        f"{chain.MAX_CERTIFICATES}, of {chain.MAX_CERTIFICATE_BYTES // 1024} KB each"
    ),
    "alternative names of a certificate": f"{names.MAX_NAMES}",
    "a file of CRLs": f"{crl.MAX_FILE_BYTES // 1_000_000} MB, {crl.MAX_LISTS} lists",
    "questions to OCSP responders at once": f"{responders.MAX_FETCHES} for each source",
    "pause after a failed question to an OCSP responder": f"{responders.COOL_DOWN:g} s for each certificate",
    "fetch of an issuer's document": (
        f"{Bounds().connect:g} s to connect, {Bounds().read:g} s for the next bytes, {Bounds().total:g} s in all"
    ),
    "an issuer's document": f"{Bounds().body // 1024} KiB",
    "pause after a failed fetch": (
        "{:g} s, then {:g} s; up to {:g} s where the keys are in force and only their refresh fails".format(
            *remote_jwks.BACK_OFF
        )
    ),
    "requests in flight when the service stops": f"{master._GRACE_S} s",
}


def rows_below(heading):
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return cells[2:]


def test_the_page_says_each_limit_and_time_out_as_it_is():
    assert {what: figure for what, figure, _ in rows_below("Limits and time-outs")} == FIGURES
