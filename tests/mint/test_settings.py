import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sts.mint.settings import KeysSettings, does_not_fit
from sts.options import show_duration

DURATIONS = ("rotate_every", "jwks_max_age", "verifier_refresh", "clock_skew", "poll", "store_grace")


def settings_of(**written):
    return KeysSettings.model_validate(written)


def test_the_defaults_are_those_of_the_contract():
    settings = settings_of()
    assert (settings.store, settings.algorithm) == ("file", "ES256")
    written = {name: show_duration(getattr(settings, name)) for name in DURATIONS}
    assert written == {
        "rotate_every": "30d",
        "jwks_max_age": "5m",
        "verifier_refresh": "10m",
        "clock_skew": "30s",
        "poll": "5s",
        "store_grace": "1h",
    }


def test_the_schedule_has_the_same_numbers_in_seconds():
    schedule = settings_of(poll="250ms", rotate_every="2d").schedule()
    assert (schedule.poll, schedule.rotate_every, schedule.store_grace) == (0.25, 172800, 3600)
    assert schedule.guard == 300 + 600 + 30 + 0.25


@pytest.mark.parametrize("name", ["rotate_every", "jwks_max_age", "poll", "store_grace"])
def test_a_number_that_must_be_there_is_not_zero(name):
    with pytest.raises(ValidationError):
        settings_of(**{name: "0s"})


@pytest.mark.parametrize("name", ["verifier_refresh", "clock_skew"])
def test_a_verifier_may_refresh_at_once_and_clocks_may_be_exact(name):
    assert getattr(settings_of(**{name: "0s"}), name) == 0


@pytest.mark.parametrize(
    "written",
    [
        {"store": "sqlite"},
        {"algorithm": "RS512"},
        {"algorithm": "none"},
        {"rotate": "1d"},
        {"poll": 5},
        {"seal_keys": []},
    ],
)
def test_what_is_not_built_or_not_known_is_refused(written):
    with pytest.raises(ValidationError):
        settings_of(**written)


def test_the_defaults_fit_any_usual_ttl():
    for ttl in (0.0, 60.0, 600.0, 86400.0):
        assert not [*does_not_fit(settings_of(), ttl)]


def test_a_rotation_must_be_over_before_the_next_is_due():
    # 935 s until every verifier has the next key, 3600 + 300 + 30 s until the last token is over
    assert not [*does_not_fit(settings_of(rotate_every="4866s"), 300.0)]
    ((sentence, advice),) = does_not_fit(settings_of(rotate_every="4865s"), 300.0)
    assert advice.startswith("rotate less often")
    assert "rotate_every (4865s)" in sentence
    assert "935s until every verifier has the next key" in sentence
    assert "3930s until the last token" in sentence
    assert "longest ttl 5m" in sentence


def test_a_worker_looks_more_often_than_it_may_go_without():
    assert not [*does_not_fit(settings_of(poll="59s", store_grace="1m"), 300.0)]
    ((sentence, advice),) = does_not_fit(settings_of(poll="1m", store_grace="1m"), 0.0)
    assert "poll (1m) must be shorter than store_grace (1m)" in sentence
    assert advice == "shorten `poll`, or lengthen `store_grace`"


@given(st.tuples(*(st.integers(1, 10**7) for _ in DURATIONS)), st.integers(0, 10**6))
def test_numbers_fit_exactly_when_a_rotation_ends_before_the_next_one(numbers, ttl):
    settings = settings_of(**{name: f"{number}s" for name, number in zip(DURATIONS, numbers, strict=True)})
    schedule = settings.schedule()
    fits = schedule.poll < schedule.store_grace and schedule.rotate_every > schedule.guard + schedule.keep(ttl)
    assert (not [*does_not_fit(settings, ttl)]) == fits
