"""The CA of one source: its anchors, the names it may certify, and the certificates it has revoked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Literal
from weakref import WeakValueDictionary

from sts.options import KeptFile
from sts.telemetry import Reading
from sts.trust.fetch import Fetcher
from sts.x509.chain import UnverifiedChain
from sts.x509.crl import CrlFile
from sts.x509.names import check_names
from sts.x509.responders import Responders
from sts.x509.revocation import Mode, Register, check_revocation
from sts.x509.roots import Path, Roots
from sts.x509.watch import Watch


@dataclass(frozen=True, slots=True)
class AuthoritySettings:
    """The CA settings of one source; `source` is the source's name."""

    source: str
    ca_file: KeptFile
    san_prefix: str | None
    crl_file: FilePath | None
    revocation: Mode
    ocsp: Literal["off", "fetch"]


@dataclass(frozen=True, slots=True)
class Proven:
    """A valid path. Its revocation must be checked again at `fresh_until` (Unix seconds)."""

    path: Path
    fresh_until: float


class Authority:
    """Verifies certificates. Its CRLs and OCSP answers survive a reload (see `Authorities`)."""

    def __init__(
        self,
        settings: AuthoritySettings,
        crl: CrlFile | None,
        responders: Responders | None,
        clock: Callable[[], float],
    ) -> None:
        self._settings, self._clock = settings, clock
        self._roots = Roots(settings.ca_file)
        self._crl, self._responders = crl, responders
        self._registers: tuple[Register, ...] = tuple(one for one in (crl, responders) if one is not None)
        self.names = self._roots.names
        """The DER names of the anchors. They show which certificates claim to come from this CA."""

    def prove(self, chain: UnverifiedChain, now: float) -> Proven:
        """Prove that the CA vouches for the leaf of `chain` at `now` (Unix seconds); never waits.

        Raises what `Roots.validate`, `check_names` and `check_revocation` raise. The proof does not show that the
        presenter of the certificate has its private key.
        """
        path = self._roots.validate(chain, now)
        check_names(path.leaf, self._settings.san_prefix)
        until = check_revocation(path, self._registers, self._settings.revocation, now)
        return Proven(path, min(until, path.not_after))

    @property
    def generation(self) -> str:
        """Changes with each new CRL and each OCSP revocation: proofs of an older generation must be made again."""
        return ".".join(str(one.generation) for one in (self._crl, self._responders) if one is not None)

    def readings(self, now: float) -> list[Reading]:
        """Return the Prometheus readings: whether revocation is required, and the seconds until a CRL expires."""
        labels = {"source": self._settings.source}
        required = float(self._settings.revocation == "require")
        found = [Reading("sts_revocation_required", "Whether revocation: require is in force.", required, labels)]
        if self._crl is not None:
            left = self._crl.ends - now
            found.append(Reading("sts_crl_seconds_left", "Seconds until a CRL is past its nextUpdate.", left, labels))
        return found

    @property
    def trouble(self) -> str:
        """Why revocation cannot be checked as configured, "" if it can; for operators."""
        reasons = [one.trouble for one in (self._crl, self._responders) if one is not None]
        if self._crl is not None and self._crl.issuers:
            if self._crl.issuers.isdisjoint(self.names):
                reasons.append("no CRL of a CA in ca_file")
            if self._crl.ends <= self._clock():
                reasons.append("a CRL is past its nextUpdate")
        return "; ".join(one for one in reasons if one)


@dataclass(frozen=True, slots=True)
class Authorities:
    """Creates authorities, and keeps their CRLs and OCSP answers over a reload that does not change their settings.

    `notice(source, why)` is called after every OCSP fetch: `why` is "" or the reason of the failure. `watch` checks
    the CRL files for changes.
    """

    clock: Callable[[], float]
    notice: Callable[[str, str], None] = lambda _source, _why: None
    watch: Watch = field(default_factory=Watch)
    _known: WeakValueDictionary[AuthoritySettings, Authority] = field(default_factory=WeakValueDictionary, repr=False)

    def authority(self, settings: AuthoritySettings) -> Authority:
        """Return the authority of these settings; equal settings share one. Raises StartError."""
        known = self._known.get(settings)
        if known is None:
            crl = None if settings.crl_file is None or settings.revocation == "off" else CrlFile(settings.crl_file)
            responders = None
            if settings.ocsp == "fetch" and settings.revocation != "off":
                responders = Responders(Fetcher(), self.clock, lambda why: self.notice(settings.source, why))
            known = self._known[settings] = Authority(settings, crl, responders, self.clock)
            if crl is not None:
                self.watch.add(crl)
        return known

    def readings(self, now: float) -> list[Reading]:
        """Return the Prometheus readings of all authorities."""
        return [reading for one in list(self._known.values()) for reading in one.readings(now)]
