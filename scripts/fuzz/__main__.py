"""Send the service what nobody should: `make fuzz`, or `python -m scripts.fuzz [COUNT [SEED]]`.

Of COUNT inputs most are the bytes of one HTTP request, of the kinds in `inputs` (forms, headers, targets, tokens, whole
requests) and in `callers` (introspection, API keys, certificates, assertions, claims, actor tokens, our own tokens).
hypothesis makes the first ones, and shrinks a fault among them; the many after them are those, bent at random from a
seed that is printed. They go through gunicorn's parser and the WSGI application in this process, a share over real
sockets to `sts serve`. A further share is what others answer the service (see `answers`), and some are TLS records to a
TLS port (see `tls`). What must hold of each answer is in `places.judge`, and memory and threads stay within `bounds`.
Exit status 0 if it always did.
"""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from scripts.demo.provider import Provider
from scripts.demo.service import Service
from scripts.fuzz import answers, callers, inputs, tls
from scripts.fuzz.bounds import Size, here
from scripts.fuzz.inputs import bent
from scripts.fuzz.places import Here, There, judge
from scripts.fuzz.world import GOOD, Material, World

COUNT: Final = 110_000
FIRST: Final = 80  # of each kind by hypothesis
FIRST_SIGNED: Final = 500  # of those whose signatures no bent one keeps
SOCKET_SHARE: Final = 50  # one input of so many goes over a socket
ANSWER_SHARE: Final = 40  # so many of each kind of answer
TLS_SHARE: Final = 200
SECONDS: Final = 900.0
TELL_EVERY_S: Final = 5.0


def requests(who: Material) -> dict[str, st.SearchStrategy[bytes]]:
    """Every kind of request, by name, around what `who` holds."""
    plain = {name: make(who.token) for name, make in inputs.KINDS.items()}
    return plain | {name: make(who) for name, make in callers.KINDS.items()}


def run(
    kind: str,
    strategy: st.SearchStrategy[bytes],
    count: int,
    attempt: answers.Try,
    seed: int,
    tell: Callable[[str], None] = lambda _: None,
) -> Counter[str]:
    """Try `count` inputs of a kind; returns how often each answer came. Raises what `attempt` raised, with the input.

    Of inputs that are requests `bent` keeps the framing, but for the kind `raw`.
    """
    seen: Counter[str] = Counter()
    corpus: list[bytes] = []

    @settings(
        max_examples=min(FIRST if kind in inputs.KINDS else FIRST_SIGNED, count),
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis_seed(seed)
    @given(strategy)
    def first(data: bytes) -> None:
        corpus.append(data)
        seen[attempt(data)] += 1
        tell(kind)

    first()
    dice = random.Random(f"{seed} {kind}")  # noqa: S311 - it hits on inputs, not on secrets
    whole = kind != "raw" and (kind in inputs.KINDS or kind in callers.KINDS)
    while seen.total() < count:
        data = bent(dice, corpus, whole=whole)
        try:
            seen[attempt(data)] += 1
        except Exception as fault:
            fault.add_note(f"seed {seed}, kind {kind}, input {data!r}")
            raise
        tell(kind)
    return seen


class Progress:
    """Counts, and now and then says so. Ends the run where it takes too long."""

    def __init__(self) -> None:
        self.done, self.began = 0, time.monotonic()
        self.told = self.began

    def __call__(self, kind: str) -> None:
        """One more input of this kind."""
        self.done += 1
        now = time.monotonic()
        if now - self.told > TELL_EVERY_S:
            self.told = now
            print(f"  {self.done:7} inputs, {self.done / (now - self.began):.0f}/s, now {kind}", flush=True)
        if now - self.began > SECONDS:
            raise TimeoutError(f"{self.done} inputs in {SECONDS:.0f} s")

    def tell(self, place: str, kind: str, seen: Counter[str]) -> None:
        """One kind is done."""
        found = ", ".join(f"{one} {times}" for one, times in sorted(seen.items()))
        print(f"{place}, {kind}: {found}", flush=True)


def in_process(directory: Path, world: World, count: int, seed: int, progress: Progress) -> None:
    """Requests, and the answers of others, to the service in this process."""
    with contextlib.closing(Here(directory, world)) as place:
        before = None
        kinds = requests(place.who)
        for kind, strategy in kinds.items():
            at_door = partial(attempt_at, place)
            progress.tell("in process", kind, run(kind, strategy, count // len(kinds), at_door, seed, progress))
            before = before or Size.of(here())  # with all that is made at first use
        each = max(1, count // ANSWER_SHARE)
        for path in GOOD:
            with answers.said(place, path) as attempt:
                seen = run(f"{path} answer", answers.http_answers(path), each, attempt, seed, progress)
            progress.tell("answered", path, seen)
        for kind, (strategy, attempt) in documents(world, directory).items():
            progress.tell("parsed", kind, run(kind, strategy, each, attempt, seed, progress))
        print(f"in process: {before.check(Size.of(here())) if before else 'unknown'}", flush=True)


def attempt_at(place: Here | There, data: bytes) -> str:
    """Send one request; the name of its answer, which is one that may be."""
    return judge(place.send(data), place.who.token)


def documents(world: World, directory: Path) -> dict[str, tuple[st.SearchStrategy[bytes], answers.Try]]:
    """What parsers are fed with, by name."""
    authority = answers.Documents.of(world, directory)
    return {
        "JWKS": (answers.jwk_sets(), answers.take_jwks),
        "recipient's JWKS": (answers.jwk_sets(), answers.take_recipient),
        "CRL": (authority.crls(), authority.take_crl),
        "OCSP": (authority.ocsps(), authority.take_ocsp),
        "certificate file": (authority.certificates(), authority.take_certificate),
    }


def over_sockets(directory: Path, world: World, count: int, seed: int, progress: Progress) -> None:
    """Requests to `sts serve`."""
    with Service(directory, "", world.configuration(directory)) as service:
        place = There.of(service, world)
        before = Size.of(service.pid)
        for kind, strategy in (kinds := requests(place.who)).items():
            each = max(1, count // SOCKET_SHARE // len(kinds))
            seen = run(kind, strategy, each, partial(attempt_at, place), seed, progress)
            print(f"over sockets, {kind}: {seen.total()}", flush=True)
        check_service(service, place.who, before)


def over_tls(directory: Path, world: World, count: int, seed: int, progress: Progress) -> None:
    """TLS records to `sts serve`."""
    listener = tls.Listener(directory)
    listen = {"address": "127.0.0.1:{port}", "tls": listener.settings}
    with Service(directory, "", world.configuration(directory, listen=listen), tls=listener.context()) as service:
        before = Size.of(service.pid)
        seen = tls.fuzz(listener, service.port, max(1, count // TLS_SHARE), seed)
        progress.done += seen.total()
        progress.tell("over sockets", "TLS", seen)
        assert not tls.renegotiate(service.port), "a renegotiation was granted"
        check_service(service, Material(world.provider.token().encode(), world), before)


def check_service(service: Service, who: Material, before: Size | None) -> None:
    """A good request is answered still; nothing broke on the way, and nothing was told that is secret."""
    answer = service.exchange(who.token.decode())
    assert answer.status == 200, f"the service no longer answers a good request: {answer}"
    told = service.log + "".join(json.dumps(event) for event in service.audited())
    assert "Traceback" not in service.log
    assert '"event": "fault"' not in service.log, service.log[-2000:]
    for needle in who.needles:
        assert needle.decode() not in told, "a secret or a token in the log or the audit"
    print(f"over sockets: {before.check(Size.of(service.pid)) if before else 'unknown'}", flush=True)


def main(count: int = COUNT, seed: int | None = None) -> int:
    """Send `count` inputs and say what came back."""
    seed = secrets.randbits(32) if seed is None else seed
    progress = Progress()
    kinds = [*inputs.KINDS, *callers.KINDS]
    print(f"{count} requests in process, {count // SOCKET_SHARE} over sockets, of the kinds {', '.join(kinds)};")
    print(f"{count // ANSWER_SHARE} of each kind of answer, {count // TLS_SHARE} to a TLS port; seed {seed}")
    folders = tempfile.TemporaryDirectory(prefix="sts-fuzz-", ignore_cleanup_errors=True)
    with folders as folder, Provider() as provider, World(provider) as world:
        for number, place in enumerate((in_process, over_sockets, over_tls)):
            directory = Path(folder) / str(number)
            directory.mkdir()
            place(directory, world, count, seed, progress)
    print(f"{progress.done} inputs in {time.monotonic() - progress.began:.0f} s: no fault")
    return 0


if __name__ == "__main__":
    sys.exit(main(*(int(one) for one in sys.argv[1:3])))
