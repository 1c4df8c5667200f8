import base64
import copy
import dataclasses
import functools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys.errors import StoreUnauthentic
from keys.lifecycle import Schedule
from keys.seal import Sealer
from keys.signer import generate
from keys.transitions import Wanted, first_ring, rotated

SECRET = bytes(range(32))
SCHEDULE = Schedule(
    rotate_every=100.0, jwks_max_age=1.0, verifier_refresh=1.0, clock_skew=1.0, poll=1.0, store_grace=10.0
)


@pytest.fixture
def written(sealer, ring):
    return json.loads(sealer.seal(ring))


def refuses(sealer, body, match):
    with pytest.raises(StoreUnauthentic, match=match):
        sealer.open(body if isinstance(body, bytes) else json.dumps(body).encode())


def resigned(sealer, body):
    """The body with a right MAC: what only somebody with the secret, or a fault of ours, could write."""
    body = {name: value for name, value in body.items() if name != "mac"}
    return {**body, "mac": sealer._keys[0].mac(body)}


def test_a_ring_comes_back_as_it_was(sealer, ring, clock, schedule):
    assert sealer.open(sealer.seal(ring)) == ring
    later = rotated(ring, [generate("ES256")], clock.sleep(1000), Wanted(schedule, 300.0, ("ES256",)))
    assert sealer.open(sealer.seal(later)) == later


def test_a_tombstone_comes_back_without_a_private_half(sealer, ring):
    dead = dataclasses.replace(ring.keys[1], revoked_at=5.0, private=None)
    ring = dataclasses.replace(ring, keys=(ring.keys[0], dead))
    assert sealer.open(sealer.seal(ring)) == ring


def test_the_private_halves_are_not_in_the_file(sealer, ring):
    text = sealer.seal(ring)
    for key in ring.keys:
        for encoded in (key.private, base64.b64encode(key.private), base64.urlsafe_b64encode(key.private)):
            assert encoded[5:50] not in text


def test_each_seal_is_fresh(sealer, ring):
    one, two = json.loads(sealer.seal(ring)), json.loads(sealer.seal(ring))
    assert one["keys"][0]["sealed"][:16] != two["keys"][0]["sealed"][:16]


def test_another_secret_is_named_as_the_reason(sealer, ring):
    refuses(Sealer([b"another secret, 32 bytes or more."]), sealer.seal(ring), "another secret|not among")


def test_a_former_seal_key_still_opens_and_the_first_one_seals(sealer, ring):
    new = b"n" * 32
    both = Sealer([new, SECRET])
    assert both.open(sealer.seal(ring)) == ring
    assert Sealer([new]).open(both.seal(ring)) == ring
    refuses(sealer, both.seal(ring), "not among")


@pytest.mark.parametrize("keys", [[], [b"short"], [SECRET, b""]])
def test_a_seal_key_has_at_least_32_bytes(keys):
    with pytest.raises(ValueError, match="seal key"):
        Sealer(keys)


def test_a_key_cannot_be_dropped_added_or_put_elsewhere(sealer, written, ring, clock, schedule):
    later = json.loads(
        sealer.seal(rotated(ring, [generate("ES256")], clock.sleep(1000), Wanted(schedule, 300.0, ("ES256",))))
    )
    for change in (
        lambda body: body["keys"].pop(),
        lambda body: body["keys"].append(copy.deepcopy(later["keys"][2])),
        lambda body: body["keys"].reverse(),
        lambda body: body.update(keys=later["keys"]),
        lambda body: body.update(keys=[]),
    ):
        body = copy.deepcopy(written)
        change(body)
        refuses(sealer, body, "not authentic")


@pytest.mark.parametrize("name", ["version", "longest_ttl", "keep", "guard"])
def test_no_number_of_the_ring_can_be_changed(sealer, written, name):
    refuses(sealer, {**written, name: written[name] + 1}, "not authentic")


@pytest.mark.parametrize(
    "name", ["kid", "algorithm", "published_at", "ready_at", "active_at", "retired_at", "leaves_at", "revoked_at"]
)
def test_no_fact_of_a_key_can_be_changed_even_with_a_right_mac(sealer, written, name):
    body = copy.deepcopy(written)
    body["keys"][0][name] = 1.0
    refuses(sealer, body, "not authentic")
    refuses(sealer, resigned(sealer, body), "belong|damaged")


def test_a_sealed_half_does_not_move_into_another_version_even_with_a_right_mac(sealer, written):
    refuses(sealer, resigned(sealer, {**written, "version": 2}), "does not belong to its record")


def test_a_public_half_that_does_not_fit_is_not_believed_even_from_somebody_with_the_secret(sealer, ring):
    first, second = ring.keys
    stranger = dataclasses.replace(first, public=second.public)
    text = sealer.seal(dataclasses.replace(ring, keys=(stranger, second)))
    refuses(sealer, text, "do not belong together")


def test_an_unsealed_key_that_is_not_revoked_is_not_believed(sealer, written):
    body = copy.deepcopy(written)
    body["keys"][0]["sealed"] = None
    refuses(sealer, resigned(sealer, body), "damaged")


def test_another_format_is_named(sealer, written):
    refuses(sealer, resigned(sealer, {**written, "format": 2}), "format")


@pytest.mark.parametrize("missing", ["version", "keys", "keep", "seal", "mac"])
def test_a_ring_with_a_part_missing_is_not_believed(sealer, written, missing):
    refuses(sealer, {name: value for name, value in written.items() if name != missing}, "authentic|not among")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": 1, "keep": 1e999}',
        b"9" * 5000,
        b'{"format":1}',
        b'{"format":1,"seal":["x"],"mac":5}',
        b" " * (1 << 21),
    ],
    ids=lambda text: text[:12].decode("latin-1"),
)
def test_what_is_no_ring_is_refused_as_such(sealer, text):
    with pytest.raises(StoreUnauthentic):
        sealer.open(text)


def test_a_file_that_is_too_long_is_not_even_parsed(sealer, ring):
    refuses(sealer, sealer.seal(ring) + b" " * (1 << 20), "more than")


def test_a_mac_of_another_type_is_refused(sealer, written):
    for mac in (None, 5, [], "", "é", written["mac"] + "A"):
        refuses(sealer, {**written, "mac": mac}, "not authentic")


@functools.cache
def sealed():
    """One sealed ring for all the examples of a property."""
    sealer = Sealer([SECRET])
    ring = first_ring([(generate("ES256"), generate("ES256"))], 1000.0, Wanted(SCHEDULE, 300.0, ("ES256",)))
    return sealer, sealer.seal(ring), ring


@settings(max_examples=60)
@given(data=st.data())
def test_no_changed_byte_goes_unnoticed(data):
    sealer, text, ring = sealed()
    position = data.draw(st.integers(0, len(text) - 1))
    byte = data.draw(st.integers(0, 255))
    try:
        opened = sealer.open(text[:position] + bytes([byte]) + text[position + 1 :])
    except StoreUnauthentic:
        return
    assert opened == ring  # white space, or the byte that was there
