"""TLS at our own door: the context of its handshakes, and the socket that a handshake leaves behind.

OpenSSL looks at a caller's certificate only far enough to know that the caller holds its key and that *some* configured
CA issued it. What it proves, for which client or source, is judged anew with each request, by that purpose's own CA.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import ssl
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, Final

from cryptography import x509

from sts.errors import StartError
from sts.options import KeptFile
from sts.telemetry import Reading

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2 (RFC 9325 §4.2); TLS 1.3 has its own
_DER: Final = 2  # what the standard library calls it in private; a public way to the chain begins with Python 3.13


class TlsSocket(ssl.SSLSocket):
    """One caller's connection. `certificates` is what it proved to hold, DER, leaf first; empty without one.

    `patience` is how many seconds a blocking write may wait: OpenSSL goes on after the kernel's own time-out.
    """

    certificates: tuple[bytes, ...] = ()
    patience: float = 5.0

    def shake_hands(self) -> int | None:
        """Go on with the handshake as far as it goes without waiting.

        Returns what to wait for (`selectors.EVENT_READ` or `EVENT_WRITE`), None once it is over. Raises OSError.
        """
        try:
            self.do_handshake()
        except ssl.SSLWantReadError:
            return selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            return selectors.EVENT_WRITE
        self.certificates = chain_of(self)
        return None

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - Python's signature
        """Blocking means: for as long as our patience lasts."""
        self.settimeout(self.patience if flag else 0.0)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Receive, with the plain socket's words for "nothing there yet"."""
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def shutdown(self, how: int) -> None:
        """Say that no more will come, as TLS does (RFC 8446 §6.1) and then as TCP does."""
        with contextlib.suppress(OSError, ValueError):
            self.settimeout(0.0)
            self.unwrap()
        super().shutdown(how)


def server_context(cert: KeptFile, key: KeptFile, trusted: Iterable[KeptFile]) -> ssl.SSLContext:
    """TLS 1.2 or newer with our certificate; a caller may present one of its own that one of `trusted` CAs issued.

    Without `trusted` no certificate is asked for. Raises StartError for a file that is not what it should be.

    A session that is resumed brings the certificate of its first handshake; tickets are off, since they would bring
    the certificate without its chain. A new context knows none of the old one's sessions.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = TlsSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    _load_certificate(context, cert, key)
    for file in trusted:
        try:
            context.load_verify_locations(cadata=file.read().decode("ascii"))
        except (OSError, ValueError):  # OSError: no certificate in it; ValueError: not ASCII
            raise StartError(f"the CA file {file} cannot be used: it is no PEM file of certificates") from None
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what is configured is an anchor, whoever issued it
    return context


def own_certificate(cert: KeptFile, now: float) -> Reading:
    """How long our own certificate still holds; the file is one that `server_context` has taken."""
    leaf, *_ = x509.load_pem_x509_certificates(cert.read())
    left = leaf.not_valid_after_utc.timestamp() - now
    return Reading("sts_certificate_seconds_left", "Seconds until the certificate of listen.tls ends.", left)


def _load_certificate(context: ssl.SSLContext, cert: KeptFile, key: KeptFile) -> None:
    with _as_path(cert.read()) as cert_path, _as_path(key.read()) as key_path:
        try:
            context.load_cert_chain(cert_path, key_path, password=_no_password)
        except (OSError, ValueError) as error:
            raise StartError(f"{cert} and {key} cannot be used: {_why(error)}") from None


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # OpenSSL would ask at the terminal


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    if isinstance(error, ssl.SSLError):
        return "not a PEM file each, or too weak a key" if reason is None else reason.lower().replace("_", " ")
    return str(error)


@contextlib.contextmanager
def _as_path(content: bytes) -> Iterator[str]:
    """A path to `content` for a library that reads only files: in memory, never on a disk, and gone afterwards."""
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
        return
    descriptor = os.memfd_create("sts", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def chain_of(connection: Any) -> tuple[bytes, ...]:  # noqa: ANN401 - newer Pythons know more methods
    """The caller's certificates as it sent them (RFC 8446 §4.4.2), unverified beyond the handshake."""
    if not connection.getpeercert(binary_form=True):
        return ()
    if hasattr(connection, "get_unverified_chain"):
        return tuple(connection.get_unverified_chain())
    inner = connection._sslobj  # noqa: SLF001 - until Python 3.13 there is no public way
    return tuple(one.public_bytes(_DER) for one in inner.get_unverified_chain())
