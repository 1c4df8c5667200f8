"""The audit: one line for each decision, the fields of the contract, no secret in any of them, and writes that fail."""

import fcntl
import hashlib
import hmac
import io
import json
import math
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import sts.audit.file as audit_file
import sts.audit.log as audit
from sts.audit.file import AuditFile
from sts.audit.introspection import Question
from sts.audit.log import LINE_BYTES, AuditLog, AuditSettings, subject_hash
from sts.clients.failures import CLIENT_LIMITED
from sts.errors import CLIENT_REFUSED, EXPIRED, REASONS, UNSAFE_HEADER_VALUE, Refusal, StartError
from sts.labels import hashed
from sts.model import TYPE_ACCESS_TOKEN, Ask, Caller, Credential, Issued, Peer, Presented, Trial
from sts.options import Place
from sts.telemetry import Log, Metrics, know_prefixes, redaction

SECRET = b"s" * 32
NOW = 1_800_000_000.25
KEY = "sk_live_" + "aB3dE" * 10  # of the shape of our own
JWT = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJtYXJrZWQtdXNlciJ9.c2lnbmF0dXJl"
FIELDS = [
    *("time", "event", "outcome", "reason", "request_id", "correlation_id", "door", "client", "source", "kind"),
    *("audiences", "scopes", "route", "subject_hash", "credential_hash", "jti", "kid", "exp", "cached"),
    *("duration_us", "revision"),
]
CREDENTIAL = Credential(TYPE_ACCESS_TOKEN, JWT)
PRESENTED = Presented("jwt", "corporate-idp", TYPE_ACCESS_TOKEN, {"sub": "marked-user"})
ISSUED = Issued(
    subject="marked-user",
    token="minted-token",
    token_type="Bearer",
    expires_at=1_800_000_300,
    jti="jti-1",
    kid="kid-1",
    scopes=("orders:read",),
    headers={"X-User-ID": "marked-user"},
)


def caller(client_id="edge-gateway"):
    return Caller("forward_auth", client_id, "gateway-secret", Peer("127.0.0.1"))


def ask(**fields):
    usual = {"audiences": ("orders",), "scopes": ("orders:read",), "route": "orders-read"}
    return Ask(door="forward_auth", credential=CREDENTIAL, **(usual | fields))


class Steady:
    """A monotonic clock that a test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def _prefixes(monkeypatch):
    """What a test makes known is not known to the next one."""
    monkeypatch.setattr(redaction, "_prefixes", set())
    monkeypatch.setattr(redaction, "_prefixed", [])


@pytest.fixture
def steady():
    return Steady()


@pytest.fixture
def lines():
    return []


@pytest.fixture
def log(lines, steady):
    return AuditLog(SECRET, lines.append, lambda: NOW, steady)


@pytest.fixture
def told(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(audit, "log", Log(stream))
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def file_told(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(audit_file, "log", Log(stream))
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def whole_way(log, outcome=None, **facts):
    """Record a decision that went all the way, and was refused at the end if `outcome` is a reason."""
    trail = log.begin("forward_auth", "request-1", "revision-1", "trace-1")
    trail.called(caller(), known=True)
    trail.asked(ask())
    trail.aimed(["orders"])
    trail.brought(CREDENTIAL)
    trail.presented(PRESENTED)
    trail.issued(ISSUED)
    if outcome is not None:
        trail.refused(outcome, facts)
    log.record(trail)


def hmac_of(text):
    return "hmac:" + hmac.new(SECRET, text, hashlib.sha256).hexdigest()[:32]


def test_an_allowed_request_leaves_one_line_with_the_fields_of_the_contract(log, lines, steady):
    trail = log.begin("forward_auth", "request-1", "revision-1", "trace-1")
    trail.called(caller(), known=True)
    trail.asked(ask())
    trail.aimed(["orders"])
    trail.brought(CREDENTIAL)
    trail.presented(PRESENTED)
    trail.issued(ISSUED)
    steady.now += 0.0625
    log.record(trail)
    (line,) = lines
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    event = json.loads(line)
    assert list(event) == FIELDS
    assert event == {
        "time": "2027-01-15T08:00:00.250Z",
        "event": "decision",
        "outcome": "allowed",
        "reason": None,
        "request_id": "request-1",
        "correlation_id": "trace-1",
        "door": "forward_auth",
        "client": "edge-gateway",
        "source": "corporate-idp",
        "kind": "jwt",
        "audiences": ["orders"],
        "scopes": ["orders:read"],
        "route": "orders-read",
        "subject_hash": hmac_of(b"subject\0marked-user"),
        "credential_hash": hmac_of(b"credential\0" + JWT.encode()),
        "jti": "jti-1",
        "kid": "kid-1",
        "exp": 1_800_000_300,
        "cached": False,
        "duration_us": 62_500,
        "revision": "revision-1",
    }
    assert datetime.fromisoformat(event["time"]).timestamp() == NOW


def test_a_refusal_tells_its_reason_and_private_facts_and_no_token(log, lines):
    whole_way(log, EXPIRED, why="exp is in the past", exp=1_700_000_000)
    event = json.loads(lines[0])
    assert list(event) == [*FIELDS, "facts"]
    assert (event["outcome"], event["reason"]) == ("refused", "expired")
    assert event["facts"] == {"why": "exp is in the past", "exp": 1_700_000_000}
    assert (event["jti"], event["kid"], event["exp"], event["subject_hash"]) == (None, None, None, None)
    assert event["credential_hash"] == hmac_of(b"credential\0" + JWT.encode())


def test_a_token_that_was_at_hand_when_the_door_refused_was_not_handed_out(log, lines):
    whole_way(log, UNSAFE_HEADER_VALUE, header="X-User-ID")
    assert json.loads(lines[0])["jti"] is None


def test_an_unknown_caller_leaves_a_line_too(log, lines):
    log.record(log.begin("token", "request-1", "revision-1"))
    event = json.loads(lines[0])
    assert [event[name] for name in ("client", "source", "kind", "audiences", "scopes", "route")] == [None] * 6


def test_a_public_route_is_allowed_without_a_token(log, lines):
    trail = log.begin("forward_auth", "request-1", "revision-1", "trace-1")
    trail.called(caller(), known=True)
    trail.asked(Ask(door="forward_auth", credential=None, route="health"))
    log.record(trail)
    event = json.loads(lines[0])
    assert (event["outcome"], event["route"], event["jti"], event["cached"]) == ("allowed", "health", None, False)


def test_a_token_from_the_cache_says_so(log, lines):
    trail = log.begin("token", "request-1", "revision-1")
    trail.issued(replace(ISSUED, cached=True))
    log.record(trail)
    assert json.loads(lines[0])["cached"] is True


@pytest.mark.parametrize(
    ("cached", "expected"),
    [(False, {"orders": "deny", "hours": "allow"}), (True, {"orders": "deny", "hours": "unknown"})],
)
def test_rules_on_trial_are_told_and_of_a_kept_token_only_where_the_judgement_lasts(log, lines, cached, expected):
    trail = log.begin("token", "request-1", "revision-1")
    trials = {"orders": Trial("deny", lasts=True), "hours": Trial("allow", lasts=False)}
    trail.issued(replace(ISSUED, cached=cached, shadow=trials))
    log.record(trail)
    assert json.loads(lines[0])["shadow"] == expected


@pytest.mark.parametrize("fraction", ["000", "001", "999"])
def test_the_time_has_milliseconds(lines, steady, fraction):
    log = AuditLog(SECRET, lines.append, lambda: 1_800_000_000 + int(fraction) / 1000 + 0.0001, steady)
    log.record(log.begin("token", "r", "v"))
    assert json.loads(lines[0])["time"] == f"2027-01-15T08:00:00.{fraction}Z"


def test_the_time_goes_on_with_the_clock(lines, steady):
    times = iter([NOW, NOW + 60, NOW])
    log = AuditLog(SECRET, lines.append, lambda: next(times), steady)
    for _ in range(3):
        log.record(log.begin("token", "r", "v"))
    assert [json.loads(line)["time"][14:19] for line in lines] == ["00:00", "01:00", "00:00"]


# --- what must not stand in it -----------------------------------------------------------------------------------


def test_no_token_claim_or_secret_stands_in_an_event(log, lines):
    whole_way(log)
    whole_way(log, EXPIRED, why="exp is in the past")
    text = b"".join(lines).decode()
    for secret in ("marked-user", JWT, *JWT.split("."), "minted-token", "gateway-secret", SECRET.decode()):
        assert secret not in text


def test_the_same_subject_and_the_same_credential_do_not_have_the_same_hash():
    assert subject_hash(SECRET, "x") != hashed(SECRET, "credential", "x")
    assert subject_hash(SECRET, "x") != subject_hash(b"t" * 32, "x")
    assert re.fullmatch("hmac:[0-9a-f]{32}", subject_hash(SECRET, "é\ud800"))


@pytest.mark.parametrize("client_id", ["", "a b", "a\nb", "x" * 129, "gateway\u00e9", "a-secret-in-the-wrong-place"])
def test_the_name_of_no_configured_client_is_not_written_down(log, lines, client_id):
    trail = log.begin("token", "r", "v")
    trail.called(caller(client_id), known=False)
    trail.refused(CLIENT_REFUSED, {"why": "unknown client"})
    log.record(trail)
    event = json.loads(lines[0])
    assert event["client"] is None
    assert ("client_hash" in event["facts"]) == bool(client_id)
    assert not client_id or client_id not in lines[0].decode()


@pytest.mark.parametrize(
    "correlation_id", ["", "a b", "x" * 129, "a\u00e9", JWT, JWT[:128], KEY, "seen_before_hunter2hunter2"]
)
def test_what_is_no_correlation_id_or_looks_like_a_credential_is_not_written_down(log, lines, correlation_id):
    know_prefixes(["seen_before_"])
    log.record(log.begin("token", "r", "v", correlation_id))
    assert json.loads(lines[0])["correlation_id"] is None


def test_a_token_that_a_caller_sent_in_the_wrong_place_is_masked(log, lines):
    trail = log.begin("token", "r", "v")
    short = JWT[:128]
    trail.called(caller(short), known=False)
    trail.refused(CLIENT_REFUSED, {"why": "unknown client", "sent": JWT, "name": f"Bearer {JWT}"})
    log.record(trail)
    trail = log.begin("token", "r", "v")
    trail.called(caller(), known=True)
    trail.asked(ask(audiences=(JWT,), resources=(f"https://a/?token={JWT}",), scopes=(JWT,)))
    trail.refused(EXPIRED, {})
    log.record(trail)
    first, second = map(json.loads, lines)
    assert (first["client"], first["facts"]["sent"], first["facts"]["name"]) == (None, "***", "Bearer ***")
    assert (second["audiences"], second["scopes"]) == (["***", "https://a/?***"], ["***"])


def test_an_api_key_that_a_caller_sent_in_the_wrong_place_is_masked_whatever_its_prefix(log, lines):
    key, bare = KEY, KEY.removeprefix("sk_live_")
    trail = log.begin("token", "r", "v")
    trail.called(caller(), known=True)
    trail.asked(ask(audiences=(key, f"orders {key[:-1]}"), resources=(f"https://a/{key}",), scopes=(bare,)))
    trail.refused(EXPIRED, {"sent": f"a-{bare}", "many": [key, "orders"]})
    log.record(trail)
    event = json.loads(lines[0])
    assert event["audiences"] == ["***", "orders ***", "https://a/***"]
    assert (event["scopes"], event["facts"]) == (["***"], {"sent": "***", "many": "*** orders"})


def test_a_prefix_that_may_begin_any_name_masks_none_of_them(log, lines):
    """`match.prefix` may be as short as one character; names, words and paths are what an operator needs most."""
    know_prefixes(["o", "tok", "/"])
    trail = log.begin("token", "r", "v")
    facts = {"rule": "allow of orders-backend", "why": "token_endpoint", "file": "/etc/sts/sts.yaml"}
    trail.refused(EXPIRED, {**facts, "sent": "o7hunter7hunter tok-hunter2hunter2"})
    log.record(trail)
    assert json.loads(lines[0])["facts"] == {**facts, "sent": "o*** tok***"}


def test_what_begins_as_the_credentials_of_a_source_do_is_masked(log, lines):
    know_prefixes(["legacy_", "op_"])
    trail = log.begin("token", "r", "v")
    trail.called(caller(), known=True)
    trail.asked(ask(audiences=("legacy_0123456789abcdef", "shop_orders-and-more"), resources=(), scopes=("op_x",)))
    trail.refused(EXPIRED, {"sent": "GET /op_abc.def.ghi, and more"})
    log.record(trail)
    event = json.loads(lines[0])
    assert event["audiences"] == ["legacy_***", "shop_orders-and-more"]
    assert (event["scopes"], event["facts"]["sent"]) == (["op_x"], "GET /op_***, and more")


def test_the_tail_of_a_token_that_was_cut_in_two_is_masked(log, lines):
    """`subject_token=aaa&audience=bbb.signature`: after the cut there is no JWT any more, but a signature."""
    claims, signature = JWT.split(".")[1], "c5gNyNvBrkRHu5jMuG67Br2EoKeQfjvbqUck_TtLDU1Bys-L3rNWVhgJ" * 2
    kid, digest = "k" * 43, "0" * 64
    trail = log.begin("token", "r", "v")
    trail.called(caller(), known=True)
    trail.asked(ask(audiences=(f"{claims[3:]}.{signature}", kid, digest), resources=(), scopes=(signature,)))
    trail.refused(EXPIRED, {"why": f"of {signature}", "kid": kid})
    log.record(trail)
    event = json.loads(lines[0])
    assert signature not in lines[0].decode()
    assert (event["audiences"][1:], event["facts"]["kid"]) == ([kid, digest], kid)


def test_what_was_asked_stands_until_it_is_known_what_was_meant(log, lines):
    trail = log.begin("token", "r", "v")
    trail.asked(ask(audiences=("ordres",), resources=("https://x",)))
    trail.refused(EXPIRED, {})
    log.record(trail)
    trail.aimed(["orders"])
    log.record(trail)
    assert [json.loads(line)["audiences"] for line in lines] == [["ordres", "https://x"], ["orders"]]


def test_facts_are_scalars_and_of_other_things_only_the_type_is_told(log, lines):
    """Lesson 2.19 (CVE-2025-62705 OpenBao)."""
    facts = {
        "text": "plain",
        "flag": True,
        "nothing": None,
        "number": 3,
        "share": 0.5,
        "huge": 2**64,
        "infinite": float("inf"),
        "undefined": float("nan"),
        "names": ["b", "a"],
        "set": {"b", "a"},
        "mapping": {"sub": "marked-user"},
        "bytes": b"marked-user",
        "mixed": [1, "marked-user"],
        "error": ValueError("marked-user"),
    }
    whole_way(log, EXPIRED, **facts)
    assert json.loads(lines[0])["facts"] == {
        "text": "plain",
        "flag": True,
        "nothing": None,
        "number": 3,
        "share": 0.5,
        "huge": "<int>",
        "infinite": "inf",
        "undefined": "nan",
        "names": "b a",
        "set": "a b",
        "mapping": "<dict>",
        "bytes": "<bytes>",
        "mixed": "<list>",
        "error": "<ValueError>",
    }


def test_texts_and_the_number_of_facts_are_bounded_and_what_is_not_ascii_is_escaped(log, lines):
    facts = {"why": "x" * 10_000, "place": "Zürich\u2028\ud800"} | dict.fromkeys(map("fact_{}".format, range(50)))
    whole_way(log, EXPIRED, **facts)
    written = json.loads(lines[0])["facts"]
    assert written["why"] == "x" * 256 + "..."
    assert written["place"] == r"Z\xfcrich \ud800"
    assert len(written) == 16


wild = st.text(max_size=400) | st.integers() | st.floats() | st.none() | st.lists(st.text(max_size=50), max_size=40)


@given(
    st.dictionaries(st.from_regex("[a-z_]{1,20}", fullmatch=True), wild, max_size=30),
    st.lists(st.text(max_size=600), max_size=40),
    st.none() | st.lists(st.text(max_size=600), max_size=40),
    st.booleans(),
)
def test_whatever_a_caller_sends_the_event_is_one_short_line_of_strict_ascii_json(facts, audiences, scopes, refused):
    lines = []
    log = AuditLog(SECRET, lines.append, lambda: NOW, lambda: 0.0)
    trail = log.begin("token", "r" * 32, "v" * 64)
    trail.called(caller("c" * 128), known=True)
    trail.asked(ask(audiences=tuple(audiences), scopes=None if scopes is None else tuple(scopes), route="r" * 128))
    trail.brought(CREDENTIAL)
    trail.presented(Presented("jwt", "s" * 128, TYPE_ACCESS_TOKEN, None))
    if refused:
        trail.refused(EXPIRED, facts)
    log.record(trail)
    (line,) = lines
    assert len(line) < LINE_BYTES
    assert line.count(b"\n") == 1

    def no_constants(name):
        raise AssertionError(name)

    event = json.loads(line.decode("ascii"), parse_constant=no_constants)
    assert event["client"] == "c" * 128
    assert log.failures == 0


def test_a_line_that_would_be_too_long_loses_what_a_caller_can_blow_up_and_says_so(log, lines):
    trail = log.begin("token", "r", "v")
    trail.asked(ask())
    trail.aimed(["audience-" + "x" * 110] * 40)
    trials = {"audience-" + "x" * 110 + str(number): Trial("error", lasts=True) for number in range(40)}
    trail.issued(replace(ISSUED, scopes=("s" * 250,) * 40, shadow=trials))
    log.record(trail)
    event = json.loads(lines[0])
    assert len(lines[0]) < LINE_BYTES
    assert (event["truncated"], event["jti"], event["scopes"]) == (True, "jti-1", None)
    assert event["audiences"] == [("audience-" + "x" * 110)[:64]] * 8
    assert event["shadow"] == dict.fromkeys([*trials][:8], "error")


def test_a_line_that_would_be_too_long_keeps_why(log, lines):
    whole_way(log, EXPIRED, why="exp is in the past", **{f"fact_{n}": "x" * 1000 for n in range(20)})
    event = json.loads(lines[0])
    assert event["facts"] == {"why": "exp is in the past"}


# --- limited failures ---------------------------------------------------------------------------------------------


def limited(log, door="token"):
    trail = log.begin(door, "r", "v")
    trail.refused(CLIENT_LIMITED, {"why": "wrong secret", "limited": True})
    log.record(trail)


def test_of_limited_failures_one_a_second_is_written_and_the_others_are_counted(lines, steady):
    metrics = Metrics()
    log = AuditLog(SECRET, lines.append, lambda: NOW, steady, metrics)
    for _ in range(100):
        limited(log)
    assert len(lines) == 1
    steady.now += 1
    limited(log)
    limited(log, "forward_auth")
    log.flush()
    assert [json.loads(line).get("suppressed", 0) for line in lines] == [0, 99, 0]
    assert b'door="token",outcome="refused",reason="client_refused"} 101.0' in metrics.render()[1]


def test_other_refusals_are_each_written_however_many(log, lines):
    for _ in range(100):
        whole_way(log, CLIENT_REFUSED)
    assert len(lines) == 100


def test_limited_questions_at_introspect_are_suppressed_alike(log, lines):
    for _ in range(100):
        question = Question("r", "", "v")
        question.refused(Refusal(CLIENT_LIMITED, why="wrong secret"))
        log.tell(question.event, "introspection" if question.limited else "")
    log.flush()
    assert sum(1 + json.loads(line).get("suppressed", 0) for line in lines) == 100
    assert len(lines) < 50


# --- counting ----------------------------------------------------------------------------------------------------


def test_each_decision_is_counted_by_door_outcome_and_reason(lines, steady):
    metrics = Metrics()
    log = AuditLog(SECRET, lines.append, lambda: NOW, steady, metrics)
    whole_way(log)
    for reason in REASONS.values():
        whole_way(log, reason)
    trail = log.begin("token", "r", "v")
    trail.issued(replace(ISSUED, cached=True))
    log.record(trail)
    text = metrics.render()[1].decode()
    assert 'sts_decisions_total{cached="false",door="forward_auth",outcome="allowed",reason=""} 1.0' in text
    assert 'sts_decisions_total{cached="true",door="token",outcome="allowed",reason=""} 1.0' in text
    for name in REASONS:
        assert (
            f'sts_decisions_total{{cached="false",door="forward_auth",outcome="refused",reason="{name}"}} 1.0' in text
        )
    assert f'sts_decision_seconds_count{{cached="false",door="forward_auth"}} {len(REASONS) + 1}.0' in text


# --- writing -----------------------------------------------------------------------------------------------------


def test_a_write_that_fails_is_counted_and_told_once_in_a_while_and_never_raised(steady, told):
    def full(_line):
        raise OSError(28, "No space left on device")

    metrics = Metrics()
    log = AuditLog(SECRET, full, lambda: NOW, steady, metrics)
    for _ in range(5):
        whole_way(log)
    assert [(event["event"], event["why"], event["lost"]) for event in told()] == [
        ("audit event lost", "No space left on device", 1)
    ]
    steady.now += 61
    whole_way(log)
    assert told()[-1]["lost"] == log.failures == 6
    text = metrics.render()[1].decode()
    assert "sts_audit_failures_total 6.0" in text
    assert 'outcome="allowed",reason=""} 6.0' in text  # the decisions were made all the same


def test_a_fault_of_ours_in_the_writing_is_not_raised_either(log, lines, told):
    trail = log.begin("token", "r", "v")
    trail.issued(object())
    log.record(trail)
    assert (lines, log.failures) == ([], 1)
    assert told()[0]["why"] == "AttributeError"


def test_a_line_that_was_taken_in_part_is_lost_and_counted_and_the_next_one_begins_a_new_line(tmp_path, steady, told):
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    log = AuditLog(SECRET, file.write, lambda: NOW, steady)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, line, write=os.write: write(descriptor, line[:300]))
        whole_way(log)
    whole_way(log)
    whole_way(log)
    file.close()
    broken, second, third = path.read_bytes().splitlines()
    assert log.failures == 1
    assert [json.loads(line)["event"] for line in (second, third)] == ["decision"] * 2
    assert len(broken) == 300
    assert told()[0]["why"] == "only part of the line was written"


def test_a_line_behind_one_that_another_worker_tore_begins_a_new_line(tmp_path, steady):
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    log = AuditLog(SECRET, file.write, lambda: NOW, steady)
    path.write_bytes(b'{"time":"2026-')
    whole_way(log)
    file.close()
    torn, whole = path.read_bytes().splitlines()
    assert (torn, json.loads(whole)["event"], log.failures) == (b'{"time":"2026-', "decision", 0)


def test_workers_that_write_at_the_same_time_leave_whole_lines_and_no_empty_one(tmp_path):
    """Half a line of another worker would look like a torn one, without the lock."""
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    workers = []
    for worker in range(4):
        workers.append(os.fork())
        if workers[-1] == 0:
            for number in range(2000):
                file.write(json.dumps({"worker": worker, "number": number, "text": "x" * 5000}).encode() + b"\n")
            os._exit(0)
    assert [os.waitpid(worker, 0)[1] for worker in workers] == [0] * 4
    file.close()
    events = [json.loads(line) for line in path.read_bytes().removesuffix(b"\n").split(b"\n")]
    for worker in range(4):
        assert [event["number"] for event in events if event["worker"] == worker] == list(range(2000))


def test_a_stopped_worker_that_holds_the_lock_stops_no_other(tmp_path):
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    holds = os.fork()
    if holds == 0:
        fcntl.lockf(file._descriptor, fcntl.LOCK_EX)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(holds, os.WUNTRACED)
    file.write(b"{}\n")
    os.kill(holds, signal.SIGKILL)
    os.waitpid(holds, 0)
    file.close()
    assert path.read_bytes() == b"{}\n"


def test_a_deleted_file_is_made_again_and_no_event_is_lost(tmp_path, steady, file_told):
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    log = AuditLog(SECRET, file.write, lambda: NOW, steady)
    whole_way(log)
    path.unlink()
    whole_way(log)
    whole_way(log)
    file.close()
    assert (len(path.read_text().splitlines()), log.failures) == (2, 0)
    assert [event["event"] for event in file_told()] == ["audit file was deleted or renamed: opened again"]


def test_a_file_that_is_deleted_and_cannot_be_made_again_counts_each_event_as_lost(tmp_path, steady, told, file_told):
    (tmp_path / "var").mkdir()
    path = tmp_path / "var" / "audit.jsonl"
    file = AuditFile(path)
    log = AuditLog(SECRET, file.write, lambda: NOW, steady)
    path.unlink()
    path.parent.rmdir()
    whole_way(log)
    whole_way(log)
    assert (log.failures, told()[0]["why"]) == (2, "the audit file was deleted and cannot be made again")
    assert "No such file or directory" in file_told()[0]["why"]
    path.parent.mkdir()
    whole_way(log)
    file.close()
    assert (len(path.read_text().splitlines()), log.failures) == (1, 2)


def test_a_renamed_file_is_left_within_a_second_without_a_signal(tmp_path, steady, file_told, monkeypatch):
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    log = AuditLog(SECRET, file.write, lambda: NOW, steady)
    whole_way(log)
    path.rename(tmp_path / "audit.jsonl.1")
    monkeypatch.setattr(audit_file, "LOOK_EVERY_S", 0.0)
    whole_way(log)
    file.close()
    counts = [len(name.read_text().splitlines()) for name in (tmp_path / "audit.jsonl.1", path)]
    assert (counts, log.failures) == ([1, 1], 0)
    assert len(file_told()) == 1


def test_a_symbolic_link_is_not_followed(tmp_path):
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match="it is a symbolic link"):
        AuditFile(tmp_path / "audit.jsonl")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_with_a_second_name_is_refused(tmp_path):
    """Root would append to any file of its own that the owner of the folder has linked to this name."""
    (tmp_path / "precious").write_text("")
    (tmp_path / "audit.jsonl").hardlink_to(tmp_path / "precious")
    with pytest.raises(StartError, match="has a second name"):
        AuditFile(tmp_path / "audit.jsonl")


def test_a_file_of_another_user_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "audit.jsonl"
    path.write_text("")
    found = [*path.stat()]
    found[stat.ST_UID] = 4711
    monkeypatch.setattr(os, "fstat", lambda _descriptor: os.stat_result(found))
    with pytest.raises(StartError, match="belongs to the user 4711: it must belong to "):
        AuditFile(path)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/full", "/"])
def test_a_device_and_a_folder_are_refused(path):
    with pytest.raises(StartError, match=r"neither a plain file nor a FIFO|Is a directory"):
        AuditFile(Path(path))


def test_a_fifo_takes_lines_and_without_a_reader_they_are_lost_and_counted(tmp_path, steady, told):
    path = tmp_path / "audit.fifo"
    os.mkfifo(path)
    file = AuditFile(path)
    log = AuditLog(SECRET, file.write, lambda: NOW, steady)
    whole_way(log)
    assert (log.failures, told()[0]["why"]) == (1, "Broken pipe")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    whole_way(log)
    assert json.loads(os.read(reader, LINE_BYTES))["event"] == "decision"
    os.close(reader)
    file.close()


def test_a_file_that_root_makes_belongs_to_the_owner_of_the_folder(tmp_path, monkeypatch):
    """A command that root runs must not leave a file that the service cannot write to."""
    given = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _descriptor, *owner: given.append(owner))
    for _ in range(2):  # what is there already keeps its owner
        AuditFile(tmp_path / "audit.jsonl").close()
    assert given == [(tmp_path.stat().st_uid, tmp_path.stat().st_gid)]


def test_a_file_is_appended_to_and_only_its_owner_and_group_may_read_it(tmp_path, steady):
    path = tmp_path / "audit.jsonl"
    path.write_text("before\n")
    file = AuditFile(path)
    log = AuditLog(SECRET, file.write, lambda: NOW, steady)
    whole_way(log)
    file.close()
    assert len(path.read_text().splitlines()) == 2
    fresh = AuditFile(tmp_path / "fresh.jsonl")
    fresh.close()
    assert (tmp_path / "fresh.jsonl").stat().st_mode & 0o137 == 0


def test_without_a_file_it_is_standard_output(capfd, steady):
    file = AuditFile(None)
    whole_way(AuditLog(SECRET, file.write, lambda: NOW, steady))
    file.close()
    assert json.loads(capfd.readouterr().out)["event"] == "decision"


def test_a_file_that_cannot_be_opened_is_told_before_the_service_starts(tmp_path):
    with pytest.raises(StartError, match=re.escape(str(tmp_path / "no" / "audit.jsonl"))):
        AuditFile(tmp_path / "no" / "audit.jsonl")


def test_a_rotated_file_is_opened_anew_and_a_failed_one_changes_nothing(tmp_path, steady, monkeypatch):
    monkeypatch.setattr(audit_file, "LOOK_EVERY_S", math.inf)
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    log = AuditLog(SECRET, file.write, lambda: NOW, steady)
    whole_way(log)
    path.rename(tmp_path / "audit.jsonl.1")
    whole_way(log)  # until it is told, it goes on in the file it has
    file.reopen(path)
    whole_way(log)
    with pytest.raises(StartError):
        file.reopen(tmp_path / "no" / "audit.jsonl")
    whole_way(log)
    file.close()
    counts = [len(name.read_text().splitlines()) for name in (tmp_path / "audit.jsonl.1", path)]
    assert (counts, log.failures) == ([2, 2], 0)


def test_nothing_is_lost_while_the_file_is_opened_anew(tmp_path, steady):
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    log = AuditLog(SECRET, file.write, lambda: NOW, steady)
    stop = threading.Event()

    def reopen():
        while not stop.is_set():
            file.reopen(path)

    thread = threading.Thread(target=reopen)
    thread.start()
    for _ in range(500):
        whole_way(log)
    stop.set()
    thread.join()
    file.close()
    assert (len(path.read_text().splitlines()), log.failures) == (500, 0)


WORKERS = """
import os, sys, time
from pathlib import Path
from sts.audit.log import AuditLog
from sts.audit.file import AuditFile
from sts.errors import EXPIRED


def work(name):
    file = AuditFile(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    log = AuditLog(b"s" * 32, file.write, time.time, time.monotonic)
    for number in range(400):
        trail = log.begin("token", f"{name}-{number}", "v")
        trail.refused(EXPIRED, {f"fact_{n}": name * 250 for n in range(number % 14)})
        log.record(trail)
    os._exit(log.failures)


workers = []
for name in "abcd":
    pid = os.fork()
    if pid == 0:
        work(name)
    workers.append(pid)
sys.exit(any(os.waitpid(pid, 0)[1] for pid in workers))
"""


def check_lines(data):
    events = [json.loads(line) for line in data.splitlines() if line]  # an empty one is harmless
    assert len(events) == 4 * 400
    assert {event["request_id"] for event in events} == {f"{name}-{n}" for name in "abcd" for n in range(400)}
    for event in events:
        assert set("".join(event["facts"].values())) <= {event["request_id"][0]}


def test_the_lines_of_several_workers_do_not_mix_in_a_file(tmp_path):
    path = tmp_path / "audit.jsonl"
    subprocess.run([sys.executable, "-c", WORKERS, str(path)], check=True, timeout=60)
    check_lines(path.read_bytes())


def test_the_lines_of_several_workers_do_not_mix_in_a_pipe():
    done = subprocess.run([sys.executable, "-c", WORKERS], check=True, timeout=60, stdout=subprocess.PIPE)
    check_lines(done.stdout)


# --- documentation -----------------------------------------------------------------------------------------------


def test_every_field_is_documented_and_no_other():
    page = (Path(__file__).parent.parent / "docs" / "audit.md").read_text().partition("\n## What operators do")[0]
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert re.findall("`([a-z_]+)`", "".join(rows)) == [
        *FIELDS,
        "credential_id",
        "shadow",
        "facts",
        "truncated",
        "suppressed",
    ]


# --- settings ----------------------------------------------------------------------------------------------------


def test_the_settings_have_the_contracts_default_and_a_relative_file_stands_beside_the_configuration(tmp_path):
    assert AuditSettings().file is None
    place = Place(directory=tmp_path, environment={})
    assert AuditSettings.model_validate({"file": "var/audit.jsonl"}, context=place).file == tmp_path / "var/audit.jsonl"
    with pytest.raises(ValidationError):
        AuditSettings.model_validate({"files": "x"}, context=place)


def test_events_of_hits_are_written_together_and_before_the_next_other_event(lines, steady):
    log = AuditLog(SECRET, lines.append, lambda: NOW, steady, flush_s=60.0)
    for number in range(3):
        log.tell(lambda _, number=number: {"number": number, "cached": True})
    assert lines == []
    log.tell(lambda _: {"number": 3})
    assert len(lines) == 1
    assert [json.loads(line)["number"] for line in lines[0].splitlines()] == [0, 1, 2, 3]


def test_no_more_than_64_kb_of_events_wait(lines, steady):
    log = AuditLog(SECRET, lines.append, lambda: NOW, steady, flush_s=60.0)
    for _ in range(100):
        log.tell(lambda _: {"text": "x" * 2000, "cached": True})
    assert lines
    assert max(map(len, lines)) <= 65_536 + LINE_BYTES
    log.flush()
    assert sum(line.count(b"\n") for line in lines) == 100


def test_each_event_of_a_batch_that_is_lost_is_counted(steady):
    def full(_):
        raise OSError(28, "No space left on device")

    log = AuditLog(SECRET, full, lambda: NOW, steady, flush_s=60.0)
    for _ in range(3):
        log.tell(lambda _: {"cached": True})
    log.flush()
    assert log.failures == 3


@pytest.mark.parametrize(("written", "seconds"), [("0", 0.0), (0, 0.0), ("0s", 0.0), ("20ms", 0.02)])
def test_the_time_that_events_may_wait_is_a_duration_or_0(written, seconds):
    assert AuditSettings.model_validate({"flush": written}).flush == seconds
    assert AuditSettings().flush == 0.005
