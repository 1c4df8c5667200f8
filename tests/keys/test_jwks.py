import dataclasses

import pytest
from joserfc.jwk import ECKey

from keys.jwks import base64url, from_base64url, public_jwk, thumbprint

# RFC 7517 appendix A.1, the EC key
PUBLIC = {
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}


def test_a_kid_is_the_thumbprint_that_another_library_computes():
    """JW-33."""
    assert thumbprint(PUBLIC) == ECKey.import_key(PUBLIC).thumbprint()


def test_a_thumbprint_is_of_the_required_members_only():
    """JW-33."""
    assert thumbprint({**PUBLIC, "alg": "ES256", "kid": "x", "use": "sig"}) == thumbprint(PUBLIC)
    assert thumbprint({**PUBLIC, "x": PUBLIC["y"]}) != thumbprint(PUBLIC)


def test_the_jwk_holds_what_is_on_the_list_and_nothing_that_a_record_may_hold_beside(ring):
    """JK-02, JK-05. Lesson 3.6 (Kong: a URL that serves private keys)."""
    key = ring.keys[0]
    key = dataclasses.replace(key, public={**key.public, "d": "AAAA", "key_ops": "sign", "k": "AAAA", "priv": "AAAA"})
    assert set(public_jwk(key)) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert public_jwk(key)["use"] == "sig"
    assert public_jwk(key)["alg"] == "ES256"


def test_a_symmetric_key_is_never_published(ring):
    """JK-03."""
    key = dataclasses.replace(ring.keys[0], public={"kty": "oct", "k": "AAAA"})
    with pytest.raises(KeyError):
        public_jwk(key)


@pytest.mark.parametrize("text", ["AA==", "A", "AB", "A+A", "A/A", "A A", "AA\n", "é"])
def test_base64url_is_read_strictly(text):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, it must not decode
        from_base64url(text)


def test_base64url_reads_what_it_wrote():
    for length in range(70):
        assert from_base64url(base64url(bytes(range(length)))) == bytes(range(length))
