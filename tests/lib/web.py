"""The one HTTP server of the tests: whatever a test wants to be asked, or to answer in a bent way, is made of it."""

import contextlib
import http.server
import json
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    """One request, of any method; its `body` is read. It is answered by the `handle` of `owner`, the server's `Web`."""

    disable_nagle_algorithm = True  # head and body are two writes: the second must not wait for an ACK

    @property
    def owner(self):
        return self.server.owner

    @property
    def protocol_version(self):
        return self.owner.protocol

    def handle_one_request(self):
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def __getattr__(self, name):
        if not name.startswith("do_"):
            raise AttributeError(name)
        return self._handle

    def _handle(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.owner.handle(self)

    def reply(self, body=b"", status=200, headers=()):
        """Answer whole; a body that is no bytes becomes JSON."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **dict(headers)}.items():
            self.send_header(name, value)
        if status >= 200 and status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


class Web:
    """A server on loopback that gives each connection a thread. `answer`, a function of the handler, may be replaced.

    `connections` counts them; `over` is set when it is closed, for answers that hang.
    """

    protocol = "HTTP/1.1"

    def __init__(self, answer=None):
        self.answer = answer
        self.connections = 0
        self.over = threading.Event()
        owner = self

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def process_request(self, request, client_address):
                owner.connections += 1
                super().process_request(request, client_address)

            def handle_error(self, request, client_address):
                """Whoever asks may hang up when they like."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.owner = self
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle(self, handler):
        self.answer(handler)

    def close(self):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
