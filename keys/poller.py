"""When a worker looks at the store: every `poll` seconds, and at once where the store tells of a change.

The polls are the guarantee. A notice only wakes the poller, whoever sent it; one that was lost, or a store that tells
of nothing, costs the time until the next poll. So the listener is a thread of its own: whatever holds it up holds up no
poll.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from keys.errors import KeysError
from keys.store import Store

_CALM_S: Final = 1.0
"""After a notice nothing is heard for so long: a burst of writes, or a flood from a stranger, is one look a second."""
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_LAST_WORD_S: Final = 5.0


class Poller:
    """Two threads of the process that calls `start`: one calls `look`, the other listens to the store.

    `poll` gives the seconds between two looks; `look` raises nothing. `on_deaf` hears why the store cannot be listened
    to, once until it can.
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
        """Begin; to be called after the fork. Twice is once."""
        if not self._threads:
            self._stopping.clear()
            self._woken.clear()
            for work, name in ((self._keep_looking, "keys-poller"), (self._keep_listening, "keys-listener")):
                self._threads.append(threading.Thread(target=work, name=name, daemon=True))
                self._threads[-1].start()

    def stop(self) -> None:
        """End, and wait for the look that is under way."""
        self._stopping.set()
        self._woken.set()
        if self._threads:
            poller, listener = self._threads
            poller.join()
            listener.join(_LAST_WORD_S)  # it may be held up by a resolver, and has nothing to say any more
            self._threads = []

    def _keep_looking(self) -> None:
        while True:
            self._woken.wait(self._poll())
            if self._stopping.is_set():
                return
            self._woken.clear()  # before the look: what is told during it is looked at once more
            self._look()

    def _keep_listening(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            began, self._hears = time.monotonic(), False
            try:
                self._store.listen(self._heard, self._stopping)
            except KeysError as error:
                self._cannot_hear(str(error))
            except Exception as error:  # noqa: BLE001 - a fault of ours: the thread lives on, the polls never needed it
                self._cannot_hear(f"listening to the key store failed: {type(error).__name__}")
            else:
                return  # this store tells of nothing, or we are told to stop
            if time.monotonic() - began > _LONGEST_PAUSE_S:
                pause = _FIRST_PAUSE_S
            self._stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _heard(self) -> None:
        """Wake the poller. The listener stands still for a moment, so that it hears what comes meanwhile as one."""
        self._hears, self._deaf = True, ""
        self._woken.set()
        self._stopping.wait(_CALM_S)

    def _cannot_hear(self, why: str) -> None:
        """Tell of it once. A subscription that was lost and comes back at the first try is not worth a word."""
        if not self._hears and not self._deaf and self._on_deaf is not None:
            self._on_deaf(why)
        if not self._hears:
            self._deaf = why
