"""The least that a miss can cost: one RS256 verification and one signature, ES256 or Ed25519, and nothing else."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from scripts.demo.provider import Provider

_OPERATIONS: Final = 300
_DATA: Final = b"x" * 600


class Raw:
    """Measures the operations in processor time, on the processor that serves, as often as `run` is called.

    It runs between the other cases, so that a processor that others use as well slows all of them alike.
    """

    def __init__(self, provider: Provider, cpu: set[int]) -> None:
        rsa_key, ec_key = provider.keys["idp-rsa"][1], provider.keys["idp-ec"][1]
        if not (isinstance(rsa_key, rsa.RSAPrivateKey) and isinstance(ec_key, ec.EllipticCurvePrivateKey)):
            raise TypeError("the demo provider changed its keys")
        signature, public = rsa_key.sign(_DATA, padding.PKCS1v15(), hashes.SHA256()), rsa_key.public_key()
        ed_key = ed25519.Ed25519PrivateKey.generate()
        self._cpu = cpu
        self._operations: dict[str, Callable[[], object]] = {
            "verify RS256": lambda: public.verify(signature, _DATA, padding.PKCS1v15(), hashes.SHA256()),
            "sign ES256": lambda: ec_key.sign(_DATA, ec.ECDSA(hashes.SHA256())),
            "sign Ed25519": lambda: ed_key.sign(_DATA),
        }
        self._found: dict[str, list[float]] = {name: [] for name in self._operations}

    def run(self) -> None:
        """Measure once more, on the server's processor, then go back to this thread's own."""
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cpu)
        try:
            for name, operation in self._operations.items():
                started = time.thread_time()
                for _ in range(_OPERATIONS):
                    operation()
                self._found[name].append((time.thread_time() - started) / _OPERATIONS)
        finally:
            os.sched_setaffinity(0, own)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds for each operation: the median of the runs."""
        return {name: statistics.median(found) for name, found in self._found.items()}
