"""The benchmark's arithmetic, its load generators on a real server, and one short real run."""

import contextlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from rich.console import Console

from scripts.bench import __main__ as bench
from scripts.bench import report
from scripts.bench.cases import CASES, Peer, get
from scripts.bench.configurations import grown, kinds, many, plain, text
from scripts.bench.figures import (
    GOALS,
    NGINX,
    Load,
    Result,
    Round,
    Run,
    machine_share,
    parse_wrk,
    percentile,
    requests_per_core,
)
from scripts.bench.load import Order, Target, Wrk, measure, memory_mb, processor_seconds, python_generator, tree
from scripts.servers import WRK, find
from sts.settings import load

MACHINE = {"cpu": "a <fast> one", "processors": 2, "python": "3.11.7", "rounds": 3}


def result(case, *cpu, connections=16, p99=4.0, **more):
    return Result(case, connections, [Round(one, 1000.0 + one, 1.0, p99) for one in cpu], **more)


def run_of(*results, **more):
    return Run("2026-01-31 12:00", "python -m scripts.bench", MACHINE, "wrk", list(results), **more)


@pytest.fixture
def measured():
    return run_of(
        result(NGINX, 10.0, 9.0, 50.0),
        result("hit forward-auth", 55.0, 61.0, 58.0),
        result("hit forward-auth", 60.0, connections=128, p99=21.0),
        result("miss forward-auth", 270.0),
        raw_us={"verify RS256": 20.0, "sign ES256": 22.0},
        rules=[{"rule": "claims.a", "size": "16 KB token", "steps": 7, "ms": 0.5}],
        notes=["the machine was busy"],
    )


def verdicts(run):
    return {goal.text: goal.met(goal.measure(run)) for goal in GOALS}


def test_figures_are_medians_so_that_one_disturbed_round_does_not_count(measured):
    assert measured.cpu(NGINX) == 10.0
    assert measured.find("hit forward-auth").median("per_second") == 1058.0


def test_a_ratio_compares_with_the_yardstick_of_the_same_run(measured):
    assert measured.ratio("hit forward-auth", NGINX) == 5.8
    assert measured.ratio("hit forward-auth", NGINX, connections=128) == 6.0


def test_a_ratio_to_what_was_not_measured_is_none(measured):
    assert measured.ratio("hit /token", NGINX) is None
    assert run_of(result("hit forward-auth", 5.0)).ratio("hit forward-auth", NGINX) is None


def test_goals_are_met_not_met_or_not_measured(measured):
    found = verdicts(measured)
    assert found["hit at forward-auth"] is True
    assert found["miss at forward-auth"] is True
    assert found["p99 of hits, 128 connections"] is False
    assert found["hit at /token"] is None


def test_growth_compares_with_the_same_case_in_a_small_configuration(measured):
    measured.results.append(result("hit forward-auth, 10 000 of each", 58.0 * 1.2))
    measured.results.append(result("miss forward-auth, 10 000 of each", 270.0))
    found = verdicts(measured)
    assert found["hit with 10 000 sources, audiences, routes, clients"] is False
    assert found["miss with 10 000 sources, audiences, routes, clients"] is True


def test_memory_of_a_cached_token_does_not_count_the_token(measured):
    full = result("100 000 tokens forward-auth", 60.0, memory_mb=220.0, idle_mb=90.0, minted_bytes=700)
    measured.results.append(full)
    (goal,) = (goal for goal in GOALS if goal.unit == "B")
    assert goal.measure(measured) == pytest.approx(600)
    assert goal.met(goal.measure(measured) + 1) is False


def test_a_peer_whose_process_is_not_known_has_no_processor_time():
    unknown = run_of(Result("hit", 16, [Round(None, 10.0, 1.0, 2.0)]), result(NGINX, 9.0))
    assert unknown.cpu("hit") is None
    assert report.row(unknown, unknown.results[0])[2:5] == ["-", "-", "10.0"]


def test_the_line_of_wrk_is_found_among_its_output():
    line = '{"answers": 5, "seconds": 0.5, "p50_ms": 1.25, "p99_ms": 9.0, "failed": 1, "refused": 2}'
    assert parse_wrk(f"Running 1s test\n  5 requests\nfigures {line}\n") == Load(5, 0.5, 1.25, 9.0, 1, 2)


def test_output_of_wrk_without_figures_is_shown():
    with pytest.raises(ValueError, match="unable to connect"):
        parse_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_percentiles_are_values_that_were_seen():
    assert percentile([3, 1, 2, 4], 0.5) == 3
    assert percentile(range(1, 101), 0.99) == 100
    assert percentile([7], 0.99) == 7
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_the_share_of_other_processes_is_what_was_not_idle():
    before = {"idle": 100.0, "all": 200.0}
    assert machine_share(before, {"idle": 101.5, "all": 202.0}) == pytest.approx(0.25)
    assert machine_share(before, before) == 0


def test_capacity_mixes_hits_and_misses(measured):
    assert requests_per_core(measured, 0.0) == pytest.approx(600_000 / 58)
    assert requests_per_core(measured, 1.0) == pytest.approx(600_000 / 270)
    assert requests_per_core(measured, 0.5) == pytest.approx(600_000 / 164)
    assert requests_per_core(run_of(), 0.5) is None


def test_json_is_read_back_as_it_was_written(measured):
    written = measured.as_json()
    assert Run.from_json(written) == measured
    whole = json.loads(written)
    assert whole["results"][1]["median"]["cpu_us"] == 58.0
    assert whole["goals"][0] == {"goal": "hit at forward-auth", "limit": 6, "measured": 5.8, "met": True}


def test_other_json_is_refused():
    for other in ("{}", '{"goals": [], "results": [{}]}'):
        with pytest.raises(ValueError, match="no result of the benchmark"):
            Run.from_json(other)


def test_the_table_has_each_case_each_goal_and_each_note(measured):
    console = Console(width=140, file=io.StringIO())
    report.show(measured, console)
    shown = console.file.getvalue()
    for wanted in ("hit forward-auth", "58.0", "5.8", "1 058", "not met", "not measured", "raw verify RS256: 20.0"):
        assert wanted in shown
    assert "note: the machine was busy" in shown
    assert "claims.a over a 16 KB token: at most 7 steps, 0.5 ms" in shown


def test_large_figures_have_no_decimals_and_thousands_are_set_apart():
    assert [report.number(one) for one in (0.0, 9.34, 99.9, 123.4, 12345.6, None)] == [
        "0.0",
        "9.3",
        "99.9",
        "123",
        "12 346",
        "-",
    ]


def test_the_picture_is_well_formed_and_has_a_bar_for_each_case(measured):
    picture = ET.fromstring(report.picture(measured))  # noqa: S314 - our own text
    texts = [one.text for one in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"hit forward-auth", "raw sign ES256", "58.0"} <= set(texts)
    assert any("a <fast> one" in one for one in texts)


def test_a_saved_run_is_named_by_its_date_and_is_the_newest(measured, tmp_path):
    measured.date = "2025-01-31 12:00"
    report.save(measured, tmp_path)
    measured.date = "2026-01-31 12:00"
    path = report.save(measured, tmp_path)
    assert {one.suffix for one in tmp_path.glob("2026-01-31-1200.*")} == {".json", ".md", ".svg"}
    assert report.newest(tmp_path) == path
    with pytest.raises(FileNotFoundError, match="make bench"):
        report.newest(tmp_path / "empty")


def test_the_page_keeps_its_prose_and_takes_the_figures(measured):
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    written = report.documented(measured, page)
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "old" not in written
    assert "2026-01-31 12:00, `python -m scripts.bench`" in written
    assert "The machine was busy" in written
    assert report.documented(measured, written) == written
    with pytest.raises(ValueError, match="no lines"):
        report.documented(measured, "a page")


def test_the_page_and_the_picture_have_the_newest_result():
    """`python -m scripts.bench --docs` writes them again."""
    newest = Run.from_json(report.newest().read_text(encoding="utf-8"))
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.documented(newest, page) == page
    assert report.PICTURE.read_text(encoding="utf-8") == report.picture(newest)


# The load.


@pytest.fixture
def server():
    """A server in this process that answers 200, or the status that the path names, and counts requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked.append(self.path)
            self.send_response(int(self.path.strip("/") or 200))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_):
            pass

    asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield Target("127.0.0.1", listening.server_port, os.getpid()), asked
        listening.shutdown()


def generators():
    program = find(WRK)
    return [python_generator, *([Wrk(program)] if program else [])]


@pytest.mark.servers
@pytest.mark.parametrize("generator", generators(), ids=lambda one: type(one).__name__)
def test_requests_that_are_sent_once_are_all_sent_once(generator, server):
    target, asked = server
    requests = [get(f"/{200 + number}", {"Host": "x"}) for number in range(50)]
    round_ = measure(generator, target, Order(requests, 8, None), 200)
    # wrk tries the connection of its first request before the run
    assert sorted(asked) == [f"/{200 + number}" for number in range(50)]
    assert round_.cpu_us >= 0
    assert round_.p50_ms <= round_.p99_ms


@pytest.mark.servers
@pytest.mark.parametrize("generator", generators(), ids=lambda one: type(one).__name__)
def test_a_wrong_status_is_no_measurement(generator, server):
    target, _ = server
    requests = [get("/200", {"Host": "x"}), get("/503", {"Host": "x"})]
    with pytest.raises(RuntimeError, match="1 had a status of 400 or more"):
        measure(generator, target, Order(requests, 2, None), 200)
    with pytest.raises(RuntimeError, match="401 was expected"):
        measure(generator, target, Order(requests[:1], 1, None), 401)


@pytest.mark.servers
@pytest.mark.parametrize("generator", generators(), ids=lambda one: type(one).__name__)
def test_a_run_by_time_repeats_its_requests(generator, server):
    target, asked = server
    measure(generator, target, Order([get("/200", {"Host": "x"}), get("/201", {"Host": "x"})], 2, 1), 200)
    assert len(asked) > 4
    assert set(asked) == {"/200", "/201"}


def test_processor_time_and_memory_are_those_of_the_whole_tree():
    busy = "import subprocess, sys\nsubprocess.run([sys.executable, '-uc', 'print(sum(range(10**7)));input()'])"
    with subprocess.Popen([sys.executable, "-u", "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        assert len(tree(parent.pid)) == 2
        assert processor_seconds(parent.pid) > 0
        assert memory_mb(parent.pid) > 5
        parent.stdin.close()


# The cases.


def test_no_two_cases_have_one_name():
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("make", [plain, lambda: kinds("9")], ids=["plain", "kinds"])
def test_the_configurations_are_good(make, tmp_path):
    (tmp_path / "ledger.jwks.json").write_text(json.dumps(LEDGER_KEYS))
    (tmp_path / "sts.yaml").write_text(
        text(make()).format(issuer="https://sts.example", port=1, jwks_uri="http://127.0.0.1:1")
    )
    load(tmp_path / "sts.yaml")


def test_the_large_configuration_has_10_000_of_each():
    made = [grown(), *many()]
    for section in ("sources", "audiences", "routes", "clients"):
        assert sum(len(part[section]) for part in made) == 10_001


LEDGER_KEYS = {
    "keys": [
        {
            "kty": "EC",
            "crv": "P-256",
            "kid": "ledger-1",
            "use": "enc",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        }
    ]
}


def test_a_request_to_another_server_has_its_headers_and_varies():
    peer = Peer("/verify?n={n}", "peer:81", "POST", {"X-Forwarded-Uri": "/orders/{n}"}, "Authorization")
    request = peer.request("token", 7).decode()
    assert request.startswith("POST /verify?n=7 HTTP/1.1\r\nHost: peer:81\r\nX-Forwarded-Uri: /orders/7\r\n")
    assert request.endswith("\r\nAuthorization: Bearer token\r\n\r\n")
    assert "X-Token: token\r\n" in Peer("/", "peer", "GET", {}, "X-Token").request("token", 1).decode()


# The command.


def command(*arguments):
    return CliRunner().invoke(bench.main, list(arguments))


def test_help_explains_every_option():
    shown = command("--help").output
    for option in bench.main.params:
        assert option.help, option.name
    assert "make bench AGAINST=" in shown


def test_the_list_names_every_case():
    shown = command("--list").output
    assert all(case.name in shown for case in CASES)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--case", "no such case"], "--list shows them"),
        (["--against", "ftp://x/"], "needs an http URL"),
        (["--against", "http://127.0.0.1:1/", "--header", "no colon"], "Name: value"),
    ],
)
def test_a_wrong_option_is_explained(arguments, why, monkeypatch):
    monkeypatch.setattr(bench, "_LOOK_S", 0.0)
    done = command(*arguments)
    assert done.exit_code == 2
    assert why in done.output


def run_bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "scripts.bench", *arguments],
        cwd=report.ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.servers
def test_a_short_real_run_measures_hits_misses_and_refusals(tmp_path):
    chosen = [f"--case={name} forward-auth" for name in ("hit", "miss", "refusal")]
    done = run_bench("--quick", *chosen, "--connections=4", f"--json={tmp_path / 'run.json'}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = Run.from_json((tmp_path / "run.json").read_text())
    assert {"hit forward-auth", "miss forward-auth", "refusal forward-auth"} <= {one.case for one in found.results}
    assert all(one.cpu_us is not None and one.memory_mb > 0 for one in found.results)
    assert found.find("hit forward-auth", 4).cached == 1.0
    assert found.find("miss forward-auth", 4).cached == 0.0
    assert "the figures measure nothing" in done.stdout
    assert "round 1 of 1: miss forward-auth, 4 connections" in done.stderr


@pytest.mark.servers
def test_another_server_is_measured_by_its_url(server, tmp_path):
    target, asked = server
    (tmp_path / "tokens").write_text("one\ntwo\n")
    url = f"http://127.0.0.1:{target.port}/200"
    more = ["--token-file", str(tmp_path / "tokens"), "--connections=2", "--generator=python"]
    done = run_bench("--quick", "--against", url, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "given tokens" in done.stdout
    assert len(asked) > 2


@pytest.mark.servers
def test_a_server_that_answers_otherwise_is_told_with_its_answer(server):
    target, _ = server
    done = run_bench(
        "--quick", "--against", f"http://127.0.0.1:{target.port}/503", "--generator=python", "--connections=1"
    )
    assert done.returncode == 1
    assert "the answer is 503, 200 was expected" in done.stderr
    with contextlib.suppress(ProcessLookupError):
        assert "Traceback" not in done.stderr
