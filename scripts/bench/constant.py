"""The measure of what the server itself costs: `sts serve`'s own gunicorn settings, but every answer is a constant.

python -m scripts.bench.constant CONFIGURATION
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from sts.model import Incoming, Reply, Steps
from sts.server.master import Server
from sts.settings import Settings, load

BODY: Final = b'{"access_token":"' + b"a" * 605 + b'","token_type":"Bearer","expires_in":300}'
_REPLY: Final = Reply(200, (("Content-Type", "application/json"),), BODY)


class Constant:
    """Answers the same bytes to every request; a body is read, since the service has to read it as well."""

    def reads_body(self, method: str, target: str) -> bool:  # noqa: ARG002 - as an application
        """Whether a body is read."""
        return method == "POST"

    def begin(self, incoming: Incoming) -> Steps[Reply]:  # noqa: ARG002 - as an application
        """Answer at once."""
        return _REPLY
        yield


def _worker(_: Settings) -> tuple[Any, Any]:
    return Constant(), lambda _settings: None


def main(configuration: Path) -> None:
    """Serve until told to stop."""
    settings = load(configuration)
    Server(settings, lambda: settings, lambda _settings: None, _worker).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
