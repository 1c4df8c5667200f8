"""Run a real nginx with the configuration that deploy/gateways/nginx ships: only its addresses and paths are replaced.

The tests and the demo share this, so that what is shown and judged is the very file that people install.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Self

SHIPPED: Final = Path(__file__).resolve().parent.parent / "deploy" / "gateways" / "nginx" / "nginx.conf"
REPLICA: Final = "server 127.0.0.1:{} max_fails=0;"
"""How the configuration names a replica of the token service."""
PATIENCE_S: Final = 600.0
"""How long anything may take that comes to an end by itself, on a machine that is busy with other things."""


# Below the ports that the kernel gives to connections, and each process begins elsewhere: what is free when it is
# asked for is still free when the server that it is for has started.
_PORTS: Final = itertools.cycle(range(10000, 32000))
next(itertools.islice(_PORTS, os.getpid() * 613 % 22000, None))


def free_port() -> int:
    """Return a free port of the loopback address."""
    return next(filter(_is_free, _PORTS))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what only lingers is free
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def await_port(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = PATIENCE_S) -> None:
    """Wait until `port` accepts connections. Raises RuntimeError with the log if the process ends or time runs out."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    raise RuntimeError(f"{process.args!r} does not listen on {port}:\n{text[-4000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process that this program started: with SIGTERM first, then with SIGKILL."""
    process.terminate()
    try:
        process.wait(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def configuration(directory: Path, *, port: int, services: Sequence[int], backend: int, tls: Path | None = None) -> str:
    """Return the shipped configuration with this run's ports and paths; raises ValueError if one is not found in it.

    `services` are the ports of the token service's replicas.
    With `tls`, a directory of api.pem, api.key and partner-ca.pem, the lines for TLS and client certificates count.
    """
    text = SHIPPED.read_text(encoding="utf-8")
    replacements = {
        "listen 127.0.0.1:8081": f"listen 127.0.0.1:{port}",
        REPLICA.format(8080): " ".join(map(REPLICA.format, services)),
        "server 127.0.0.1:8090;": f"server 127.0.0.1:{backend};",
        "/etc/nginx/sts-secret.conf": f"{directory}/sts-secret.conf",
        "/etc/nginx/sts-untrusted-headers.conf": f"{SHIPPED.parent}/sts-untrusted-headers.conf",
        "/run/nginx.pid": f"{directory}/nginx.pid",
        "/var/log/nginx/": f"{directory}/",
        # An nginx of Debian's keeps its temporary files where only root may write.
        "http {\n": "http {\n"
        + "".join(
            f"    {kind}_temp_path {directory}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ),
    }
    if tls is not None:
        replacements.pop("listen 127.0.0.1:8081")
        replacements = {
            "# ssl_reject_handshake": "ssl_reject_handshake",
            "listen 127.0.0.1:8081 default_server;": f"listen 127.0.0.1:{port} ssl default_server;",
            "listen 127.0.0.1:8081;": f"listen 127.0.0.1:{port} ssl;",
            "# ssl_certificate ": "ssl_certificate ",
            "# ssl_certificate_key": "ssl_certificate_key",
            "# ssl_client_certificate": "ssl_client_certificate",
            "# ssl_verify_client": "ssl_verify_client",
            "# proxy_set_header X-SSL-Client-Cert ": "proxy_set_header X-SSL-Client-Cert ",
            "# proxy_set_header X-SSL-Client-Verify": "proxy_set_header X-SSL-Client-Verify",
            "/etc/nginx/tls/": f"{tls}/",
            **replacements,
        }
    for shipped, ours in replacements.items():
        if shipped not in text:
            raise ValueError(f"{SHIPPED.name} does not hold {shipped!r} any more")
        text = text.replace(shipped, ours)
    return text


class Nginx(AbstractContextManager["Nginx"]):
    """A running nginx on a free port of the loopback: `port`. `program` is the path of its binary."""

    def __init__(
        self,
        program: str,
        directory: Path,
        *,
        services: Sequence[int],
        backend: int,
        secret: str,
        tls: Path | None = None,
    ) -> None:
        self.port = free_port()
        self._log = directory / "error.log"
        written = directory / "nginx.conf"
        text = configuration(directory, port=self.port, services=services, backend=backend, tls=tls)
        written.write_text(text, encoding="utf-8")
        (directory / "sts-secret.conf").write_text(f'proxy_set_header X-Gateway-Secret "{secret}";\n', encoding="utf-8")
        # nginx as root would hand its workers to an account that cannot read here.
        main = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"
        self._process = subprocess.Popen(
            [program, "-p", str(directory), "-c", str(written), "-e", str(self._log), "-g", main],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await_port(self.port, self._process, self._log)
        except RuntimeError:
            stop(self._process)
            raise

    def __enter__(self) -> Self:
        """Return the running server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server and wait for its end."""
        stop(self._process)
