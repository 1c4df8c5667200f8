"""Warnings of `sts check`: what is no fault but may well be a mistake."""

import pytest

from sts.settings import estimate, examine, load


@pytest.fixture
def warnings(write):
    return lambda config, **beside: examine(write(config, **beside), {})[1]


def test_a_configuration_of_defaults_has_no_warnings(base, warnings):
    assert warnings(base) == ()


def test_a_limit_below_a_typical_token_is_told_with_its_place(base, warnings):
    base["audiences"]["orders"]["max_token_bytes"] = 256
    (only,) = warnings(base)
    assert only.path == "audiences.orders.max_token_bytes"
    assert only.line
    assert "would be refused, since 256 are allowed" in only.problem


@pytest.mark.parametrize(("limit", "told"), [(3072, 0), (3073, 1)])
def test_a_limit_that_a_gateways_buffer_does_not_hold_is_told(base, warnings, limit, told):
    base["audiences"]["orders"]["max_token_bytes"] = limit
    assert [one.path for one in warnings(base)] == ["audiences.orders.max_token_bytes"] * told


def test_a_disabled_audience_is_not_advised_on(base, warnings):
    base["audiences"]["off"] = {"enabled": False, "max_token_bytes": 256}
    assert warnings(base) == ()


def test_a_token_is_estimated_from_what_its_audience_maps(base, write):
    few = estimate(load(write(base), {}))["orders"]
    base["audiences"]["orders"]["claims"] = {
        "roles": "identity.roles",
        "text": "'" + "x" * 300 + "'",
        "odd": "identity.subject.substring(90)",
        "late": "now + 60",
    }
    assert few + 400 * 4 // 3 < estimate(load(write(base), {}))["orders"] < few + 700 * 4 // 3
