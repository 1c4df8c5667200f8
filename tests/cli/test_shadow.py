"""`sts shadow report`."""

import json
import tracemalloc

import pytest

from sts.cli.shadow import MAX_ROWS, Report

COLUMNS = ["audience", "client", "route", "denied", "errors", "allowed", "unknown"]


def event(second, shadow, **fields):
    return json.dumps(
        {
            "time": f"2026-07-01T10:00:{second:02d}.000Z",
            "event": "decision",
            "request_id": f"request-{second}",
            "client": "edge-gateway",
            "route": None,
            "shadow": shadow,
            **fields,
        }
    )


LINES = [
    event(1, {"orders": "allow"}),
    event(2, {"orders": "deny"}),
    event(3, {"orders": "deny", "billing": "error"}, route="both", client="mesh"),
    event(9, {"orders": "deny"}),
    event(4, {"orders": "deny"}),
    event(5, {"orders": "unknown"}),
    event(6, None),
    "nginx: started",
    event(7, {"orders": "a new outcome"}),
]


@pytest.fixture
def audit(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_text("\n".join(LINES) + "\n")
    return path


def rows(result):
    return [tuple(row[name] for name in COLUMNS) for row in json.loads(result.stdout)["rows"]]


def test_it_counts_by_audience_client_and_route_and_begins_where_most_would_be_denied(sts, audit):
    result = sts("shadow", "report", "--json", audit)
    assert result.exit_code == 0
    assert rows(result) == [
        ("orders", "edge-gateway", None, 3, 0, 1, 1),
        ("orders", "mesh", "both", 1, 0, 0, 0),
        ("billing", "mesh", "both", 0, 1, 0, 0),
    ]
    found = json.loads(result.stdout)
    assert found["rows"][0]["last_denied"] == {"time": "2026-07-01T10:00:09.000Z", "request_id": "request-9"}
    assert found["rows"][2]["last_denied"] is None
    assert (found["decisions"], found["unreadable"], found["since"]) == (8, 1, None)


def test_for_a_person_it_is_a_table_and_says_what_it_could_not_read(sts, audit):
    result = sts("shadow", "report", audit)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["orders", "edge-gateway", "-", "3", "0", "1", "1", "2026-07-01T10:00:09.000Z", "request-9"] in lines
    assert result.stderr == "1 lines are not audit events\n"


def test_events_of_other_kinds_are_no_decisions_and_not_unreadable(sts, audit):
    with audit.open("a") as file:
        file.write('{"time":"2026-07-01T10:00:20.000Z","event":"keys","action":"rotated"}\n')
    found = json.loads(sts("shadow", "report", "--json", audit).stdout)
    assert (found["decisions"], found["unreadable"]) == (8, 1)


def test_one_audience_from_a_time_on(sts, audit):
    result = sts("shadow", "report", "--json", "--audience", "orders", "--since", "2026-07-01T12:00:03+02:00", audit)
    assert rows(result) == [("orders", "edge-gateway", None, 2, 0, 0, 1), ("orders", "mesh", "both", 1, 0, 0, 0)]


def test_a_duration_counts_from_now(sts, audit):
    assert rows(sts("shadow", "report", "--json", "--since", "1h", audit)) == []
    assert len(rows(sts("shadow", "report", "--json", "--since", "99999d", audit))) == 3


def test_standard_input_is_read_too(sts):
    assert rows(sts("shadow", "report", "--json", "-", input=LINES[1])) == [
        ("orders", "edge-gateway", None, 1, 0, 0, 0)
    ]


def test_without_a_file_it_is_the_configurations(sts, configure, audit):
    path = configure(lambda document: document.update(audit={"file": audit.name}))
    assert len(rows(sts("shadow", "report", "--json", "-c", path))) == 3


def test_nothing_on_trial_is_told(sts):
    result = sts("shadow", "report", "-", input=event(1, None))
    assert (result.exit_code, result.stdout) == (0, "no rule was on trial in 1 decisions\n")


@pytest.mark.parametrize("since", ["yesterday", "2026-07-01", "2026-07-01T00:00:00", "7", "-7d", "999999999d"])
def test_a_time_that_is_none_is_a_usage_error(sts, audit, since):
    assert sts("shadow", "report", f"--since={since}", audit).exit_code == 2


def test_an_audit_that_was_collected_elsewhere_must_be_named(sts, configure):
    result = sts("shadow", "report", "-c", configure(lambda _: None))
    assert (result.exit_code, "standard output" in result.stderr) == (2, True)


def test_an_audit_that_cannot_be_read_is_exit_1(sts, tmp_path):
    result = sts("shadow", "report", tmp_path / "none.jsonl")
    assert result.exit_code == 1
    assert "No such file" in result.stderr


@pytest.mark.parametrize(
    "line",
    [
        *(
            "",
            "[]",
            "null",
            '"x"',
            "{",
            '{"event": "decision"}',
            "[" * 100_000,
            "\xff",
            '{"event": "decision", "time": 1}',
        ),
        json.dumps({"event": "decision", "time": "2026-07-01T10:00:00.000Z\n", "shadow": {"orders": "deny"}}),
        event(1, {"orders": "deny"}, filler="x" * 100_000),
    ],
)
def test_a_line_that_is_no_event_is_counted_and_left_out(sts, line):
    text = f"{line}\n{event(2, {'orders': 'deny'})}\n"
    found = json.loads(sts("shadow", "report", "--json", "-", input=text).stdout)
    assert (found["unreadable"], found["decisions"]) == (1, 1)


@pytest.mark.parametrize("field", [{"client": 7}, {"route": ["x"]}, {"request_id": None}, {"shadow": ["orders"]}])
def test_a_strange_field_does_not_stop_it(sts, field):
    strange = json.dumps({**json.loads(LINES[1]), **field})
    assert sts("shadow", "report", "-", input=strange).exit_code == 0


def test_what_an_audit_says_reaches_no_terminal_raw(sts):
    result = sts("shadow", "report", "-", input=event(1, {"\x1b[31morders": "deny"}, request_id="\x1b]0;x\x07"))
    assert "\x1b" not in result.stdout


def test_its_memory_does_not_grow_with_the_audit():
    """Of 30 000 routes, which no configuration has, the first are told apart and the others summed up."""

    class Endless:
        left = 30_000

        def readline(self, _limit):
            self.left -= 1
            return (event(1, {"orders": "deny"}, route=f"{self.left}" * 50) + "\n").encode() if self.left >= 0 else b""

    report = Report()
    tracemalloc.start()
    report.read(Endless())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(report.rows) == MAX_ROWS + 1
    assert sum(row.counts["deny"] for row in report.rows.values()) == 30_000
    assert peak < 20_000_000
