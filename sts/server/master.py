"""The gunicorn master of `sts serve`: its workers, and how they come by a new configuration.

gunicorn's own reload replaces the workers and halts when the new ones cannot start. Ours never does: on SIGHUP the
master loads and checks the new configuration wholly; only one that is right is handed to the living workers, each over
its own socket pair, and each swaps it in between two requests. The master keeps what it accepted in memory, so that a
worker that starts later inherits that, never the file.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from keys.errors import KeysError
from sts.edge.tls import server_context
from sts.errors import StartError
from sts.server.address import give_to_group
from sts.server.process import (
    SharedFlag,
    close_listeners,
    collect_all,
    connections_within,
    die_with_parent,
    end_orphan,
    raise_file_limit,
    settle_memory,
)
from sts.settings import Settings, SettingsError, changes_needing_restart
from sts.telemetry import log, mark_dead, metrics

_LENGTH: Final = struct.Struct("!Q")
_ACCEPTED: Final = b"+"
_PATIENCE_S: Final = 15.0
_GRACE_S: Final = 30
_PAUSE_S: Final = 1.0  # before the next attempt of a worker that cannot start

Load = Callable[[], Settings]
Worker = Callable[[Settings], "tuple[Any, Callable[[Settings], None]]"]


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """What gunicorn runs. `load_settings` reads the configuration anew; `worker` builds one worker's WSGI callable.

    `worker` returns that callable and the function that swaps new settings in. `stopping` is raised as soon as the
    service is told to stop.
    """

    def __init__(
        self,
        settings: Settings,
        load_settings: Load,
        before_swap: Callable[[Settings], None],
        worker: Worker,
        stopping: SharedFlag | None = None,
    ) -> None:
        self.accepted = settings
        self.load_settings = load_settings
        self.before_swap = before_swap
        self.worker = worker
        self.stopping = SharedFlag() if stopping is None else stopping
        self.listeners: list[Any] = []
        self.channels: dict[int, socket.socket] = {}
        self.opening: tuple[socket.socket, socket.socket] | None = None
        self.context: ssl.SSLContext | None = None  # of the next handshake; the worker's own
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's own settings; none of them comes from its files, its environment or its command line."""
        settings = self.accepted
        listen = settings.listen
        values: dict[str, Any] = {
            "bind": [listen.bind],
            "workers": settings.workers,
            "threads": settings.threads,
            "worker_class": "sts.server.worker.LoopWorker",
            "worker_connections": connections_within(raise_file_limit(), settings.threads),
            "graceful_timeout": _GRACE_S,
            "control_socket_disable": True,  # it can stop and reshape the service: nothing needs it
            "proc_name": "sts",
            "umask": 0o777 & ~listen.socket_mode,  # gunicorn makes a Unix socket with 0777 otherwise
            "pre_fork": _pre_fork,
            "post_fork": _post_fork,
            "child_exit": _child_exit,
            "post_worker_init": _ready_to_serve,
            "logger_class": "sts.telemetry.GunicornLogger",
        }
        if Path("/dev/shm").is_dir():  # noqa: S108 - the workers' heartbeat must not wait for a disk
            values["worker_tmp_dir"] = "/dev/shm"  # noqa: S108
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> Any:  # noqa: ANN401 - any WSGI callable
        """Build this worker's service from what the master accepted; runs in the worker.

        A worker that cannot start ends by itself, and the master tries again: gunicorn would stop all the others.
        """
        try:
            self.context = context_of(self.accepted)
            application, swap = self.worker(self.accepted)
        except Exception as error:  # noqa: BLE001 - whatever it is, the workers that run go on
            told = {"why": str(error)} if isinstance(error, StartError | KeysError) else {"fault": type(error).__name__}
            log.error("worker cannot start", **told, at=log.where(error))
            time.sleep(_PAUSE_S)
            sys.exit(1)
        if self.opening is not None:
            threading.Thread(
                target=_listen,
                args=(self.opening[1], self._swapping(swap), self.listeners),
                name="sts-reload",
                daemon=True,
            ).start()
        return application

    def _swapping(self, swap: Callable[[Settings], None]) -> Callable[[Settings], None]:
        """Swap the service, and take its certificate for the handshakes to come; open connections keep theirs."""

        def swap_all(settings: Settings) -> None:
            context = context_of(settings)
            swap(settings)
            self.context = context
            collect_all()  # the former revision

        return swap_all

    def run(self) -> None:
        """Serve until told to stop."""
        Master(self).run()

    def reload_settings(self, terminate: Callable[[int], None]) -> None:
        """Check the configuration wholly, then hand it to every worker; a faulty one changes nothing."""
        try:
            settings = self.load_settings()
            fixed = changes_needing_restart(self.accepted, settings)
            if fixed:
                self._refuse([f"{name} cannot change without a restart" for name in fixed])
                return
            self.before_swap(settings)
        except SettingsError as error:
            self._refuse([str(fault) for fault in error.faults])
            return
        except StartError as error:
            self._refuse([str(error)])
            return
        except Exception as fault:  # noqa: BLE001 - a fault of ours must not end the service that runs well
            self._refuse([f"{type(fault).__name__} at {log.where(fault)}"])
            return
        self.accepted = settings
        late = self._hand_over(settings)
        for pid in late:  # its successor starts from what was accepted
            terminate(pid)
        metrics.reloaded("accepted")
        log.info("reloaded", revision=settings.revision, workers=len(self.channels), replaced=len(late))

    def _refuse(self, faults: list[str]) -> None:
        metrics.reloaded("refused")
        for fault in faults:
            log.error("reload refused", fault=fault)
        log.error("reload refused, nothing has changed", faults=len(faults), revision=self.accepted.revision)

    def _hand_over(self, settings: Settings) -> list[int]:
        """Send the settings to all workers, then wait for each to say that it swapped; returns who did not."""
        message = pickle.dumps(settings)
        deadline = time.monotonic() + _PATIENCE_S
        late = []
        for pid, channel in self.channels.items():
            try:
                channel.settimeout(_PATIENCE_S)
                channel.sendall(_LENGTH.pack(len(message)) + message)
            except OSError:
                late.append(pid)
        for pid in [pid for pid in self.channels if pid not in late]:
            try:
                self.channels[pid].settimeout(max(0.1, deadline - time.monotonic()))
                if self.channels[pid].recv(1) != _ACCEPTED:
                    late.append(pid)
            except OSError:
                late.append(pid)
        return late


class Master(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's arbiter, but for what SIGHUP, SIGTERM and SIGUSR2 mean, and how it stops."""

    app: Server
    stop_at: float = math.inf

    def start(self) -> None:
        """Listen; a Unix socket gets its group before anybody is answered. Raises StartError."""
        super().start()
        try:
            give_to_group(self.app.accepted.listen)
        except StartError:
            super().stop(graceful=False)
            raise

    def spawn_worker(self) -> int:
        """Fork a worker; in the master only, keep its end of the channel.

        Where no process, file or memory is to be had, the master tries again a second later: gunicorn would stop.
        """
        try:
            pid: int = super().spawn_worker()
        except OSError as fault:
            log.error("worker cannot be forked", why=fault.strerror)
            for end in self.app.opening or ():
                end.close()
            self.app.opening = None
            return 0
        if self.app.opening is not None:
            ours, theirs = self.app.opening
            theirs.close()
            self.app.channels[pid] = ours
            self.app.opening = None
        return pid

    def handle_hup(self) -> None:
        """Reload the configuration."""
        self.app.reload_settings(lambda pid: self.kill_worker(pid, signal.SIGTERM))

    def handle_term(self) -> None:
        """Say in `/readyz` that this replica stops, and stop after `shutdown.delay`, or at once at a second SIGTERM."""
        delay = 0.0 if self.app.stopping.is_set() else self.app.accepted.shutdown.delay
        self.app.stopping.set()
        self.stop_at = time.monotonic() + delay
        log.info("stopping", delay_s=delay)

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Wait for signals, but not past the time to stop; raises StopIteration, gunicorn's word for it, then."""
        left = self.stop_at - time.monotonic()
        if left <= 0:
            raise StopIteration
        signals: list[int] = super().wait_for_signals(min(timeout, left))
        return signals

    def handle_usr2(self) -> None:
        """Refuse to replace the running program: its secrets have left the environment."""
        log.error("SIGUSR2 is not supported: start a second service and stop this one")

    def stop(self, graceful: bool = True) -> None:  # noqa: FBT001, FBT002 - gunicorn's signature
        """Stop listening, then the workers.

        A Unix socket whose file is gone is closed here: gunicorn would fail to remove the file.
        """
        if graceful:
            close_listeners(self.LISTENERS)
        for listener in [one for one in self.LISTENERS if _file_is_gone(one)]:
            self.LISTENERS.remove(listener)
            listener.close()
        super().stop(graceful)


def context_of(settings: Settings) -> ssl.SSLContext | None:
    """How callers' handshakes are answered, None without TLS. Raises StartError for a file that cannot be used."""
    tls = settings.listen.tls
    return None if tls is None else server_context(tls.cert_file, tls.key_file, settings.handshake_cas())


def _file_is_gone(listener: Any) -> bool:  # noqa: ANN401 - gunicorn has no types
    name = listener.getsockname()
    return isinstance(name, str) and not Path(name).is_socket()


def _ready_to_serve(_worker: object) -> None:
    """In the worker: a SIGHUP for all processes of the service (`pkill -HUP sts`) is the master's to act on."""
    settle_memory()
    die_with_parent(on=False)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _pre_fork(arbiter: Master, _worker: object) -> None:
    arbiter.app.opening = socket.socketpair()


def _post_fork(arbiter: Master, _worker: object) -> None:
    """In the worker: drop the master's ends of all channels, so that each belongs to two processes only."""
    die_with_parent(on=True)
    arbiter.app.listeners = arbiter.LISTENERS
    for channel in arbiter.app.channels.values():
        channel.close()
    arbiter.app.channels.clear()
    if arbiter.app.opening is not None:
        arbiter.app.opening[0].close()


def _child_exit(arbiter: Master, worker: Any) -> None:  # noqa: ANN401 - gunicorn has no types
    channel = arbiter.app.channels.pop(worker.pid, None)
    if channel is not None:
        channel.close()
    mark_dead(worker.pid)


def _listen(channel: socket.socket, swap: Callable[[Settings], None], listeners: list[Any]) -> None:
    """Take what the master accepted, one message at a time; when the master is gone, end.

    The master lets go of its end of the channel only when it dies: it outlives its workers otherwise.
    """
    with contextlib.suppress(EOFError, OSError):
        for message in _messages(channel):
            try:
                # The other end is the master, our own parent; nobody else holds it.
                swap(pickle.loads(message))  # noqa: S301
            except Exception as fault:  # noqa: BLE001 - the master accepted it, so this process is at fault
                log.error("worker cannot take the new configuration", fault=type(fault).__name__, at=log.where(fault))
                os.kill(os.getpid(), signal.SIGTERM)
                return
            channel.sendall(_ACCEPTED)
    end_orphan(listeners)


def _messages(channel: socket.socket) -> Iterator[bytes]:
    while True:
        (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size))
        yield _exactly(channel, length)


def _exactly(channel: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = channel.recv(min(65536, length - len(data)))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
