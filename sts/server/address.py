"""The address that `sts serve` listens at: whether it can be had, and whose a Unix socket is."""

from __future__ import annotations

import contextlib
import shutil
import socket
from pathlib import Path

from sts.errors import StartError
from sts.settings.listen import Listen


def check_address(listen: Listen) -> None:
    """Raise StartError where this cannot be listened at: a taken address, a path that is no socket or somebody else's.

    gunicorn would take another's socket file from under them, and try a taken address for seconds.
    """
    if not listen.is_unix:
        _check_address(listen.bind)
        return
    path = Path(listen.bind.removeprefix("unix:"))
    if not path.parent.is_dir():
        raise StartError(f"cannot listen at {path}: there is no directory {path.parent}")
    if path.exists() and not path.is_socket():
        raise StartError(f"cannot listen at {path}: it is there and no socket")
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):  # what a crash left refuses connections
        probe.connect(str(path))
        raise StartError(f"cannot listen at {path}: another process does")


def _check_address(bind: str) -> None:
    host, _, port = bind.rpartition(":")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise StartError(f"cannot listen at {bind}: {error.strerror}") from None


def give_to_group(listen: Listen) -> None:
    """Give a Unix socket to the group that is to use it, once it is there. Raises StartError."""
    group = listen.socket_group
    if group is None:
        return
    path = listen.bind.removeprefix("unix:")
    try:
        shutil.chown(path, group=int(group) if group.isdigit() else group)
    except (LookupError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else "there is no such group"
        raise StartError(f"{path} cannot be given to the group {group}: {why}") from None
