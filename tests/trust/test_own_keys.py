import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from sts.errors import BAD_ALGORITHM, NO_KEY, UNKNOWN_KEY
from sts.trust.issuers import OwnKeys


class Published:
    """A key set of ours as it is published, and how often it was asked for."""

    def __init__(self):
        self.keys = []

    def add(self, kid):
        jwk = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
        jwk.pop("key_ops", None)
        self.keys.append({**jwk, "kid": kid, "use": "sig", "alg": "ES256"})

    def __call__(self, _now):
        return {"keys": list(self.keys)}


@pytest.fixture
def published():
    return Published()


@pytest.fixture
def keys(published, clock):
    published.add("one")
    return OwnKeys(published, clock)


def test_a_published_key_is_found_by_its_kid(keys):
    (found,) = keys.keys_for("one", "ES256", 0.0)
    assert found.kid == "one"
    assert keys.current(found.thumbprint)


def test_a_key_that_is_published_later_is_known_at_once(keys, published, refused):
    with refused(UNKNOWN_KEY):
        keys.keys_for("two", "ES256", 0.0)
    published.add("two")
    assert keys.keys_for("two", "ES256", 0.0)[0].kid == "two"


def test_a_key_that_left_the_set_is_unknown_at_once(keys, published, refused):
    (found,) = keys.keys_for("one", "ES256", 0.0)
    published.keys.clear()
    published.add("two")
    with refused(UNKNOWN_KEY):
        keys.keys_for("one", "ES256", 0.0)
    assert not keys.current(found.thumbprint)


def test_a_key_verifies_its_own_algorithm_only(keys, refused):
    with refused(BAD_ALGORITHM):
        keys.keys_for("one", "RS256", 0.0)


def test_without_a_published_key_it_is_our_fault(published, clock, refused):
    with refused(NO_KEY):
        OwnKeys(published, clock).keys_for("one", "ES256", 0.0)
