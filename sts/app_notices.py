"""What becomes of news from the parts that ask others: counted, and logged where something failed."""

from __future__ import annotations

from sts.telemetry import log, metrics


def metrics_of_fetch(source: str, why: str) -> None:
    """Tell of a fetch of an issuer's keys: counted, and logged where it failed."""
    metrics.jwks_fetched(source, "failed" if why else "fetched")
    if why:
        log.warning("issuer's keys", source=source, why=why)


def metrics_of_recipients(audience: str, why: str) -> None:
    """Tell of a fetch of a backend's encryption keys, as of an issuer's."""
    metrics.jwks_fetched(f"audience {audience}", "failed" if why else "fetched")
    if why:
        log.warning("backend's encryption keys", audience=audience, why=why)


def metrics_of_opa(why: str) -> None:
    """Tell of a question to OPA: counted, and logged where it was not answered."""
    metrics.opa_asked("failed" if why else "answered")
    if why:
        log.warning("opa", why=why)


def ocsp_asked(source: str, why: str) -> None:
    """Tell of a question to an OCSP responder that was not answered."""
    if why:
        log.warning("revocation", source=source, why=why)
