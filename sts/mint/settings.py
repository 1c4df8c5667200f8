"""What the `keys` section of a configuration holds, and whether its numbers can work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from keys.lifecycle import Schedule
from sts.errors import StartError
from sts.labels import WRITTEN, DeploymentSecret
from sts.options import Duration, SecretText, Section, SigningAlgorithm, show_duration


def _seal_key(value: SecretStr) -> SecretStr:
    """The same form as the deployment secret's: 32 bytes. Raises ValueError."""
    try:
        DeploymentSecret.parse(value.get_secret_value())
    except StartError:
        raise ValueError(f"a seal key is {WRITTEN}") from None
    return value


SealKey = Annotated[SecretText, AfterValidator(_seal_key)]
Positive = Annotated[Duration, Field(gt=0)]


class KeysSettings(Section):
    """The life of the signing keys (docs/rotation.md)."""

    store: Literal["file", "redis"] = "file"
    """Where the key ring lives: `file` is `keyring.json` in `var`, for the workers of one machine; `redis` is for
    several."""
    algorithm: SigningAlgorithm = "ES256"
    """The algorithm that tokens are signed with. A new one begins to sign with the next rotation."""
    rotate_every: Positive = 30 * 86400.0
    """When a rotation is due: an alarm, and what `sts keys rotate --if-due` asks. A key never ends by itself."""
    jwks_max_age: Positive = 300.0
    """`max-age` of the published JWKS: how long a cache or verifier may use it without asking again."""
    verifier_refresh: Duration = 600.0
    """How long the slowest verifier keeps a JWKS beyond that (Envoy's jwt_authn: 10m)."""
    clock_skew: Duration = 30.0
    """How far the clocks of this service and of the verifiers differ at most."""
    poll: Positive = 5.0
    """How often each worker looks whether the key ring has changed; with `store: redis` it is also told at once."""
    store_grace: Positive = 3600.0
    """How long a worker goes on signing without having seen the key ring."""

    seal_keys: Annotated[tuple[SealKey, ...], Field(min_length=1, max_length=4)] | None = None
    """What the key ring is sealed with, `{file: PATH}` or `{env: NAME}` each; default: derived from `secret`. The first
    one seals, any of them opens, so that two stand here while one is replaced (`sts keys reseal`)."""

    def schedule(self) -> Schedule:
        """These numbers as `keys` wants them."""
        return Schedule(
            rotate_every=self.rotate_every,
            jwks_max_age=self.jwks_max_age,
            verifier_refresh=self.verifier_refresh,
            clock_skew=self.clock_skew,
            poll=self.poll,
            store_grace=self.store_grace,
        )


def does_not_fit(keys: KeysSettings, longest_ttl: float) -> Iterator[tuple[str, str]]:
    """Say why the numbers of `keys` cannot work with tokens that live for `longest_ttl` seconds, and what to do.

    A rotation must be over (the next key known to every verifier, the last token of the former key expired) before
    the next one is due (RO-04), and a worker must look at the ring more often than it may go without.
    """
    schedule = keys.schedule()
    if schedule.poll >= schedule.store_grace:
        text = (
            f"poll ({show_duration(schedule.poll)}) must be shorter than store_grace "
            f"({show_duration(schedule.store_grace)}), else a worker stops signing between two looks at the ring"
        )
        yield text, "look more often, or lengthen `store_grace`"
    keep = schedule.keep(longest_ttl)
    if schedule.rotate_every <= schedule.guard + keep:
        text = (
            f"rotate_every ({show_duration(schedule.rotate_every)}) must be longer than one rotation takes: "
            f"{show_duration(schedule.guard)} until every verifier has the next key (jwks_max_age + verifier_refresh + "
            f"clock_skew + poll), and {show_duration(keep)} until the last token of the former key is over "
            f"(store_grace + longest ttl {show_duration(longest_ttl)} + clock_skew)"
        )
        yield text, "rotate less often, or shorten the longest `ttl`"
