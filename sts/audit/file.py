"""Where the audit's lines go: one descriptor of the worker, appended to with one call for each line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sts.errors import StartError

_STDOUT: Final = 1


class AuditFile:
    """Where events go: a file, appended to, or standard output. It outlives a reload, which opens it anew."""

    def __init__(self, path: Path | None) -> None:
        """Open `path`, or standard output for None. Raises StartError where it cannot be opened."""
        self._descriptor = _open(path)

    def write(self, line: bytes) -> int:
        """Append one line with one call; returns how many of its bytes were taken. Raises OSError."""
        return os.write(self._descriptor, line)

    def reopen(self, path: Path | None) -> None:
        """Go on at `path`, after a reload or a rotation of the file; writers in between lose nothing.

        Raises StartError where it cannot be opened; then everything stays as it was.
        """
        descriptor = _open(path)
        try:
            os.dup2(descriptor, self._descriptor, inheritable=False)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close it; nothing can be written any more."""
        os.close(self._descriptor)


def _open(path: Path | None) -> int:
    if path is None:
        return os.dup(_STDOUT)
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StartError(f"the audit file {path.absolute()} cannot be opened: {error.strerror}") from None
