"""What is measured: services, the yardsticks, the provider's tokens. Each is started when the first case needs it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from scripts.bench import configurations
from scripts.bench.constant import BODY
from scripts.bench.load import Target, memory_mb
from scripts.demo.provider import Provider
from scripts.demo.service import ISSUER, Service
from scripts.nginx import await_port, free_port, stop
from scripts.servers import NGINX, find
from sts.settings import load
from sts.state import open_state
from sts.state.revocations import revoke

DAY_S: Final = 86400
REVOCATIONS: Final = 200
_NGINX: Final = """\
{user}daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
{folders}
    server {{
        listen 127.0.0.1:{port};
        default_type application/json;
        location / {{ return 200 '{body}'; }}
    }}
}}
"""
_FOLDERS: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class MissingError(Exception):
    """Something is not to be had on this machine; the text says what, and which cases need it."""


class World:
    """The servers and tokens of one run. `server_cpu` are the processors for what is measured.

    Args:
        running: ends what was started, at the end of the run.
        directory: where the servers' files go.
        server_cpu: which processors the measured servers run on.
        load_cpu: which processors everything else runs on.
        provider: the identity provider whose tokens are sent.
        progress: is called with a line about anything that takes long.

    """

    def __init__(
        self,
        running: contextlib.ExitStack,
        directory: Path,
        server_cpu: set[int],
        load_cpu: set[int],
        provider: Provider,
        progress: Callable[[str], None],
    ) -> None:
        self.provider = provider
        self._running, self._directory, self._progress = running, directory, progress
        self._server_cpu, self._load_cpu = server_cpu, load_cpu
        self._started: dict[str, Target] = {}
        self.idle_mb: dict[str, float] = {}
        self.services: dict[str, Service] = {}
        self._tokens: dict[str, list[str]] = {}
        self._taken: dict[tuple[str, str], int] = {}

    def target(self, name: str) -> Target:
        """Return a server by name, started if it is not running. Raises MissingError, RuntimeError."""
        if name not in self._started:
            self._progress(f"starting: {name}")
            self._started[name] = target = self._start(name)
            if target.pid is not None:
                self.idle_mb[name] = memory_mb(target.pid)
        return self._started[name]

    def add(self, name: str, target: Target) -> None:
        """Know a server that runs already."""
        self._started[name] = target

    def fresh(self, server: str, kind: str, count: int) -> list[str]:
        """Return `count` tokens that this server has not seen: `valid`, `expired` or `big` ones.

        RSA signatures take time, so that servers that do not share a cache receive the same tokens.
        """
        begin = self._taken.get((server, kind), 0)
        tokens = self._tokens.setdefault(kind, [])
        if begin + count - len(tokens) > 1000:
            self._progress(f"signing {begin + count - len(tokens)} tokens ({kind})")
        while len(tokens) < begin + count:
            tokens.append(self.token(kind))
        self._taken[server, kind] = begin + count
        return tokens[begin : begin + count]

    def token(self, kind: str = "valid") -> str:
        """Issue one token, signed with RS256; `elliptic` is a valid one signed with ES256, which takes less time."""
        now = int(time.time())
        claims: dict[str, Any] = {"exp": now + DAY_S}
        if kind == "expired":
            claims = {"iat": now - 2 * DAY_S, "exp": now - DAY_S}
        elif kind == "big":
            others = [f"department-{number:05}" for number in range(680)]
            groups = [*others, *(f"app-orders-{number}" for number in range(10))]
            claims |= {"iss": configurations.BIG_IDP, "groups": ",".join(groups)}
        return self.provider.token("idp-ec" if kind == "elliptic" else "idp-rsa", **claims)

    def number(self, name: str, count: int) -> int:
        """Return the first of `count` numbers that were not used under this name."""
        begin = self._taken.get(("", name), 0)
        self._taken["", name] = begin + count
        return begin

    def api_key(self) -> str:
        """Make an API key with the command of the product, and return it."""
        self.target("kinds")
        arguments = ("--owner", "acme", "--scope", "orders:read", "--scope", "orders:write", "--tenant", "agency-7")
        status, printed = self.services["kinds"].command("api-keys", "create", *arguments, "--json")
        if status != 0:
            raise RuntimeError(f"sts api-keys create failed: {printed}")
        return str(json.loads(printed[printed.index("{") :])["key"])

    def _start(self, name: str) -> Target:
        if name == "nginx":
            return self._nginx(name, BODY.decode(), self._server_cpu)
        if name == "constant":
            return self._constant()
        if name == "introspection":
            return self._nginx(name, configurations.INTROSPECTED, self._load_cpu)
        if name == "kinds":
            return self._service(name, configurations.kinds(str(self.target("introspection").port)))
        return self._service(name, getattr(configurations, name)())

    def _service(self, name: str, configuration: dict[str, Any]) -> Target:
        directory = self._folder(name)
        if name == "kinds":
            self._backend_key(directory)
        if name == "grown":
            for number, part in enumerate(configurations.many()):
                (directory / f"many-{number}.yaml").write_text(configurations.text(part), encoding="utf-8")
            self._revoke_many(directory)
            self._progress("starting the service with 10 000 sources, audiences, routes and clients")
        with self._on(self._server_cpu):
            text = configurations.text(configuration)
            service = self._running.enter_context(Service(directory, self.provider.jwks_uri, text))
        self.services[name] = service
        return Target("127.0.0.1", service.port, service.pid)

    @contextlib.contextmanager
    def _on(self, processors: set[int]) -> Iterator[None]:
        """Run on these processors: what is started within inherits them."""
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, processors)
        try:
            yield
        finally:
            os.sched_setaffinity(0, own)

    def _backend_key(self, directory: Path) -> None:
        sts = str(Path(sys.executable).with_name("sts"))
        subprocess.run([sts, "backends", "keygen", "--out", "keys"], cwd=directory, check=True, capture_output=True)
        (public,) = (directory / "keys").glob("*.jwks.json")
        (directory / f"{configurations.LEDGER}.jwks.json").write_bytes(public.read_bytes())

    def _revoke_many(self, directory: Path) -> None:
        """Fill the state's store before the service starts: `sts revoke` takes one process for each."""
        written = directory / "first.yaml"
        text = configurations.text(configurations.plain())
        text = text.format(issuer=ISSUER, port=free_port(), jwks_uri="http://127.0.0.1:9/")
        written.write_text(text, encoding="utf-8")
        settings = load(written)
        state = open_state(settings.state, settings.redis, settings.var, time.time)
        try:
            state.check()
            now = time.time()
            for number in range(REVOCATIONS):
                if number % 50_000 == 0:
                    self._progress(f"recording {REVOCATIONS} revocations: {number}")
                revoke(state, f"subject:hmac:{number:032x}", now)
        finally:
            state.close()

    def _nginx(self, name: str, body: str, processors: set[int]) -> Target:
        program = find(NGINX)
        if program is None:
            raise MissingError("there is no nginx: `python -m scripts.servers` installs one where that is possible")
        directory, port = self._folder(name), free_port()
        folders = "\n".join(f"    {kind}_temp_path {directory}/{kind};" for kind in _FOLDERS)
        user = "user root;\n" if os.geteuid() == 0 else ""
        text = _NGINX.format(user=user, directory=directory, port=port, body=body, folders=folders)
        (directory / "nginx.conf").write_text(text, encoding="utf-8")
        command = [
            program,
            "-p",
            str(directory),
            "-c",
            str(directory / "nginx.conf"),
            "-e",
            str(directory / "error.log"),
        ]
        return self._run(command, port, directory / "error.log", processors)

    def _constant(self) -> Target:
        directory, port = self._folder("constant"), free_port()
        written = directory / "sts.yaml"
        text = configurations.text(configurations.plain())
        written.write_text(text.format(issuer=ISSUER, port=port, jwks_uri="http://127.0.0.1:9/"), encoding="utf-8")
        command = [sys.executable, "-m", "scripts.bench.constant", str(written)]
        return self._run(command, port, directory / "log", self._server_cpu)

    def _run(self, command: list[str], port: int, log: Path, processors: set[int]) -> Target:
        with log.open("ab") as output, self._on(processors):
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        self._running.callback(stop, process)
        await_port(port, process, log)
        return Target("127.0.0.1", port, process.pid)

    def _folder(self, name: str) -> Path:
        made = self._directory / name
        made.mkdir()
        return made
