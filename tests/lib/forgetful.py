"""A load balancer that forgets connections without a word: both ends keep theirs, and what they send goes nowhere."""

import contextlib
import socket
import threading


class Forgetful:
    """Relays TCP connections to `port` on loopback. `connections` counts them; `forget` forgets those there are."""

    def __init__(self, port):
        self.connections = 0
        self._to, self._known, self._all = port, set(), []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._serving = threading.Thread(target=self._serve, daemon=True)
        self._serving.start()

    def forget(self):
        self._known = set()

    def _serve(self):
        with contextlib.suppress(OSError):  # shutdown wakes it
            while True:
                ours, _ = self._listener.accept()
                self.connections += 1
                theirs = socket.create_connection(("127.0.0.1", self._to))
                number = self.connections
                self._known.add(number)
                self._all += [ours, theirs]
                for one, other in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._relay, args=[number, one, other], daemon=True).start()

    def _relay(self, number, one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if number in self._known:
                    other.sendall(data)
            if number in self._known:
                other.shutdown(socket.SHUT_WR)

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._serving.join()
        for one in (self._listener, *self._all):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
