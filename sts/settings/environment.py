"""The environment: this is the only module that looks at it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path


class Environment(Mapping[str, str]):
    """The environment as it was at the start; knows which of its variables the configuration took a secret from."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = dict(os.environ if values is None else values)
        self._taken: set[str] = set()

    def __getitem__(self, name: str) -> str:
        value = self._values[name]
        self._taken.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def take_out_secrets(self) -> None:
        """Remove from the process's own environment what was read through `{env: NAME}`; this copy keeps it.

        Children and dumps of the environment no longer show the secrets. What the kernel shows as the environment a
        process was started with (/proc) stays.
        """
        for name in self._taken - {"STS_VAR", "STS_CONFIG"}:
            os.environ.pop(name, None)


def default_config(environment: Mapping[str, str] | None = None) -> Path:
    """Where the configuration is unless a command is told: `$STS_CONFIG`, else `./sts.yaml`."""
    return Path((os.environ if environment is None else environment).get("STS_CONFIG") or "sts.yaml")
