"""Access tokens with which callers prove themselves: those of sources, but meant for this service itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from sts.credentials.jwt import JwtKind, JwtSourceAtWork
from sts.errors import BAD_TYPE, Refusal
from sts.model import TYPE_ACCESS_TOKEN, Admitted, Credential, Limits, Principal

Admit = Callable[[Principal, Limits, float, str | None], Admitted]
Unrevoked = Callable[[str, Principal, float], None]


class Bearers:
    """Proves callers' access tokens.

    `sources` are those whose tokens callers may use, `audience` is our issuer identifier; `admit` is the one judgement
    over proven credentials, with the thumbprint of the caller's certificate as its last argument; `unrevoked` refuses a
    token that was revoked.
    """

    def __init__(self, sources: Iterable[JwtSourceAtWork], audience: str, admit: Admit, unrevoked: Unrevoked) -> None:
        self._sources = {source.name: source for source in sources}
        self._kind = JwtKind(self._sources.values())
        self._audience = frozenset({audience})
        self._admit = admit
        self._unrevoked = unrevoked

    def prove(self, token: str, certificate: str | None, now: float) -> tuple[str, Mapping[str, Any]]:
        """Which source issued `token` for us, alive and unrevoked, and its claims. May wait for the source's keys.

        `certificate` is the thumbprint of what the caller holds, for a token that is bound to one. Raises what the
        source, `admit` and `unrevoked` raise. This proves nothing of who may use it.
        """
        presented = self._kind.recognise(Credential(TYPE_ACCESS_TOKEN, token))
        if presented is None:
            raise Refusal(BAD_TYPE, why="not a JWT")
        source = self._sources[presented.source]
        principal = source.prove(presented, now)
        # Meant for us alone counts here, whatever the source's own audiences are.
        self._admit(principal, replace(source.limits, audiences=self._audience), now, certificate)
        self._unrevoked(token, principal, now)
        return source.name, principal.attributes
