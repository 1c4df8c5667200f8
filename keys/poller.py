"""When a worker reads the store: every `poll` seconds, and at once after a change notice.

The polls are the guarantee. A notice only wakes the poller, so a forged notice is harmless. A lost notice, or a store
that sends none, delays a change until the next poll. The listener has its own thread: a blocked listener must not
delay a poll.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from keys.errors import KeysError
from keys.store import Store

_CALM_S: Final = 1.0
"""The pause of the listener after a notice: a burst of writes, or an attacker's flood, causes one read a second."""
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_LAST_WORD_S: Final = 5.0


class Poller:
    """Two threads of the process that calls `start`: one calls `look`, the other waits for notices of the store.

    Args:
        store: The store to listen to.
        look: Reads the store; raises no exception.
        poll: Returns the seconds until the next read.
        on_deaf: Called with the reason when the store cannot be listened to, once until listening succeeds again.
    """

    def __init__(
        self,
        store: Store,
        look: Callable[[], None],
        poll: Callable[[], float],
        on_deaf: Callable[[str], None] | None = None,
    ) -> None:
        self._store = store
        self._look = look
        self._poll = poll
        self._on_deaf = on_deaf
        self._deaf = ""
        self._hears = False
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads; call it after the fork. A second call has no effect."""
        if not self._threads:
            self._stopping.clear()
            self._woken.clear()
            for work, name in ((self._keep_looking, "keys-poller"), (self._keep_listening, "keys-listener")):
                self._threads.append(threading.Thread(target=work, name=name, daemon=True))
                self._threads[-1].start()

    def stop(self) -> None:
        """Stop the threads, and wait for a read in progress."""
        self._stopping.set()
        self._woken.set()
        if self._threads:
            poller, listener = self._threads
            poller.join()
            listener.join(_LAST_WORD_S)  # a DNS lookup may block it; its notices are no longer needed
            self._threads = []

    def _keep_looking(self) -> None:
        while True:
            self._woken.wait(self._poll())
            if self._stopping.is_set():
                return
            self._woken.clear()  # before the read: a notice during the read causes another read
            self._look()

    def _keep_listening(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            began, self._hears = time.monotonic(), False
            try:
                self._store.listen(self._heard, self._stopping)
            except KeysError as error:
                self._cannot_hear(str(error))
            except Exception as error:  # noqa: BLE001 - a bug of ours: the thread continues; the polls do not need it
                self._cannot_hear(f"listening to the key store failed: {type(error).__name__}")
            else:
                return  # this store sends no notices, or `stop` was called
            if time.monotonic() - began > _LONGEST_PAUSE_S:
                pause = _FIRST_PAUSE_S
            self._stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _heard(self) -> None:
        """Wake the poller, then pause, so that the notices of that moment count as one."""
        self._hears, self._deaf = True, ""
        self._woken.set()
        self._stopping.wait(_CALM_S)

    def _cannot_hear(self, why: str) -> None:
        """Report the failure once. A lost subscription that the first retry restores is not reported."""
        if not self._hears and not self._deaf and self._on_deaf is not None:
            self._on_deaf(why)
        if not self._hears:
            self._deaf = why
