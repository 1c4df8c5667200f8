import json

import pytest

from sts.errors import BAD_ALGORITHM, UNKNOWN_KEY, StartError
from sts.jose import import_jwks
from sts.options import KeptFile
from sts.trust.remote_jwks import MAX_TRIES, FileJwks, LookUp

ALGORITHMS = ["ES256", "RS256"]


def look_up(document):
    return LookUp(import_jwks(document, ALGORITHMS))


def test_a_kid_is_matched_exactly(jwks_of):
    keys = look_up(jwks_of("one", "ONE", "two"))
    assert [key.kid for key in keys.find("one", "ES256")] == ["one"]
    for kid in ("On", "onee", "one ", "three", ""):
        assert keys.find(kid, "ES256") == ()


def test_a_key_without_kid_does_not_answer_for_a_token_with_one(jwks_of):
    assert look_up(jwks_of("")).find("one", "ES256") == ()


def test_a_token_without_kid_is_tried_with_the_few_keys_that_fit(jwks_of, refused):
    few = look_up(jwks_of(*"abcd"))
    assert len(few.find(None, "ES256")) == MAX_TRIES
    assert few.find(None, "RS256") == ()
    with refused(UNKNOWN_KEY):
        look_up(jwks_of(*"abcde")).find(None, "ES256")


def test_a_known_kid_with_another_algorithm_is_said_so(jwks_of, refused):
    with refused(BAD_ALGORITHM):
        look_up(jwks_of("one")).find("one", "RS256")


def test_keys_of_one_kid_are_all_found(jwks_of):
    assert len(look_up(jwks_of("same", "same")).find("same", "ES256")) == 2


@pytest.fixture
def written(tmp_path):
    def write(document):
        path = tmp_path / "idp.jwks.json"
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        return path

    return write


def test_keys_come_from_a_file(written, jwks_of, refused):
    document = jwks_of("one", "two")
    document["keys"].append({"kty": "oct", "k": "AAAA", "kid": "three"})
    keys = FileJwks(KeptFile.of(written(document)), ALGORITHMS)
    (one,) = keys.keys_for("one", "ES256", 0.0)
    assert keys.current(one.thumbprint)
    assert not keys.current("another")
    assert keys.trouble == ""
    with refused(UNKNOWN_KEY) as caught:
        keys.keys_for("three", "ES256", 0.0)
    assert caught.value.facts["left_out"] == "key 3: its kty is not RSA, EC or OKP"
    with refused(BAD_ALGORITHM):
        keys.keys_for("one", "RS256", 0.0)


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AAAA"}]}'])
def test_a_file_without_usable_keys_stops_the_start(content, written):
    with pytest.raises(StartError, match=r"idp\.jwks\.json"):
        FileJwks(KeptFile.of(written(content)), ALGORITHMS)


def test_a_missing_file_stops_the_start(tmp_path):
    with pytest.raises(StartError, match="No such file"):
        FileJwks(KeptFile.of(tmp_path / "none.json"), ALGORITHMS)
