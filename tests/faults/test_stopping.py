"""How a service ends: told to, replaced by its successor under load, or with its master killed.

Everything is done from outside, over sockets and signals, so it holds for any class of worker.
"""

import base64
import contextlib
import http.client
import itertools
import os
import signal
import socket
import subprocess
import threading
import urllib.parse
from pathlib import Path

import pytest
from harness import ACCESS_TOKEN, CLIENT, GRANT, SECRET, minimal, wait_for

from scripts import servers
from scripts.nginx import await_port, free_port, stop

REQUESTS = int(os.environ.get("STS_DRILL_REQUESTS", "600"))
"""How many requests the drill under load answers at least; `STS_DRILL_REQUESTS=20000` for the long one."""

ASK = b"GET /healthz HTTP/1.1\r\nHost: sts\r\n\r\n"
NGINX = """\
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  upstream sts {{
    server 127.0.0.1:{first} max_fails=0;
    server 127.0.0.1:{second} max_fails=0;
    keepalive 16;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://sts;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_next_upstream error timeout;
    }}
  }}
}}
"""


def nginx_program():
    program = servers.find(servers.NGINX)
    if program is None:
        pytest.skip("no nginx is installed, and none could be")
    return program


def running(pid):
    """Whether a process is there and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def connect(service):
    """A connection to the service that sends nothing yet."""
    if service.unix is None:
        return socket.create_connection(("127.0.0.1", service.port), timeout=60)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(60)
        connection.connect(str(service.unix))
    except OSError:
        connection.close()
        raise
    return connection


def is_refused(service):
    try:
        connect(service).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


def metrics_directory(worker):
    """Where a worker keeps its numbers: files that it has mapped."""
    mapped = Path(f"/proc/{worker}/maps").read_text().split()
    return next(Path(one).parent for one in mapped if "/sts-metrics-" in one)


def exchange_request(token):
    """A request for the token endpoint, as `http.client` takes it."""
    form = {"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS_TOKEN, "audience": "orders"}
    basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Basic {basic}"}
    return "POST", "/token", urllib.parse.urlencode(form), headers


def forward_request(token):
    headers = {
        "X-Gateway-Secret": SECRET,
        "X-Original-Method": "GET",
        "X-Original-URI": "/orders/7",
        "X-Original-Host": "api.example.com",
        "Authorization": f"Bearer {token}",
    }
    return "GET", f"/forward-auth/{CLIENT}", None, headers


@pytest.fixture
def make_killed(make_service):
    """Services of which a test kills the master; their workers end by themselves, or here."""
    workers = set()

    def make(configuration, **arguments):
        made = make_service(configuration, **arguments)
        workers.update(made.workers())
        return made

    yield make
    for pid in filter(running, workers):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_workers_of_a_killed_master_free_the_address_at_once_and_end(make_killed, idp, tmp_path, kind):
    """Kept-alive connections are open, which a worker that stops gracefully would wait for."""
    unix = tmp_path / "sts.sock" if kind == "unix" else None
    text = minimal(idp) + "\nworkers: 2\n"
    service = make_killed(text, unix=unix)
    workers = service.workers()
    kept = [service.connection() for _ in range(8)]
    for one in kept:
        one.request("GET", "/healthz")
        assert one.getresponse().read()
    service.process.kill()
    service.process.wait()
    wait_for(lambda: is_refused(service))
    successor = make_killed(text, port=service.port, unix=unix)
    assert successor.exchange(idp.token()).status == 200
    wait_for(lambda: not any(map(running, workers)))
    assert service.log().count("the master is gone: this worker ends") == len(workers)
    for one in kept:
        one.close()


def test_the_metrics_of_a_killed_service_are_removed_by_the_next_start_and_no_others(make_killed, make_service, idp):
    living = make_service(minimal(idp) + "\nworkers: 1\n")
    killed = make_killed(minimal(idp) + "\nworkers: 1\n")
    (worker,) = killed.workers()
    of_killed = metrics_directory(worker)
    of_living = metrics_directory(*living.workers())
    killed.process.kill()
    killed.process.wait()
    wait_for(lambda: not running(worker))
    assert of_killed.is_dir()
    make_service(minimal(idp) + "\nworkers: 1\n")
    assert not of_killed.exists()
    assert of_living.is_dir()


def test_a_replica_that_is_told_to_stop_says_so_and_serves_until_the_delay_is_over(make_service, idp):
    service = make_service(minimal(idp) + "\nworkers: 2\nshutdown: {delay: 600s}\n")
    service.process.terminate()
    wait_for(lambda: all(service.each(lambda: service.get("/readyz").status == 503)))
    told = service.get("/readyz")
    assert (told.json["status"], told.json["stopping"]) == ("not ready", True)
    assert service.get("/healthz").status == 200
    answered = service.exchange(idp.token())
    assert (answered.status, answered.headers["connection"]) == (200, "close")
    service.process.terminate()  # a second time: at once
    assert service.process.wait(60) == 0
    assert '"delay_s": 600.0' in service.log()


def test_connections_that_wait_for_a_worker_are_answered_before_the_listener_closes(make_service, idp, tmp_path):
    for unix in (None, tmp_path / "sts.sock"):
        service = make_service(minimal(idp) + "\nworkers: 1\n", unix=unix)
        (worker,) = service.workers()
        os.kill(worker, signal.SIGSTOP)
        waiting = [connect(service) for _ in range(40)]
        for one in waiting:
            one.sendall(ASK)
        service.process.terminate()
        wait_for(lambda log=service.log: '"stopping"' in log())
        os.kill(worker, signal.SIGCONT)
        for one in waiting:
            assert one.recv(65536).startswith(b"HTTP/1.1 200 ")
            one.close()
        assert service.process.wait(60) == 0
        assert is_refused(service)


class Load:
    """Clients that ask through the gateway, one request after the other, until they are told that it is enough."""

    def __init__(self, port, idp, clients=6):
        self.port = port
        self.counted = threading.Lock()
        self.answered, self.failed = 0, []
        self.enough = threading.Event()
        self.tokens = [idp.token(sub=f"user-{number}") for number in range(4)]
        self.threads = [threading.Thread(target=self.ask, args=[number], daemon=True) for number in range(clients)]
        for thread in self.threads:
            thread.start()

    def ask(self, number):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        token = self.tokens[number % len(self.tokens)]
        while not self.enough.is_set():
            try:
                connection.request(*exchange_request(token) if number % 2 else forward_request(token))
                answer = connection.getresponse()
                answer.read()
                fault = None if answer.status == 200 else answer.status
            except (OSError, http.client.HTTPException) as error:
                fault = repr(error)
                connection.close()
            with self.counted:
                self.answered += fault is None
                if fault is not None:
                    self.failed.append(fault)
        connection.close()

    def end(self):
        self.enough.set()
        for thread in self.threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in self.threads)


def test_two_replicas_that_are_restarted_in_turn_under_load_fail_no_request(make_service, idp, tmp_path):
    """Both doors, through an nginx that tries the other replica where one does not answer."""
    text = minimal(idp) + "\nworkers: 1\nshutdown: {delay: 1s}\n"
    replicas = [make_service(text, port=None) for _ in range(2)]
    gateway = tmp_path / "nginx"
    gateway.mkdir()
    port = free_port()
    (gateway / "nginx.conf").write_text(NGINX.format(first=replicas[0].port, second=replicas[1].port, port=port))
    log = gateway / "log"
    with log.open("wb") as output:
        main = ["-g", "user root;"] if os.geteuid() == 0 else []  # its own account could not read here
        nginx = subprocess.Popen([nginx_program(), "-p", str(gateway), "-c", "nginx.conf", *main], stderr=output)
    try:
        await_port(port, nginx, log)
        load = Load(port, idp)
        for turn in itertools.cycle(range(2)):
            before = load.answered
            wait_for(lambda before=before: load.answered > before + REQUESTS // 20)
            replicas[turn].process.terminate()
            assert replicas[turn].process.wait(120) == 0
            replicas[turn] = make_service(text, port=replicas[turn].port)
            if turn and load.answered >= REQUESTS:
                break
        load.end()
        assert load.failed == []
    finally:
        stop(nginx)
