"""TLS at our own socket: the context of the handshakes, and the socket after a handshake.

OpenSSL checks only that the caller has the key of its certificate, and that *some* configured CA issued it. Each
request verifies again for which client or source the certificate is valid, with the CA of that purpose alone.
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
_DER: Final = 2  # the standard library's private constant; a public method for the chain exists from Python 3.13 on


class TlsSocket(ssl.SSLSocket):
    """One caller's connection. `certificates` are those it proved to hold, DER, leaf first; empty without one.

    `patience` is how many seconds a blocking write may wait: OpenSSL continues after the kernel's own time-out.
    """

    certificates: tuple[bytes, ...] = ()
    patience: float = 5.0

    def shake_hands(self) -> int | None:
        """Continue the handshake as far as possible without waiting.

        Returns what to wait for (`selectors.EVENT_READ` or `EVENT_WRITE`), None when it is complete. Raises OSError.
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
        """Set blocking mode, in which a write waits at most `patience` seconds, or non-blocking mode."""
        self.settimeout(self.patience if flag else 0.0)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Receive data; raise the plain socket's BlockingIOError if there is none yet."""
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def shutdown(self, how: int) -> None:
        """Announce the end of our data in TLS (RFC 8446 §6.1) and then in TCP."""
        with contextlib.suppress(OSError, ValueError):
            self.settimeout(0.0)
            self.unwrap()
        super().shutdown(how)


def server_context(cert: KeptFile, key: KeptFile, trusted: Iterable[KeptFile]) -> ssl.SSLContext:
    """Return the context for TLS 1.2 or newer with our certificate; callers may present one from a `trusted` CA.

    Without `trusted`, callers are not asked for a certificate. Raises StartError for a file that cannot be used.

    A resumed session has the certificate of its first handshake. Tickets are off, because they would restore the
    certificate without its chain. A new context does not share the sessions of an old one.
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
        except (OSError, ValueError):  # OSError: the file contains no certificate; ValueError: not ASCII
            raise StartError(f"the CA file {file} cannot be used: it is not a PEM file of certificates") from None
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # each configured certificate is an anchor by itself
    return context


def own_certificate(cert: KeptFile, now: float) -> Reading:
    """Return the reading of our certificate's remaining time; `server_context` must have accepted the file."""
    leaf, *_ = x509.load_pem_x509_certificates(cert.read())
    left = leaf.not_valid_after_utc.timestamp() - now
    return Reading("sts_certificate_seconds_left", "Seconds until the certificate of listen.tls expires.", left)


def _load_certificate(context: ssl.SSLContext, cert: KeptFile, key: KeptFile) -> None:
    with _as_path(cert.read()) as cert_path, _as_path(key.read()) as key_path:
        try:
            context.load_cert_chain(cert_path, key_path, password=_no_password)
        except (OSError, ValueError) as error:
            raise StartError(f"{cert} and {key} cannot be used: {_why(error)}") from None


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # without this callback OpenSSL would prompt at the terminal


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    if isinstance(error, ssl.SSLError):
        return "not a PEM file each, or too weak a key" if reason is None else reason.lower().replace("_", " ")
    return str(error)


@contextlib.contextmanager
def _as_path(content: bytes) -> Iterator[str]:
    """Yield a path to `content` for a library that reads only files; in memory where possible, deleted afterwards."""
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


def chain_of(connection: Any) -> tuple[bytes, ...]:  # noqa: ANN401 - newer Python versions have more methods
    """Return the caller's certificates as it sent them (RFC 8446 §4.4.2), not verified beyond the handshake."""
    if not connection.getpeercert(binary_form=True):
        return ()
    if hasattr(connection, "get_unverified_chain"):
        return tuple(connection.get_unverified_chain())
    inner = connection._sslobj  # noqa: SLF001 - there is no public method before Python 3.13
    return tuple(one.public_bytes(_DER) for one in inner.get_unverified_chain())
