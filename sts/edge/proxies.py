"""Proxies in front of `/token`: who ends callers' TLS for us, and hands their certificates on.

A forwarded certificate takes the place of the connection's own, and only for a peer that is in the proxy's networks
and proves itself with its secret in `X-Gateway-Secret` (RFC 9440 §4). A proxy's own certificate is never its callers'.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, Field

from sts.clients.client import PeerNetwork, within
from sts.clients.secret import SecretDigest, live, matches
from sts.edge.certificate_headers import Form, handed_on
from sts.model import Incoming, Peer
from sts.options import Section


def _narrow(network: PeerNetwork) -> PeerNetwork:
    """Refuse the network of all addresses: that a header comes from a proxy would then hang on its secret alone."""
    if not isinstance(network, str) and network.prefixlen == 0:
        raise ValueError(f"{network} is everybody: write the addresses that the proxy calls from")
    return network


class ProxySettings(Section):
    """A proxy that ends callers' TLS in front of `/token`."""

    networks: Annotated[tuple[Annotated[PeerNetwork, AfterValidator(_narrow)], ...], Field(min_length=1)]
    """Addresses of the socket's peer that the proxy calls from, not all there are; `unix` is our socket."""
    secrets: Annotated[tuple[SecretDigest, ...], Field(min_length=1, max_length=2)]
    """`sha256:` and the hex SHA-256 of what the proxy sends in `X-Gateway-Secret` (`sts clients secret` makes both)."""
    certificate_header: Form
    """In which one form it hands the caller's certificate on: `client_cert` (RFC 9440), `xfcc` (Envoy) or `nginx`."""


class Proxies:
    """The configured proxies."""

    def __init__(self, settings: Iterable[ProxySettings]) -> None:
        self._proxies = [(one, live(one)) for one in settings]

    def peer(self, incoming: Incoming) -> Peer:
        """Who called, with the certificates that count as its own: forwarded ones, if a proxy is in between.

        From a proxy's network with a secret that is not its own, none count: a user may have added to the secret.
        Raises what `handed_on` raises; MALFORMED for a certificate header from anybody else.
        """
        secret = incoming.headers.get("x-gateway-secret")
        for proxy, digests in self._proxies if secret else ():
            if within(incoming.peer, proxy.networks) and matches(secret or "", digests):
                forwarded = handed_on(incoming.headers, proxy.certificate_header)
                return replace(incoming.peer, certificates=forwarded or ())
        handed_on(incoming.headers, None)
        if secret and any(within(incoming.peer, proxy.networks) for proxy, _ in self._proxies):
            return replace(incoming.peer, certificates=())
        return incoming.peer
