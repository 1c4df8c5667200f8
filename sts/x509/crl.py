"""Certificate revocation lists: our own checks (RFC 5280 §5, §6.3), because `cryptography` only parses (LIB-C06).

A CRL contains the serials that its issuer has revoked, and is current until its `nextUpdate`. Partial CRLs and delta
CRLs are rejected: certificates that such a list leaves out would pass as not revoked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sts.errors import StsError
from sts.telemetry import log
from sts.x509.revocation import REVOKED, Good, Status, Unknown

MAX_FILE_BYTES: Final = 50_000_000
MAX_LISTS: Final = 100
SKEW: Final = 60.0
"""Seconds that the CA's clock may be ahead of ours."""

_BEGIN: Final = b"-----BEGIN X509 CRL-----"
_END: Final = b"-----END X509 CRL-----"
_WEAK: Final = (hashes.MD5, hashes.SHA1)
_MAX_TRIED: Final = 16
_UNREAD: Final = "not read yet"


class UnfitCrlError(StsError):
    """A CRL that must not be used; the text gives the reason."""


class Crl:
    """One complete CRL in a supported form. The signature is not verified before `speaks_for`.

    Times are Unix seconds. Raises UnfitCrlError.
    """

    def __init__(self, crl: x509.CertificateRevocationList) -> None:
        if crl.next_update_utc is None:
            raise UnfitCrlError("a list without nextUpdate")
        for extension in crl.extensions:
            if extension.critical or isinstance(
                extension.value, x509.IssuingDistributionPoint | x509.DeltaCRLIndicator | x509.FreshestCRL
            ):
                raise UnfitCrlError(f"an extension that is not supported: {extension.oid.dotted_string}")
        if crl.signature_hash_algorithm is None or isinstance(crl.signature_hash_algorithm, _WEAK):
            raise UnfitCrlError("its signature's algorithm")
        self.issuer = crl.issuer.public_bytes()
        self.this_update = crl.last_update_utc.timestamp()
        self.next_update = crl.next_update_utc.timestamp()
        self.serials = frozenset(_serials(crl))
        self._crl = crl
        self._judged: dict[bytes, bool] = {}

    def speaks_for(self, issuer: x509.Certificate) -> bool:
        """Return whether this CA signed the list and may sign lists: compares the name, verifies the signature.

        `issuer` must come from a validated path, because the result is cached by its key.
        """
        if issuer.subject.public_bytes() != self.issuer:
            return False
        key = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        known = self._judged.get(key)
        if known is None:
            known = _may_sign_lists(issuer) and self._crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
            if len(self._judged) < _MAX_TRIED:
                self._judged[key] = known
        return known


def read_crls(content: bytes) -> tuple[Crl, ...]:
    """Read a file of CRLs: PEM blocks, one for each CA, or a single CRL in DER. Raises UnfitCrlError.

    One unusable list rejects the file. Without that list, its CA's revoked certificates would pass under `soft`.
    """
    if len(content) > MAX_FILE_BYTES:
        raise UnfitCrlError(f"more than {MAX_FILE_BYTES} bytes")
    if _BEGIN not in content:
        return (_read(x509.load_der_x509_crl, content),)
    blocks = [block.partition(_END)[0] for block in content.split(_BEGIN)[1:]]
    if len(blocks) > MAX_LISTS:
        raise UnfitCrlError(f"more than {MAX_LISTS} lists")
    return tuple(_read(x509.load_pem_x509_crl, _BEGIN + block + _END) for block in blocks)


def _read(load: Callable[[bytes], x509.CertificateRevocationList], content: bytes) -> Crl:
    try:
        return Crl(load(content))
    except UnfitCrlError:
        raise
    except Exception as error:  # noqa: BLE001 - ValueError, InvalidVersion, DuplicateExtension, UnsupportedAlgorithm, …
        raise UnfitCrlError(f"it is not a CRL in PEM or DER: {type(error).__name__}") from None


class CrlFile:
    """The CRLs of a file, as last read. `look` replaces all of them, or sets `trouble`.

    Only a background thread calls `look`; readers use one reference. If the file cannot be used, the previous lists
    remain; they expire at their own `nextUpdate`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble = _UNREAD
        self.generation = 0
        """Counts the versions of the lists: decisions that an older version allowed must be made again."""
        self._lists: tuple[Crl, ...] = ()
        self._seen: object = None
        self._looking = threading.Lock()
        self.look()

    def look(self) -> None:
        """Read the file if it has changed. Never raises; `trouble` and the log give the reason of a failure."""
        with self._looking:
            before = self.trouble
            try:
                state = self.path.stat()
                seen = (state.st_mtime_ns, state.st_size, state.st_ino)
                if seen == self._seen:
                    return
                lists = read_crls(self.path.read_bytes())
            except OSError as error:
                self.trouble = error.strerror or type(error).__name__
            except UnfitCrlError as error:
                self.trouble, self._seen = str(error), seen
            else:
                self._lists, self._seen, self.trouble = lists, seen, ""
                self.generation += 1
            if self.trouble not in ("", before) and before != _UNREAD:  # the start reports the first failure itself
                log.warning("crl", file=str(self.path), why=self.trouble)

    @property
    def issuers(self) -> frozenset[bytes]:
        """The DER names of the CAs that the lists name as their issuers."""
        return frozenset(crl.issuer for crl in self._lists)

    @property
    def ends(self) -> float:
        """The earliest `nextUpdate` of the lists (Unix seconds); minus infinity without lists."""
        return min((crl.next_update for crl in self._lists), default=float("-inf"))

    def status(self, certificate: x509.Certificate, issuer: x509.Certificate, now: float) -> Status:
        """Return what the newest CRL of `issuer` contains about `certificate`; both come from a validated path.

        An expired CRL still revokes, because a revocation is final.
        """
        lists = [crl for crl in self._lists if crl.speaks_for(issuer) and crl.this_update - SKEW <= now]
        if not lists:
            return Unknown("no CRL of the certificate's issuer")
        newest = max(lists, key=lambda crl: crl.this_update)
        if certificate.serial_number in newest.serials:
            return REVOKED
        if newest.next_update <= now:
            return Unknown("the CRL of the certificate's issuer is past its nextUpdate")
        return Good(newest.next_update)


def _serials(crl: x509.CertificateRevocationList) -> Iterator[int]:
    for entry in crl:
        for extension in entry.extensions:
            if extension.critical:  # RFC 5280 §5.3; a certificateIssuer would assign the entry to another CA
                raise UnfitCrlError("an entry with a critical extension")
        yield entry.serial_number


def _may_sign_lists(issuer: x509.Certificate) -> bool:
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True  # RFC 5280 §6.3.3 (f): cRLSign is required only if the certificate has a key usage
