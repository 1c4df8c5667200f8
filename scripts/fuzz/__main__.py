"""Send the service what nobody should: `make fuzz`, or `python -m scripts.fuzz [COUNT [SEED]]`.

Every input is the bytes of one HTTP request of one of five kinds: form bodies, header values, request targets, tokens,
whole requests. hypothesis makes the first ones, and shrinks a fault among them; the many after them are those, bent at
random from a seed that is printed. Most go through gunicorn's parser and the WSGI application in this process, a share
over real sockets to `sts serve`. What must hold of each answer is in `judge`. Exit status 0 if it always did.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed

from scripts.demo.provider import Provider
from scripts.demo.service import Service
from scripts.fuzz.inputs import KINDS, bent
from scripts.fuzz.places import Here, Send, There, judge

COUNT: Final = 110_000
FIRST: Final = 80  # of each kind by hypothesis
SOCKET_SHARE: Final = 50  # one input of so many goes over a socket
SECONDS: Final = 900.0
TELL_EVERY_S: Final = 5.0


def run(
    kind: str, count: int, send: Send, token: bytes, seed: int, tell: Callable[[str], None] = lambda _: None
) -> Counter[str]:
    """Send `count` inputs of a kind; returns how often each answer came. Raises what `judge` raised, with the input."""
    seen: Counter[str] = Counter()
    corpus: list[bytes] = []

    @settings(
        max_examples=min(FIRST, count),
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis_seed(seed)
    @given(KINDS[kind](token))
    def first(data: bytes) -> None:
        corpus.append(data)
        seen[judge(send(data), token)] += 1
        tell(kind)

    first()
    dice = random.Random(f"{seed} {kind}")  # noqa: S311 - it hits on inputs, not on secrets
    while seen.total() < count:
        data = bent(dice, corpus, whole=kind != "raw")
        try:
            seen[judge(send(data), token)] += 1
        except Exception as fault:
            fault.add_note(f"seed {seed}, kind {kind}, input {data!r}")
            raise
        tell(kind)
    return seen


class Progress:
    """Counts, and now and then says so. Ends the run where it takes too long."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.began = total, 0, time.monotonic()
        self.told = self.began

    def __call__(self, kind: str) -> None:
        """One more input of this kind."""
        self.done += 1
        now = time.monotonic()
        if now - self.told > TELL_EVERY_S:
            self.told = now
            print(f"  {self.done:7} of {self.total}, {self.done / (now - self.began):.0f}/s, now {kind}", flush=True)
        if now - self.began > SECONDS:
            raise TimeoutError(f"{self.done} of {self.total} inputs in {SECONDS:.0f} s")


def both(directory: Path, provider: Provider) -> Iterator[tuple[str, Send, int]]:
    """Yield each place with its name and how many of so many inputs it gets."""
    (directory / "here").mkdir()
    (directory / "there").mkdir()
    with contextlib.closing(Here(directory / "here", provider.jwks_uri)) as here:
        yield "in process", here.send, 1
    with Service(directory / "there", provider.jwks_uri) as service:
        yield "over sockets", There(service.port).send, SOCKET_SHARE
        token = provider.token()
        if service.exchange(token).status != 200:
            raise AssertionError(f"the service no longer answers a good request: {service.exchange(token)}")


def main(count: int = COUNT, seed: int | None = None) -> int:
    """Send `count` inputs and say what came back."""
    seed = secrets.randbits(32) if seed is None else seed
    progress = Progress(count + count // SOCKET_SHARE)
    print(
        f"{count} inputs in process, {count // SOCKET_SHARE} over sockets, of the kinds {', '.join(KINDS)}; seed {seed}"
    )
    with tempfile.TemporaryDirectory(prefix="sts-fuzz-") as folder, Provider() as provider:
        token = provider.token(exp=4_000_000_000).encode()
        for name, send, share in both(Path(folder), provider):
            for kind in KINDS:
                seen = run(kind, max(1, count // share // len(KINDS)), send, token, seed, progress)
                answers = ", ".join(f"{answer} {times}" for answer, times in sorted(seen.items()))
                print(f"{name}, {kind}: {answers if share == 1 else seen.total()}", flush=True)
    print(f"{progress.done} inputs in {time.monotonic() - progress.began:.0f} s: no fault")
    return 0


if __name__ == "__main__":
    sys.exit(main(*(int(one) for one in sys.argv[1:3])))
