"""The service's own log and its metrics: what they tell, what they never tell, and several workers at once."""

import functools
import io
import json
import logging
import os
import queue
import re
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sts import options
from sts.errors import REASONS, StartError
from sts.telemetry import GunicornLogger, Log, Metrics, Reading, Throttle, logs, mask, measures, take_over_logging
from sts.telemetry.redaction import MASK, masked
from sts.telemetry.throttle import EVERY_S, MAX_KINDS

HEADER = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9"
JWT = HEADER + ".eyJzdWIiOiJtYXJrZWQtdXNlciJ9.c2lnbmF0dXJl_-c2ln"


# --- the log -----------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def told(stream, monkeypatch):
    """What the process's log has told so far, as JSON, with what would wait until the end of the second."""
    monkeypatch.setattr(logs, "log", Log(stream))
    monkeypatch.setattr(measures, "log", logs.log)

    def told():
        logs.log.throttle.flush()
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    return told


def test_an_event_is_one_line_of_json_with_time_level_and_facts(told):
    logs.log.error("fault", request_id="r-1", count=3, ok=True, nothing=None, share=0.5)
    (event,) = told()
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "error",
        "event": "fault",
        "request_id": "r-1",
        "count": 3,
        "ok": True,
        "nothing": None,
        "share": 0.5,
    }


def test_each_level_is_told_by_its_name(told):
    logs.log.info("a")
    logs.log.warning("b")
    logs.log.error("c")
    assert [event["level"] for event in told()] == ["info", "warning", "error"]


def test_facts_cannot_pass_for_the_event_or_its_level(told):
    logs.log.tell("error", "real", {"event": "forged", "level": "info", "time": "never", "facts": 1})
    (event,) = told()
    assert (event["event"], event["level"], event["facts"]) == ("real", "error", 1)
    assert event["time"] != "never"


def test_on_a_terminal_it_is_readable_and_not_json():
    terminal = Terminal()
    Log(terminal).warning("key is due", kid="abc")
    assert "key is due" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


@pytest.mark.parametrize("terminal", [True, False])
def test_no_value_can_begin_a_line_of_its_own_or_move_a_terminals_cursor(terminal):
    stream = Terminal() if terminal else io.StringIO()
    Log(stream).error("a\nb", name='x\r\n{"event": "forged"}\x1b[2J\u2028')
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b[2J" not in stream.getvalue()


@pytest.mark.parametrize("breaks", [OSError, ValueError])
def test_a_log_that_cannot_be_written_raises_nothing(breaks):
    class Broken(io.StringIO):
        def write(self, _text):
            raise breaks

    Log(Broken()).error("fault")


def test_without_a_stream_it_writes_to_standard_error_as_it_is_now(capsys):
    Log().error("fault")
    assert json.loads(capsys.readouterr().err)["event"] == "fault"


def throw(error):
    raise error


def while_handling(error, call):
    """Call `call` as an exception handler would."""
    try:
        throw(error)
    except type(error):
        call()


def test_where_names_our_own_line_and_no_value():
    with pytest.raises(ValueError, match="a duration") as caught:
        options.parse_duration("marked-user")
    module, _, line = Log.where(caught.value).partition(":")
    assert (module, line.isdigit()) == ("sts.options", True)


def test_where_takes_our_innermost_line_even_if_a_library_raised():
    class Unsliceable:
        def __getitem__(self, _index):
            raise LookupError("marked-user")

    with pytest.raises(LookupError) as caught:
        mask(Unsliceable())
    assert Log.where(caught.value).startswith("sts.telemetry.redaction:")


def test_where_takes_the_innermost_line_of_all_if_none_is_ours():
    with pytest.raises(ValueError, match="marked-user") as caught:
        throw(ValueError("marked-user"))
    assert Log.where(caught.value) == f"{__name__}:{throw.__code__.co_firstlineno + 1}"


def test_where_says_so_when_it_does_not_know():
    assert Log.where(ValueError()) == "?:0"


def test_of_lines_that_differ_in_the_request_alone_one_a_second_is_written_and_the_others_are_counted(told, stream):
    """A stranger may cause them as often as they like."""
    for number in range(1000):
        logs.log.warning("invalid request", peer=f"10.0.0.{number}", fault="InvalidHeader")
    logs.log.warning("invalid request", peer="10.0.0.1", fault="InvalidRequestLine")
    assert len(stream.getvalue().splitlines()) < 200  # two, but for a machine that takes seconds for this
    lines = told()
    assert {(line["event"], line["fault"]) for line in lines} == {
        ("invalid request", "InvalidHeader"),
        ("invalid request", "InvalidRequestLine"),
    }
    assert sum(1 + line.get("suppressed", 0) for line in lines) == 1001


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def throttle(clock, monkeypatch):
    """A throttle whose timers never end by themselves."""
    made = Throttle(clock)
    monkeypatch.setattr(made, "_write_later", lambda _kind, _seconds: None)
    return made


def test_the_first_line_of_a_kind_is_written_at_once_and_the_next_a_second_later(throttle, clock):
    written = []
    for second in range(3):
        for _ in range(10):
            throttle.offer("a", written.append)
        assert written == [0, *[9] * second]
        clock.now += EVERY_S
    throttle.offer("b", written.append)
    assert written == [0, 9, 9, 0]


def test_what_waits_is_written_at_the_end_of_the_second_by_itself():
    written = queue.SimpleQueue()
    throttle = Throttle()
    for number in range(5):
        throttle.offer("a", lambda others, number=number: written.put((number, others)))
    found = [written.get(timeout=60)]
    while sum(1 + others for _, others in found) < 5:
        found.append(written.get(timeout=60))
    assert (found[0], found[-1][0]) == ((0, 0), 4)


def test_kinds_beyond_the_bound_count_as_one_and_old_ones_make_room(throttle, clock):
    written = []
    for number in range(2 * MAX_KINDS):
        throttle.offer(f"kind-{number}", written.append)
    assert written == [0] * (MAX_KINDS + 1)
    throttle.flush()
    assert written[-1] == MAX_KINDS - 2
    clock.now += 2 * EVERY_S
    throttle.offer("new", written.append)
    throttle.offer("newer", written.append)
    assert written[-2:] == [0, 0]


def test_a_forked_process_does_not_write_what_waits_in_its_parent(throttle):
    written = []
    throttle.offer("a", written.append)
    throttle.offer("a", written.append)
    throttle.forget()
    throttle.flush()
    assert written == [0]


def test_without_a_thread_for_the_end_of_the_second_the_next_line_gives_the_number(clock, monkeypatch):
    def none_left(_timer):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    throttle, written = Throttle(clock), []
    throttle.offer("a", written.append)
    throttle.offer("a", written.append)
    clock.now += EVERY_S
    throttle.offer("a", written.append)
    assert written == [0, 1]


# --- redaction ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"got {JWT} here", f"got {MASK} here"),
        (f"[{HEADER}..ciphertext.tag]", f"[{MASK}]"),
        ("ewogICJhbGciOiAibm9uZSIKfQ.e30.", MASK),  # a header over several lines
        ("Authorization: Bearer abcdefgh12345678", f"Authorization: {MASK}"),
        ("'Authorization': 'Basic Z2F0ZXdheTpzZWNyZXQ='", f"'Authorization': {MASK}"),
        ("saw bearer abcdefgh12345678, refused", f"saw bearer {MASK}, refused"),
        ("X-Gateway-Secret: hunter2", f"X-Gateway-Secret: {MASK}"),
        ("X-API-Key=sk_live_1", f"X-API-Key={MASK}"),
        ("Cookie: a=b; c=d", f"Cookie: {MASK}"),
        ("client_secret=hunter2&grant_type=x", f"client_secret={MASK}&grant_type=x"),
        ("subject_token=opaque", f"subject_token={MASK}"),
        ("GET /orders?access=opaque HTTP/1.1", f"GET /orders?{MASK} HTTP/1.1"),
        ("GET /orders?;access HTTP/1.1", f"GET /orders?{MASK} HTTP/1.1"),
        ("-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\nrest", f"{MASK} rest"),
        ("-----BEGIN PRIVATE KEY-----\nMHc", MASK),
    ],
)
def test_what_looks_like_a_secret_is_masked(text, left):
    assert mask(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "the client does not list the audience",
        "orders:read orders:write",
        "https://idp.example.com/jwks.json",
        "eyewear-service.internal",
        "kid 2kGJ8RqlXxbWvUIXjF6T5hKZ0w1yTzq7rWc8mPZ4vNs",
        "did you mean `claims`?; CEL over claims",
        "token_too_large",
        "Grüße",
    ],
)
def test_what_an_operator_needs_stays(text):
    assert mask(text) == text


def test_a_field_with_a_secrets_name_is_masked_whatever_it_holds():
    names = ["secret", "client_secret", "password", "access_token", "Authorization", "private_key", "api_key", "cookie"]
    assert {name: masked("x", name) for name in names} == dict.fromkeys(names, MASK)
    assert masked({"credential": ["x"], "credential_hash": "hmac:1", "tokens": 3}) == {
        "credential": MASK,
        "credential_hash": "hmac:1",
        "tokens": 3,
    }


def test_of_an_object_only_its_type_is_told():
    class Claims:
        def __repr__(self):
            return "marked-user"

    told = masked({"a": Claims(), "b": [Claims()], "c": b"marked-user", "d": ValueError("marked-user")})
    assert told == {"a": "<Claims>", "b": ["<Claims>"], "c": "<bytes>", "d": "<ValueError>"}


def test_what_is_too_deep_too_wide_or_too_long_is_cut():
    deep = ["x"]
    for _ in range(10):
        deep = [deep]
    assert "x" not in json.dumps(masked(deep))
    assert len(masked(list(range(1000)))) == 100
    assert len(mask("x" * 100_000)) == 2001


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_token_is_masked_wherever_it_stands(before, after):
    assert JWT not in mask(f"{before} {JWT} {after}")


@pytest.mark.parametrize(
    "text", ["x-" * 4000, "x-key" * 2000, "ey" * 4000, "bearer " * 1200, "token=" * 1500, "_" * 8000 + "token"], ids=len
)
def test_no_text_makes_redaction_slow(text):
    started = time.thread_time()
    mask(text)
    assert time.thread_time() - started < 1


# --- what others log ---------------------------------------------------------------------------------------------


@pytest.fixture
def taken_over():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    take_over_logging()
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("taken_over")
def test_what_libraries_log_is_told_redacted_and_without_tracebacks(told):
    library = logging.getLogger("urllib3.connectionpool")
    library.warning("Retrying %s", "/jwks?token=opaque")
    library.info("not told")
    while_handling(ValueError("marked-user"), functools.partial(library.exception, "failed\nmore"))
    first, second = told()
    assert (first["level"], first["event"], first["logger"]) == ("warning", f"Retrying /jwks?{MASK}", library.name)
    assert (second["level"], second["event"], second["fault"]) == ("error", "failed", "ValueError")
    assert second["at"].startswith(__name__)
    assert "marked-user" not in json.dumps(second)


def test_a_librarys_broken_log_call_is_told_all_the_same(told):
    logs._Handler().handle(logging.LogRecord("library", logging.WARNING, "", 1, "%d", ("no number",), None))
    assert told()[0]["event"] == "%d"


@pytest.mark.usefixtures("taken_over")
def test_warnings_of_python_are_told(told):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("something is deprecated", stacklevel=1)
    assert "something is deprecated" in told()[0]["event"]


def test_gunicorns_lines_come_through(told):
    logger = GunicornLogger(None)
    logger.info("Listening at: %s (%s)", "http://127.0.0.1:8080", 12)
    logger.critical("WORKER TIMEOUT (pid:%s)", 12)
    logger.log("error", "Worker (pid:%s) exited with code %s.", 12, 3)
    logger.log(logging.DEBUG, "not told")
    logger.debug("Current configuration: %s", "secret")
    logger.error("no argument for %s")
    logger.access(None, None, {"RAW_URI": "/?token=x"}, None)
    assert [(event["level"], event["event"]) for event in told()] == [
        ("info", "Listening at: http://127.0.0.1:8080 (12)"),
        ("critical", "WORKER TIMEOUT (pid:12)"),
        ("error", "Worker (pid:12) exited with code 3."),
        ("error", "no argument for %s"),
    ]


def test_gunicorns_exceptions_are_told_by_type_and_place_alone(told):
    logger = GunicornLogger(None)
    for call in (
        functools.partial(logger.exception, "Error handling request %s", "/orders?marked-user"),
        functools.partial(logger.exception, ValueError("marked-user")),
        functools.partial(logger.error, "Unhandled: %s", "marked-user", exc_info=True),
    ):
        while_handling(ValueError("marked-user"), call)
    events = told()
    assert [event["event"] for event in events] == ["Error handling request", "ValueError", "Unhandled"]
    assert {event["fault"] for event in events} == {"ValueError"}
    assert "marked-user" not in json.dumps(events)


def test_a_start_error_is_written_for_the_operator_and_told_whole(told):
    tell = functools.partial(GunicornLogger(None).exception, "Exception in worker process")
    while_handling(StartError("the audit file cannot be opened"), tell)
    assert told()[0]["why"] == "the audit file cannot be opened"


@pytest.mark.parametrize("peer", ["10.1.2.3", "::1", ""])
def test_of_an_invalid_request_nothing_is_told_but_the_peer_and_the_kind_of_fault(told, peer):
    error = LookupError("Invalid HTTP Header: 'X-Opaque: marked-user'")
    while_handling(error, functools.partial(GunicornLogger(None).warning, f"Invalid request from ip={peer}: {error}"))
    (event,) = told()
    assert (event["event"], event["peer"], event["fault"]) == ("invalid request", peer, "LookupError")
    assert "marked-user" not in json.dumps(event)


# --- metrics -----------------------------------------------------------------------------------------------------


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def decisions(found, **labels):
    return found["sts_decisions_total", *sorted(labels.items())]


def test_every_series_of_decisions_is_there_before_the_first_one():
    found = samples(Metrics().render()[1])
    for door in ("token", "forward_auth"):
        for reason in REASONS:
            assert decisions(found, door=door, outcome="refused", reason=reason, cached="false") == 0
        for cached in ("true", "false"):
            assert decisions(found, door=door, outcome="allowed", reason="", cached=cached) == 0


def test_what_is_counted_is_what_is_shown():
    metrics = Metrics()
    metrics.decision("token", "", cached=True, seconds=0.0003)
    metrics.decision("token", "", cached=True, seconds=0.0003)
    metrics.decision("forward_auth", "expired", cached=False, seconds=0.7)
    metrics.cache_changed(5, 7000, 2)
    metrics.cache_changed(4, 6000, 0)
    metrics.jwks_fetched("corporate-idp", "ok")
    metrics.reloaded("refused")
    metrics.audit_failed()
    metrics.unknown_parameter()
    content_type, text = metrics.render()
    found = samples(text)
    assert content_type.startswith("text/plain; version=0.0.4")
    assert decisions(found, door="token", outcome="allowed", reason="", cached="true") == 2
    assert decisions(found, door="forward_auth", outcome="refused", reason="expired", cached="false") == 1
    assert found["sts_decision_seconds_count", ("cached", "true"), ("door", "token")] == 2
    assert found["sts_decision_seconds_bucket", ("cached", "true"), ("door", "token"), ("le", "0.0005")] == 2
    assert found["sts_decision_seconds_sum", ("cached", "false"), ("door", "forward_auth")] == 0.7
    assert (found["sts_cache_entries",], found["sts_cache_bytes",], found["sts_cache_evictions_total",]) == (4, 6000, 2)
    assert found["sts_jwks_fetches_total", ("outcome", "ok"), ("source", "corporate-idp")] == 1
    assert found["sts_reloads_total", ("outcome", "refused")] == 1
    assert found["sts_reloads_total", ("outcome", "accepted")] == 0
    assert (found["sts_audit_failures_total",], found["sts_unknown_parameters_total",]) == (1, 1)


def test_readings_are_asked_at_each_scrape_and_one_that_fails_hides_no_other(told):
    metrics = Metrics()
    age = iter([10.0, 20.0])

    def broken():
        raise LookupError("marked-user")

    metrics.feed(broken)
    metrics.feed(
        lambda: [
            Reading("sts_key_age_seconds", "Age of a key.", next(age), {"kid": "a"}),
            Reading("sts_key_age_seconds", "Age of a key.", 5.0, {"kid": "b"}),
        ]
    )
    for expected in (10.0, 20.0):
        found = samples(metrics.render()[1])
        assert found["sts_key_age_seconds", ("kid", "a")] == expected
        assert found["sts_key_age_seconds", ("kid", "b")] == 5.0
    assert [event["fault"] for event in told()] == ["LookupError"] * 2
    assert "marked-user" not in json.dumps(told())


def test_every_metric_is_documented_and_no_other():
    page = (Path(__file__).parent.parent / "docs" / "audit.md").read_text().partition("## Metrics")[2]
    documented = set(re.findall("`(sts_[a-z_]+)`", "".join(line for line in page.splitlines() if line.startswith("|"))))
    lines = Metrics().render()[1].decode().splitlines()
    assert documented == {line.split()[2] for line in lines if line.startswith("# TYPE")}


def test_counting_from_many_threads_loses_nothing():
    metrics = Metrics()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(
                target=lambda: [metrics.decision("token", "", cached=True, seconds=0.1) for _ in range(500)]
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    found = samples(metrics.render()[1])
    assert decisions(found, door="token", outcome="allowed", reason="", cached="true") == 4000


WORKERS = """
import json, os, sys
from pathlib import Path
from sts.telemetry import mark_dead, metrics, prepare_metrics

directory = Path(sys.argv[1])
directory.mkdir(exist_ok=True)
(directory / "counter_1.db").write_bytes(b"left by an earlier run")
metrics.reloaded("accepted")  # counted before anything was shared
prepare_metrics(directory)


def worker(count):
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        for _ in range(count):
            metrics.decision("token", "expired", cached=False, seconds=0.01)
        metrics.cache_changed(count, 1000 * count, 0)
        metrics.jwks_fetched("idp", "ok")  # a series that the master does not know
        os.write(ready[1], b"+")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    return pid, go[1]


def shown():
    lines = metrics.render()[1].decode().splitlines()
    wanted = ('reason="expired"', "sts_cache_entries", "jwks_fetches_total{", "reloads_total{", 'le="0.01"')
    values = {}
    for line in lines:
        if not line.startswith("#") and any(text in line for text in wanted) and "forward_auth" not in line:
            name, _, value = line.rpartition(" ")
            values[name] = float(value)
    return values


first, second = worker(3), worker(4)
living = shown()
os.write(first[1], b"+")
os.waitpid(first[0], 0)
mark_dead(first[0])
mark_dead(first[0])  # told twice, counted once
one_dead = shown()
third = worker(5)
os.write(second[1], b"+")
os.waitpid(second[0], 0)
mark_dead(second[0])
files = sorted(path.name for path in directory.iterdir())
json.dump([living, one_dead, shown(), files, os.getpid(), third[0]], sys.stdout)
os.write(third[1], b"+")
"""


@pytest.mark.parametrize("variable", [None, "PROMETHEUS_MULTIPROC_DIR"])
def test_a_scrape_shows_all_workers_and_keeps_what_dead_ones_counted(tmp_path, variable):
    environment = {"PATH": os.environ["PATH"]} | ({variable: str(tmp_path / "elsewhere")} if variable else {})
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WORKERS, str(tmp_path / "metrics")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    living, one_dead, later, files, master, third = json.loads(done.stdout)
    expired = 'sts_decisions_total{cached="false",door="token",outcome="refused",reason="expired"}'
    bucket = 'sts_decision_seconds_bucket{cached="false",door="token",le="0.01"}'
    fetches = 'sts_jwks_fetches_total{outcome="ok",source="idp"}'
    assert [
        (seen[expired], seen[bucket], seen["sts_cache_entries"], seen[fetches]) for seen in (living, one_dead, later)
    ] == [
        (7, 7, 7, 2),
        (7, 7, 4, 2),
        (12, 12, 5, 3),
    ]
    assert living['sts_reloads_total{outcome="accepted"}'] == 1  # the workers do not repeat what the master counted
    kinds = ("counter", "gauge_livesum", "histogram")
    assert files == sorted(
        [
            "lock",
            "counter_dead.db",
            "histogram_dead.db",
            *(f"{kind}_{pid}.db" for kind in kinds for pid in (master, third)),
        ]
    )
    assert not (tmp_path / "elsewhere").exists()
