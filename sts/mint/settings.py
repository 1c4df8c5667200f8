"""The `keys` section, and the check that its durations fit together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from keys.lifecycle import Schedule
from sts.errors import StartError
from sts.labels import WRITTEN, DeploymentSecret
from sts.options import Duration, SecretText, Section, SigningAlgorithm, show_duration


def _seal_key(value: SecretStr) -> SecretStr:
    """Check that a seal key has the form of the deployment secret, 32 bytes. Raises ValueError."""
    try:
        DeploymentSecret.parse(value.get_secret_value())
    except StartError:
        raise ValueError(f"a seal key is {WRITTEN}") from None
    return value


SealKey = Annotated[SecretText, AfterValidator(_seal_key)]
Positive = Annotated[Duration, Field(gt=0)]


class KeysSettings(Section):
    """The lifetime of the signing keys (docs/rotation.md)."""

    store: Literal["file", "redis"] = "file"
    """Where the key ring is stored: `file` is `keyring.json` in `var`, for the workers of one machine; `redis` is for
    several machines."""
    algorithm: SigningAlgorithm = "ES256"
    """The algorithm that signs tokens. A new algorithm takes effect with the next rotation."""
    rotate_every: Positive = 30 * 86400.0
    """When a rotation is due: for an alarm, and for `sts keys rotate --if-due`. A key never expires by itself."""
    jwks_max_age: Positive = 300.0
    """`max-age` of the published JWKS: how long a cache or verifier may use it without fetching it again."""
    verifier_refresh: Duration = 600.0
    """How long the slowest verifier keeps a JWKS beyond that (Envoy's jwt_authn: 10m)."""
    clock_skew: Duration = 30.0
    """Maximum difference between the clocks of this service and of the verifiers."""
    poll: Positive = 5.0
    """How often each worker checks the key ring for changes; with `store: redis` it is also notified at once."""
    store_grace: Positive = 3600.0
    """How long a worker continues to sign without access to the key ring."""

    seal_keys: Annotated[tuple[SealKey, ...], Field(min_length=1, max_length=4)] | None = None
    """The keys that seal the key ring, `{file: PATH}` or `{env: NAME}` each; default: derived from `secret`. The first
    one seals, any of them opens, so list both while one is replaced (`sts keys reseal`)."""

    def schedule(self) -> Schedule:
        """Return these settings as the schedule that `keys` uses."""
        return Schedule(
            rotate_every=self.rotate_every,
            jwks_max_age=self.jwks_max_age,
            verifier_refresh=self.verifier_refresh,
            clock_skew=self.clock_skew,
            poll=self.poll,
            store_grace=self.store_grace,
        )


def does_not_fit(keys: KeysSettings, longest_ttl: float) -> Iterator[tuple[str, str]]:
    """Yield why the durations of `keys` cannot work with tokens of `longest_ttl` seconds, and the remedy.

    A rotation must be complete (every verifier has the next key, the last token of the former key has expired) before
    the next one is due (RO-04). A worker must check the ring more often than it may continue without access to it.
    """
    schedule = keys.schedule()
    if schedule.poll >= schedule.store_grace:
        text = (
            f"poll ({show_duration(schedule.poll)}) must be shorter than store_grace "
            f"({show_duration(schedule.store_grace)}), else a worker stops signing between two checks of the ring"
        )
        yield text, "shorten `poll`, or lengthen `store_grace`"
    keep = schedule.keep(longest_ttl)
    if schedule.rotate_every <= schedule.guard + keep:
        text = (
            f"rotate_every ({show_duration(schedule.rotate_every)}) must be longer than one rotation takes: "
            f"{show_duration(schedule.guard)} until every verifier has the next key (jwks_max_age + verifier_refresh + "
            f"clock_skew + poll), and {show_duration(keep)} until the last token of the former key has expired "
            f"(store_grace + longest ttl {show_duration(longest_ttl)} + clock_skew)"
        )
        yield text, "rotate less often, or shorten the longest `ttl`"
