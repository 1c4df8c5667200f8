"""OCSP answers, fetched in the background and cached: no request waits for a responder (XC-11).

Only certificates of a validated path are checked, so a configured CA chose the URL. The URL is fetched under the same
rules as any other (https, or http to a literal loopback address).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from sts.trust.fetch import Answer, UnreachableError
from sts.x509.ocsp import UnfitAnswerError, judge, question, responder
from sts.x509.revocation import Good, Revoked, Status, Unknown

MAX_KEPT: Final = 10_000
MAX_FETCHES: Final = 4
"""Concurrent fetches. Above the limit no fetch starts; the next request for the certificate tries again."""
REFRESH_AFTER: Final = 0.75
"""The share of an answer's lifetime after which a new one is fetched."""
COOL_DOWN: Final = 30.0
"""Seconds between a failure and the next fetch for the same certificate."""

_HEADERS: Final = {"Content-Type": "application/ocsp-request", "Accept": "application/ocsp-response"}
_OK: Final = 200


class Asks(Protocol):
    """An HTTP client."""

    def ask(self, method: str, url: str, headers: dict[str, str], body: bytes | None = None) -> Answer:
        """Send a request and return the answer of any status. Raises UnreachableError."""


@dataclass(slots=True)
class _Kept:
    """What is known of one certificate: the last status, when to fetch again, and why there is no status."""

    word: Good | Revoked | None = None
    ask_at: float = float("-inf")
    why: str = "no answer of the OCSP responder yet"
    asking: bool = False


class Responders:
    """A `Register` that uses OCSP. `fetcher` runs in background threads; the first starts with the first request."""

    def __init__(
        self, fetcher: Asks, clock: Callable[[], float], notice: Callable[[str], None] = lambda _why: None
    ) -> None:
        self._fetcher, self._clock, self._notice = fetcher, clock, notice
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._fetches = threading.BoundedSemaphore(MAX_FETCHES)
        self.trouble = ""
        self.generation = 0
        """Counts the certificates found revoked: decisions of an older generation must be made again."""

    def status(self, certificate: x509.Certificate, issuer: x509.Certificate, now: float) -> Status:
        """Return the last known status of `certificate`, and start a fetch if one is due. Never waits."""
        url = responder(certificate)
        if url is None:
            return Unknown("the certificate names no OCSP responder")
        key = certificate.fingerprint(hashes.SHA256()) + issuer.fingerprint(hashes.SHA256())
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
            due = not kept.asking and now >= kept.ask_at and self._fetches.acquire(blocking=False)
            if due:
                kept.asking = True
        if due:
            self._begin(kept, url, certificate, issuer)
        word = kept.word
        if word is None or (isinstance(word, Good) and word.until <= now):
            return Unknown(kept.why)
        return word

    def _begin(self, kept: _Kept, url: str, certificate: x509.Certificate, issuer: x509.Certificate) -> None:
        try:
            thread = threading.Thread(
                target=self._fetch, args=[kept, url, certificate, issuer], name="ocsp", daemon=True
            )
            thread.start()
        except RuntimeError:  # no thread can be started: the next request tries again
            kept.asking = False
            self._fetches.release()

    def _fetch(self, kept: _Kept, url: str, certificate: x509.Certificate, issuer: x509.Certificate) -> None:
        why = ""
        try:
            answer = self._fetcher.ask("POST", url, dict(_HEADERS), question(certificate, issuer))
            if answer.status != _OK:
                raise UnfitAnswerError(f"the responder answered {answer.status}")  # noqa: TRY301 - like other faults
            now = self._clock()
            word = judge(answer.body, certificate, issuer, now)
            kept.word = word
            if isinstance(word, Revoked):  # set the status first: a proof under the new generation must see it
                self.generation += 1
            kept.ask_at = now + (word.until - now) * REFRESH_AFTER if isinstance(word, Good) else float("inf")
        except (UnreachableError, UnfitAnswerError) as error:
            why = f"the OCSP responder: {error}"
        except Exception as error:  # noqa: BLE001 - otherwise no thread would ever fetch this certificate's status again
            why = f"the OCSP responder: fault {type(error).__name__}"
        if why:
            kept.why, kept.ask_at = why, self._clock() + COOL_DOWN
        self.trouble = why
        kept.asking = False
        self._fetches.release()
        self._notice(why)
