"""The environment: only this module reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path


class Environment(Mapping[str, str]):
    """The environment at the start; records which variables the configuration took a secret from."""

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
        """Remove the variables read through `{env: NAME}` from the process's environment; this copy keeps them.

        Child processes and dumps of the environment then do not contain the secrets. The kernel's record of the
        initial environment (/proc) is not changed.
        """
        for name in self._taken - {"STS_VAR", "STS_CONFIG"}:
            os.environ.pop(name, None)


def default_config(environment: Mapping[str, str] | None = None) -> Path:
    """Return the default path of the configuration: `$STS_CONFIG`, else `./sts.yaml`."""
    return Path((os.environ if environment is None else environment).get("STS_CONFIG") or "sts.yaml")
