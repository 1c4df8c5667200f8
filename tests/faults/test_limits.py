"""A service that runs out of files, memory for sockets, threads or processes goes on, and writes no core dump.

Everything is done from outside, over sockets, signals and limits of processes, so it holds for any class of worker.
"""

import contextlib
import errno
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import minimal, wait_for

ONE = "\nworkers: 1\nthreads: 4\n"
ASK = b"GET /healthz HTTP/1.1\r\nHost: sts\r\nConnection: close\r\n\r\n"
UNIT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "sts.service"

FAULTS = """\
import os, pathlib, socket
place = pathlib.Path(os.environ["FAULTS"])
def failing(name, call):
    def fail(*arguments, **options):
        fault = place / name
        if fault.exists():
            raise OSError(int(fault.read_text()), os.strerror(int(fault.read_text())))
        return call(*arguments, **options)
    return fail
socket.socket.accept = failing("accept", socket.socket.accept)
os.fork = failing("fork", os.fork)
"""
"""For what only a machine without memory does by itself: a call fails as long as there is a file of its name."""


def open_file_limit(pid):
    """The soft and the hard limit of open files of a process."""
    found = re.search(r"^Max open files\s+(\d+)\s+(\d+)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
    return int(found[1]), int(found[2])


def open_files(pid):
    return [int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()]


def samples(service, name):
    return sum(
        float(value) for value in re.findall(rf"^{name} (\S+)$", service.get("/metrics").body.decode(), re.MULTILINE)
    )


@pytest.fixture
def faults(tmp_path):
    """A directory for faults, and the environment in which they happen."""
    (tmp_path / "sitecustomize.py").write_text(FAULTS)
    return tmp_path, {"FAULTS": str(tmp_path), "PYTHONPATH": str(tmp_path)}


@contextlib.contextmanager
def connections(port, count, first=b""):
    """That many connections, each of which sends `first` and then nothing."""
    made = []
    try:
        for _ in range(count):
            made.append(socket.create_connection(("127.0.0.1", port), timeout=60))
            with contextlib.suppress(ConnectionError):
                made[-1].sendall(first)
        yield made
    finally:
        for one in made:
            one.close()


def test_the_service_raises_its_limit_of_open_files_and_leaves_no_core_dump(make_service, idp):
    service = make_service(minimal(idp) + ONE, through=("prlimit", "--nofile=256:4000", "--core=unlimited:unlimited"))
    for pid in {service.process.pid, *service.workers()}:
        assert open_file_limit(pid) == (4000, 4000)
        assert re.search(r"^Max core file size\s+0\s+0\s", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)


def test_a_limit_of_open_files_that_is_too_low_for_the_threads_refuses_the_start(make_service, idp):
    service = make_service(minimal(idp), ready=False, through=("prlimit", "--nofile=200:200"))
    assert service.process.wait(60) == 1
    assert "the limit of open files, 200, is too low for 64 threads" in service.log()


def test_idle_connections_and_oversized_heads_never_use_up_the_files_of_a_worker(make_service, idp):
    """Far more connections than files: 170 connections may be open of 298 files."""
    service = make_service(minimal(idp) + ONE, through=("prlimit", "--nofile=298:298"))
    workers = service.workers()
    with connections(service.port, 600), connections(service.port, 100, b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000):
        assert service.exchange(idp.token()).status == 200
        (worker,) = workers
        assert len(open_files(worker)) < 298 - 32
        assert samples(service, "sts_accepts_failed_total") == 0
    assert service.workers() == workers


def test_a_worker_without_a_free_file_stops_accepting_for_a_moment_and_goes_on(make_service, idp):
    service = make_service(minimal(idp) + ONE)
    (worker,) = service.workers()
    used = max(open_files(worker)) + 1
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (used, open_file_limit(worker)[1]))
    with connections(service.port, 40):
        wait_for(lambda: "cannot accept" in service.log())
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (1000, open_file_limit(worker)[1]))
        assert service.exchange(idp.token()).status == 200
    assert service.workers() == {worker}
    assert samples(service, "sts_accepts_failed_total") > 0


def test_a_worker_survives_a_connection_that_the_system_cannot_give_it(make_service, idp, faults):
    place, environment = faults
    service = make_service(minimal(idp) + ONE, environment=environment)
    workers = service.workers()
    for fault in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EPERM):
        (place / "accept").write_text(str(fault))
        with connections(service.port, 1, ASK) as (waiting,):
            wait_for(lambda fault=fault: f'"cannot accept", "why": "{os.strerror(fault)}"' in service.log())
            (place / "accept").unlink()
            assert waiting.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert service.workers() == workers


def test_without_another_thread_every_request_is_answered_and_the_worker_lives(make_service, idp):
    """A thread needs 8 MB of address space for its stack."""
    service = make_service(minimal(idp) + "\nworkers: 1\n")
    (worker,) = service.workers()
    token = idp.token()
    assert service.exchange(token).status == 200
    size = int(Path(f"/proc/{worker}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(worker, resource.RLIMIT_AS, (size + 4_000_000, resource.RLIM_INFINITY))
    with ThreadPoolExecutor(32) as callers:
        answers = list(callers.map(lambda _: service.exchange(token).status, range(200)))
    assert set(answers) <= {200, 503}
    assert answers.count(200) > 0
    resource.prlimit(worker, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert service.exchange(token).status == 200
    assert service.workers() == {worker}


def test_a_master_that_cannot_fork_keeps_the_other_workers_and_tries_again(make_service, idp, faults):
    place, environment = faults
    service = make_service(minimal(idp) + "\nworkers: 2\n", environment=environment)
    kept, killed = service.workers()
    (place / "fork").write_text(str(errno.EAGAIN))
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: "worker cannot be forked" in service.log())
    assert service.exchange(idp.token()).status == 200
    assert service.workers() == {kept}
    (place / "fork").unlink()
    wait_for(lambda: len(service.workers()) == 2)


def test_another_process_of_the_same_user_cannot_read_the_memory_of_a_command():
    """The kernel gives what /proc shows of such a process to root (PR_SET_DUMPABLE)."""
    code = """
import os
from sts.server.prctl import forbid_core_dumps, prctl
if os.geteuid() == 0:  # this interpreter may be where another user cannot start it
    os.setuid(65534)
prctl(4, 1)  # PR_SET_DUMPABLE: as of a command that this user started
forbid_core_dumps()
print(flush=True)
input()
"""
    command = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/")
    try:
        command.stdout.readline()
        assert Path(f"/proc/{command.pid}/mem").stat().st_uid == 0
    finally:
        command.communicate(b"\n")
    assert command.returncode == 0


def test_the_unit_is_one_that_systemd_takes_and_sets_the_limits(tmp_path):
    text = UNIT.read_text()
    assert "LimitNOFILE=65536\nLimitCORE=0\n" in text
    copy = tmp_path / "sts.service"
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    with contextlib.suppress(FileNotFoundError):  # a machine without systemd
        found = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
        assert (found.returncode, found.stderr) == (0, "")
