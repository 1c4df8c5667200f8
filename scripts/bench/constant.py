"""The measure of what the server itself costs: `sts serve`'s own gunicorn settings, but every answer is a constant.

python -m scripts.bench.constant CONFIGURATION
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sts.server.master import Server
from sts.settings import Settings, load

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

BODY: Final = b'{"access_token":"' + b"a" * 605 + b'","token_type":"Bearer","expires_in":300}'
_HEADERS: Final = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]


def constant(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer the same bytes to every request; a body is read, since the service has to read it as well."""
    if environ["REQUEST_METHOD"] == "POST":
        environ["wsgi.input"].read(65536)
    start_response("200 OK", _HEADERS)
    return [BODY]


def _worker(_: Settings) -> tuple[Any, Any]:
    return constant, lambda _settings: None


def main(configuration: Path) -> None:
    """Serve until told to stop."""
    settings = load(configuration)
    Server(settings, lambda: settings, lambda _settings: None, _worker).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
