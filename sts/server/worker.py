"""The gunicorn worker of `sts serve`: one event loop that answers what never waits, and threads for the rest.

gunicorn's master starts it, watches its heartbeat and signals it (ADR 12). The loop holds every connection, so slow
peers cost memory and no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import os
import signal
import socket
from email.utils import formatdate
from functools import partial
from typing import Any, Final

from gunicorn.workers.base import Worker as GunicornWorker

from sts.edge.form import peer_of
from sts.errors import INTERNAL_ERROR, Refusal
from sts.model import Peer, Reply, Steps, taken
from sts.server.connection import Application, Connection
from sts.server.threads import Threads
from sts.server.watchdog import Watchdog
from sts.telemetry import log, metrics

_LOOK_EVERY_S: Final = 1.0
_STOP_IDLE_S: Final = 2.0
"""How long a stopping worker keeps an idle connection, for a request that may be under way."""
_PAUSE_S: Final = 0.5
_ROOM: Final = 16  # connections that are closed where no more can be accepted


class LoopWorker(GunicornWorker):  # type: ignore[misc]  # gunicorn has no types
    """One event loop, its connections, and the threads that it hands work to."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as gunicorn calls it
        super().__init__(*arguments, **options)
        self.waiting: dict[Connection, None] = {}
        self.idle: dict[Connection, None] = {}
        self._stopping = False
        self._listen_from = 0.0
        self.date = ""
        self._open = 0
        self._listening = False
        self._starting: set[asyncio.Task[Any]] = set()
        self._queued: dict[Connection, Steps[Reply]] = {}

    def init_process(self) -> None:
        """Make the loop and the threads, in the worker's own process, then serve."""
        self.loop = _new_loop()
        self.threads = Threads(self.cfg.threads)
        self.now = self.loop.time
        self.most = self.cfg.worker_connections
        super().init_process()

    def run(self) -> None:
        """Serve until told to stop, and until what has begun is answered or the time for that is over."""
        self.application: Application = self.wsgi
        self._told_to_stop = self.app.stopping.is_set
        signal.set_wakeup_fd(-1)  # gunicorn's pipe, which nothing reads; the loop has its own
        self.loop.add_signal_handler(signal.SIGTERM, self.handle_exit, signal.SIGTERM, None)
        self.loop.set_exception_handler(_tell_fault)
        self._look()
        self._listen()
        watchdog = Watchdog(self.loop)
        watchdog.start()
        if not self.alive:  # told before there was a loop
            self.handle_exit(signal.SIGTERM, None)
        try:
            self.loop.run_forever()
        finally:
            watchdog.stop()
            for listener in self.sockets:
                listener.close()

    def handle_exit(self, sig: int, frame: object) -> None:  # noqa: ARG002 - gunicorn's signature
        """Stop gracefully: take what has connected, answer what has begun, and close what is idle."""
        self.alive = False
        if self._stopping or not hasattr(self, "application"):
            return
        self._stopping = True
        for listener in self.sockets:
            while self._accept(listener):
                pass
        self._pause_listening()
        self.stop_at = self.now() + self.cfg.graceful_timeout
        for connection in (*self.idle, *(one for one in self.waiting if one.silent)):
            connection.deadline = min(connection.deadline, self.now() + _STOP_IDLE_S)
        self._stop_if_done()

    # What connections ask.

    @property
    def stopping(self) -> bool:
        """Whether the service has been told to stop, or this worker alone."""
        return self._stopping or self._told_to_stop()

    def later(self, connection: Connection) -> None:
        """Let a connection go on with what it holds, after the others."""
        self.loop.call_soon(connection.go_on)

    def finish(self, steps: Steps[Reply], connection: Connection) -> None:
        """Take the remaining steps in a thread, then tell the connection."""
        self._queued[connection] = steps
        if not self.threads.run(partial(self._finish, connection)):
            del self._queued[connection]
            connection.answered(_thrown(steps, RuntimeError("there is no thread to be had")))

    def _finish(self, connection: Connection) -> None:
        """Take the remaining steps; runs in a thread."""
        steps = self._queued.pop(connection, None)
        if steps is None:  # the peer has gone meanwhile
            return
        reply = taken(steps)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(connection.answered, reply)

    def refused(self, peer: Peer, why: str) -> None:
        """Tell of a request that is no HTTP."""
        log.warning("invalid request", peer=peer.address, why=why)

    def handshake_failed(self, peer: Peer, fault: OSError) -> None:
        """Count a handshake that failed, and tell why."""
        metrics.handshake_failed()
        why = getattr(fault, "verify_message", None) or getattr(fault, "reason", None) or type(fault).__name__
        log.warning("handshake failed", peer=peer.address, why=why)

    def lost(self, connection: Connection) -> None:
        """Count a connection that is gone, and end its request if no thread has taken it yet.

        Otherwise a peer that sends requests and resets each connection fills the queue of the threads without limit,
        and the requests of all others wait behind its own.
        """
        steps = self._queued.pop(connection, None)
        if steps is not None:
            _thrown(steps, Refusal(INTERNAL_ERROR, why="the peer closed the connection before a thread was free"))
        self._open -= 1
        if self._stopping:
            self._stop_if_done()
        elif not self._listening:
            self._listen()

    # Accepting.

    def _listen(self) -> None:
        if not (self._listening or self._stopping) and self._open < self.most and self.now() >= self._listen_from:
            self._listening = True
            for listener in self.sockets:
                listener.setblocking(False)  # noqa: FBT003 - Python's own
                self.loop.add_reader(listener.fileno(), self._accept, listener)

    def _pause_listening(self) -> None:
        if self._listening:
            self._listening = False
            for listener in self.sockets:
                self.loop.remove_reader(listener.fileno())

    def _accept(self, listener: Any) -> bool:  # noqa: ANN401 - gunicorn's own socket
        """Take one connection; where there are too many, the one that has kept us waiting longest makes room.

        Returns whether there may be another one to take.
        """
        try:
            client, address = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as fault:
            if fault.errno == errno.EINVAL:  # the master has closed the listener, and stops
                self.handle_exit(signal.SIGTERM, None)
            else:  # no file or no memory is to be had: the next attempt would fail as well
                self._pause(fault)
            return False
        client.setblocking(False)  # noqa: FBT003 - Python's own
        try:
            connection = Connection(self, peer_of(client, address), getattr(self.app, "context", None))
        except OSError:  # it has gone already
            client.close()
            return True
        self._open += 1
        if self._open > self.most and not self._make_room():
            self._pause_listening()
        task = self.loop.create_task(self._start(connection, client))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        return True

    def _pause(self, fault: OSError) -> None:
        """Accept nothing for a moment, and close what has waited longest, so that there are files again."""
        metrics.accept_failed()
        log.warning("cannot accept", why=fault.strerror)
        self._pause_listening()
        self._listen_from = self.now() + _PAUSE_S
        for _ in range(_ROOM):
            self._make_room()

    async def _start(self, connection: Connection, client: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: connection, client)
        except OSError:
            client.close()
            if not connection.gone:
                connection.connection_lost(None)

    def _make_room(self) -> bool:
        """Drop the connection that has kept us waiting longest, or else been idle longest."""
        for connections in (self.waiting, self.idle):
            for connection in connections:
                connection.drop()
                return True
        return False

    # Once a second.

    def _look(self) -> None:
        """Give a sign of life, and drop what has kept us waiting for too long."""
        self.loop.call_later(_LOOK_EVERY_S, self._look)  # first: a fault here must not be the last sign of life
        self.notify()
        self.date = formatdate(usegmt=True)
        now = self.now()
        for connection in [one for one in (*self.waiting, *self.idle) if one.overdue(now)]:
            if connection in self.idle:
                connection.close()
            else:
                connection.drop()
        if self.ppid != os.getppid():
            log.error("the master is gone, this worker stops")
            self.handle_exit(signal.SIGTERM, None)
        if self._stopping:
            self._stop_if_done()
        else:
            self._listen()

    def _stop_if_done(self) -> None:
        if self._open <= 0 or self.now() >= self.stop_at:
            self.loop.stop()


def _new_loop() -> asyncio.AbstractEventLoop:
    """The event loop of uvloop where it is installed: a few percent faster, and the same in all else."""
    try:
        loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
    except ImportError:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def _thrown(steps: Steps[Reply], fault: Exception) -> Reply:
    """End the steps where they are, for the reason in `fault`; this still writes the audit event."""
    try:
        steps.throw(fault)
    except StopIteration as done:
        reply: Reply = done.value
        return reply
    return taken(steps)


def _tell_fault(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell the type and place of what a callback raised: its message may hold what came in."""
    fault = context.get("exception")
    if fault is None:
        log.error("event loop", why=str(context.get("message", ""))[:200])
    elif not isinstance(fault, OSError):
        log.error("fault", fault=type(fault).__name__, at=log.where(fault))
