"""The last step of the demo: a key rotation while requests keep coming, and no token that fails to verify."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from typing import Final, Self

import jwt
import urllib3

from scripts.demo.backend import Verifier
from scripts.demo.provider import Provider
from scripts.demo.service import GUARD_S, Answer, Service
from scripts.demo.show import Stage
from scripts.nginx import PATIENCE_S

_CALLERS: Final = 3
_PAUSE_S: Final = 0.03
_AFTER_S: Final = 1.5


class Traffic:
    """Callers that exchange tokens and a backend that verifies each, until told to stop."""

    def __init__(self, provider: Provider, service: Service, verifier: Verifier) -> None:
        self.verified: Counter[str] = Counter()
        self.failed: list[str] = []
        self.tokens: list[str] = []
        self._parts = provider, service, verifier
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(_CALLERS)]

    def __enter__(self) -> Self:
        """Start calling."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop calling."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=PATIENCE_S)

    def wait_for_signers(self, number: int) -> None:
        """Wait until the answers so far were signed by as many keys, on a slow machine too."""
        end = time.monotonic() + PATIENCE_S
        while len(self.verified) < number and time.monotonic() < end:
            time.sleep(_PAUSE_S)

    def _call(self) -> None:
        provider, service, _ = self._parts
        pool = urllib3.HTTPConnectionPool("127.0.0.1", service.port, maxsize=1, retries=False)
        while not self._stop.is_set():
            inbound = provider.token("idp-ec")
            for _ in range(3):  # one new token, then twice the cached one
                try:
                    self._verify(service.exchange(inbound, pool=pool))
                except (jwt.PyJWTError, urllib3.exceptions.HTTPError) as fault:
                    self.failed.append(f"{type(fault).__name__}: {fault}")
            self._stop.wait(_PAUSE_S)

    def _verify(self, answer: Answer) -> None:
        if answer.status != 200:
            self.failed.append(f"{answer.status} {answer.body.get('error_reason')}")
            return
        token = answer.body["access_token"]
        self._parts[2].claims(token)
        self.tokens.append(token)
        self.verified[_kid(token)] += 1


def rotation(stage: Stage, provider: Provider, service: Service, verifier: Verifier) -> None:
    """Rotate the signing key with `sts keys rotate` while callers keep calling; show what signed and what verified."""
    stage.step("Key rotation during traffic: `sts keys rotate`")
    before = service.signing_keys()
    with Traffic(provider, service, verifier) as traffic:
        time.sleep(_AFTER_S / 2)
        status, said = _rotate_when_allowed(stage, service)
        rotated_at, rotated_time = len(traffic.tokens), time.monotonic()
        early_status, early = service.command("keys", "rotate")
        # Only a machine that takes seconds to start a command sees the guard's time pass meanwhile.
        early_refused = early_status == 1 or time.monotonic() - rotated_time > GUARD_S
        time.sleep(_AFTER_S)
        traffic.wait_for_signers(2)
    after = service.signing_keys()
    for line in said.splitlines():
        stage.say(line)
    stage.check("the rotation was carried out", holds=status == 0, found=said)
    stage.check("a second one at once is refused: verifiers lack its key yet", holds=early_refused, found=early)
    stage.say(f"it says: {early}")
    stage.table(
        ("key id", "published before", "published after", "answers it signed"),
        [
            (kid[:16] + "…", _yes(kid in before), _yes(kid in after), str(traffic.verified[kid]))
            for kid in dict.fromkeys([*before, *after])
        ],
    )
    signers = list(traffic.verified)
    total = sum(traffic.verified.values())
    stage.check(f"{total} answers, each verified by the backend", holds=not traffic.failed, found=traffic.failed[:3])
    new = len(signers) > 1 and signers[1] in before
    stage.check("a second key signed, and it had been published before it did", holds=new, found=signers)
    kept = _still_verified(traffic.tokens[:rotated_at], verifier)
    stage.check(f"the {kept[1]} tokens from before the rotation still verify after it", holds=kept[0] == kept[1])


def _rotate_when_allowed(stage: Stage, service: Service) -> tuple[int, str]:
    """Rotate; if the standby is too young, wait for as long as the refusal says, as an operator would."""
    end = time.monotonic() + PATIENCE_S
    while True:
        status, said = service.command("keys", "rotate", "--json")
        facts = json.loads(said.splitlines()[0]) if said.startswith("{") else {}
        if status == 0 or facts.get("why") != "guard" or time.monotonic() > end:
            return status, _as_sentence(said, facts)
        stage.say(f"too early, the standby is too young by {facts['seconds']} s: waiting")
        time.sleep(float(facts["seconds"]) + 0.05)


def _as_sentence(said: str, facts: dict[str, str]) -> str:
    if not facts.get("rotated"):
        return said
    return f"rotated: {facts['signing'][:16]}… signs now, {facts['retired'][:16]}… is retired and stays published"


def _still_verified(tokens: list[str], verifier: Verifier) -> tuple[int, int]:
    """How many of the distinct tokens verify now, and how many there are that have not expired meanwhile."""
    good = bad = 0
    for token in set(tokens):
        try:
            verifier.claims(token)
            good += 1
        except jwt.ExpiredSignatureError:  # on a machine that takes minutes for this
            continue
        except jwt.PyJWTError:
            bad += 1
    return good, good + bad


def _kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def _yes(value: object) -> str:
    return "yes" if value else "no"
