"""Certificate revocation lists: their own checks (RFC 5280 §5, §6.3), since the library only parses them (LIB-C06).

A list says which certificates its issuer has taken back, and until when that is the newest word. Lists for some
certificates only and lists of differences are not read: taking one for the whole would let the rest pass.
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
"""Seconds that the CA's clock may be ahead."""

_BEGIN: Final = b"-----BEGIN X509 CRL-----"
_END: Final = b"-----END X509 CRL-----"
_WEAK: Final = (hashes.MD5, hashes.SHA1)
_MAX_TRIED: Final = 16
_UNREAD: Final = "not read yet"


class UnfitCrlError(StsError):
    """A CRL that must not be used; the text says why."""


class Crl:
    """One list, complete and in the form we read; whose signature it has shows in `speaks_for`.

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
        """Whether the list is of this CA: its name, its signature, and its right to sign lists.

        `issuer` must come from a validated path: the answers are remembered by its key.
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
    """Read a file of CRLs: PEM blocks, one for each CA, or a single list in DER. Raises UnfitCrlError.

    Nothing is left out: a list that cannot be used would make its CA's revoked certificates pass under `soft`.
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
        raise UnfitCrlError(f"it is no CRL in PEM or DER: {type(error).__name__}") from None


class CrlFile:
    """The lists in a file, as they were when it was last looked at; a look replaces them whole, or says why not.

    `look` is for a thread of its own; everything else reads one reference. A file that cannot be used leaves the lists
    that were there, which then end with their own `nextUpdate`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble = _UNREAD
        self.generation = 0
        """Counts the lists that were there: what was decided over others is decided anew."""
        self._lists: tuple[Crl, ...] = ()
        self._seen: object = None
        self._looking = threading.Lock()
        self.look()

    def look(self) -> None:
        """Read the file if it has changed. Never raises; `trouble` and the log say why it could not be used."""
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
            if self.trouble not in ("", before) and before != _UNREAD:  # at the start it is told otherwise
                log.warning("crl", file=str(self.path), why=self.trouble)

    @property
    def issuers(self) -> frozenset[bytes]:
        """The DER names of the CAs whose lists these say they are."""
        return frozenset(crl.issuer for crl in self._lists)

    @property
    def ends(self) -> float:
        """When the first of the lists is past its `nextUpdate` (Unix seconds); they all are where there is none."""
        return min((crl.next_update for crl in self._lists), default=float("-inf"))

    def status(self, certificate: x509.Certificate, issuer: x509.Certificate, now: float) -> Status:
        """What the newest list of `issuer` says of `certificate`; both come from a validated path.

        A list past its time still revokes: nobody takes a revocation back.
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
            if extension.critical:  # RFC 5280 §5.3; a certificateIssuer would even make the entry another CA's
                raise UnfitCrlError("an entry with a critical extension")
        yield entry.serial_number


def _may_sign_lists(issuer: x509.Certificate) -> bool:
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True  # RFC 5280 §6.3.3 (f): the bit is asked for where there is a key usage
