"""API keys in the store, and a worker's copy of them."""

import contextlib
import json
import sqlite3
from dataclasses import replace

import pytest

from sts.errors import MALFORMED, REVOKED, STATE_UNAVAILABLE, UNKNOWN_KEY
from sts.state import OnOutage, StateSettings, StateUnavailableError
from sts.state.api_keys import ApiKeys
from sts.state.key_records import KEEP_ENDED_S, NAMESPACE, ApiKey, KeyRecords, digest, imported_id, is_over, make
from sts.state.last_used import LastUsed, read_last_used
from sts.state.sqlite import SqliteState
from sts.state.state import FOREVER

NOW = 1_800_000_000
PREFIX = "sk_live_"
SECRET = b"k" * 32


class Broken:
    """A store that is away whenever it is told."""

    def __init__(self, state):
        self.state, self.away = state, False

    def __getattr__(self, name):
        if self.away:
            raise StateUnavailableError("the store is away")
        return getattr(self.state, name)


@pytest.fixture
def state(tmp_path):
    opened = SqliteState(tmp_path / "state.db", lambda: NOW)
    opened.check()
    yield Broken(opened)
    opened.close()


@pytest.fixture
def records(state):
    return KeyRecords(state, [SECRET])


@pytest.fixture
def steady():
    class Steady:
        now = 100.0

        def __call__(self):
            return self.now

    return Steady()


@pytest.fixture
def worker(records, steady):
    """Makes a worker's copy that has looked once."""

    def make_worker(on_outage="deny"):
        warned = []
        settings = StateSettings(on_outage=OnOutage(revocation=on_outage))
        keys = ApiKeys(records, lambda: NOW, settings, warned.append, steady)
        keys.warned = warned
        keys.follower.look()
        return keys

    return make_worker


@pytest.fixture
def added(records):
    """Make a key and keep its record; returns record and text."""

    def add(**changes):
        key_id, text = make(PREFIX)
        key = ApiKey(id=key_id, source="partners", owner="acme", digest=digest(text), created_at=NOW, **changes)
        records.put(key)
        return records.get(key_id), text

    return add


def test_a_record_says_what_a_key_may_do_and_never_the_key(state, records, added):
    """AK-01, AK-02."""
    key, text = added(scopes=("a", "b"), audiences=("orders",), tenant="t", tier="gold", expires_at=NOW + 5)
    assert records.all() == [key]
    kept = state.get(NAMESPACE, key.id).value.decode()
    assert text not in kept
    assert text[len(PREFIX) + 12 : -6] not in kept
    assert (key.reach, key.attributes["tenant"], key.attributes["scopes"]) == ({"orders"}, "t", ["a", "b"])


def test_a_living_key_is_proven(worker, added):
    key, text = added()
    keys = worker()
    assert keys.prove("partners", PREFIX, text) == key
    assert keys.current(key.proof)


def test_every_other_text_is_refused(worker, added, refused):
    key, text = added()
    keys = worker()
    _, other = make(PREFIX)
    forged = text[: len(PREFIX) + 12] + other[len(PREFIX) + 12 :]  # a known id with another secret
    for wrong, reason in ((other, UNKNOWN_KEY), (forged, MALFORMED), (text[:-1] + "_", UNKNOWN_KEY), ("", MALFORMED)):
        with refused(reason):
            keys.prove("partners", PREFIX, wrong)
    with refused(UNKNOWN_KEY):
        keys.prove("another-source", PREFIX, text)
    assert key.id in keys._keys


def test_a_known_id_with_a_right_checksum_and_another_secret_is_unknown(worker, added, refused):
    """Anybody can compute the checksum: the secret is what counts."""
    from sts.state.key_records import _checksum  # noqa: PLC0415 - only here

    _, text = added()
    body = text[: len(PREFIX) + 12] + "x" * 32
    with refused(UNKNOWN_KEY):
        worker().prove("partners", PREFIX, body + _checksum(body))


def test_a_revocation_is_felt_with_the_next_look(worker, records, added, refused):
    """AK-02."""
    key, text = added()
    keys = worker()
    keys.prove("partners", PREFIX, text)
    records.put(replace(key, revoked_at=NOW))
    keys.follower.look()
    with refused(REVOKED):
        keys.prove("partners", PREFIX, text)
    assert not keys.current(key.proof)


def test_whatever_changes_a_record_voids_what_it_made(worker, records, added):
    key, _ = added(scopes=("a", "b"))
    keys = worker()
    records.put(replace(key, scopes=("a",)))
    keys.follower.look()
    assert not keys.current(key.proof)
    assert keys.current(records.get(key.id).proof)


@pytest.mark.parametrize("name", ["scopes", "audiences", "owner", "expires_at", "source", "digest", "tenant"])
def test_who_can_write_to_the_store_cannot_widen_a_key(state, worker, added, refused, name):
    """AK-01, AK-02: the record is authentic as a whole, or it counts as none; and the operator is told, once."""
    key, text = added(scopes=("a",), audiences=("orders",), expires_at=NOW + 5, tenant="t")
    record = state.get(NAMESPACE, key.id)
    form, _, written = record.value.partition(b" ")
    content = json.loads(written)
    content[name] = [*content[name], "admin"] if isinstance(content[name], list) else "other"
    state.put(NAMESPACE, key.id, form + b" " + json.dumps(content).encode(), expected=record.version)
    keys = worker()
    keys.follower.look()
    with refused(UNKNOWN_KEY):
        keys.prove("partners", PREFIX, text)
    assert len(keys.warned) == 1
    assert "not authentic" in keys.warned[0]


def test_who_can_write_to_the_store_cannot_move_a_record_to_another_id(state, worker, added, refused):
    key, _ = added(scopes=("admin",))
    other_id, other = make(PREFIX)
    state.put(NAMESPACE, other_id, state.get(NAMESPACE, key.id).value, expected=0)
    with refused(UNKNOWN_KEY):
        worker().prove("partners", PREFIX, other)


def test_a_record_that_is_put_back_to_before_its_revocation_stays_revoked(state, worker, records, added, refused):
    key, text = added()
    before = state.get(NAMESPACE, key.id).value
    keys = worker()
    records.put(replace(key, revoked_at=NOW))
    keys.follower.look()
    state.put(NAMESPACE, key.id, before, expected=None)
    keys.follower.look()
    with refused(REVOKED):
        keys.prove("partners", PREFIX, text)
    assert "put back" in keys.warned[0]


def test_a_revoked_record_that_is_deleted_and_made_anew_stays_revoked(state, worker, records, added, refused):
    key, text = added()
    before = state.get(NAMESPACE, key.id).value
    keys = worker()
    records.put(replace(key, revoked_at=NOW))
    keys.follower.look()
    state.delete(NAMESPACE, key.id)
    keys.follower.look()
    state.put(NAMESPACE, key.id, before, expected=None)
    keys.follower.look()
    with refused(REVOKED):
        keys.prove("partners", PREFIX, text)


def test_keys_go_on_working_through_a_short_outage_and_not_through_a_long_one(state, worker, added, steady, refused):
    """An older list than `max_stale` counts as an outage."""
    key, text = added()
    keys = worker()
    state.away = True
    steady.now += 299
    keys.follower.look()
    assert keys.trouble
    assert keys.prove("partners", PREFIX, text) == key
    steady.now += 2
    with refused(STATE_UNAVAILABLE):
        keys.prove("partners", PREFIX, text)
    assert not keys.current(key.proof)


def test_on_outage_allow_goes_on_with_what_was_last_seen(state, worker, added, steady):
    key, text = added()
    keys = worker(on_outage="allow")
    state.away = True
    steady.now += 10_000
    assert keys.prove("partners", PREFIX, text) == key


@pytest.mark.parametrize("on_outage", ["deny", "allow"])
def test_a_worker_that_never_saw_the_store_knows_no_key_to_be_wrong(state, worker, added, refused, on_outage):
    """Its first answer is that it cannot say, never that a good key is none."""
    _, text = added()
    state.away = True
    with refused(STATE_UNAVAILABLE):
        worker(on_outage=on_outage).prove("partners", PREFIX, text)


def test_what_is_over_is_said_in_a_word(added):
    key, _ = added(expires_at=NOW + 5)
    assert [is_over(key, NOW), is_over(key, NOW + 5), is_over(replace(key, revoked_at=NOW), NOW)] == [
        *("", "expired", "revoked"),
    ]


def test_last_use_is_written_once_in_a_while_and_not_per_request(state, worker, added):
    """AK-02."""
    key, text = added()
    keys = worker()
    for _ in range(5):
        keys.prove("partners", PREFIX, text)
    writer = LastUsed(state, keys.used)
    assert read_last_used(state) == {}
    assert (writer.flush(), writer.flush()) == (1, 0)
    assert read_last_used(state) == {key.id: int(keys.used[key.id])}
    keys.used[key.id] += 60
    assert writer.flush() == 1


def test_a_store_that_is_away_loses_no_last_use(state, worker, added):
    key, text = added()
    keys = worker()
    keys.prove("partners", PREFIX, text)
    writer = LastUsed(state, keys.used)
    state.away = True
    assert writer.flush() == 0
    state.away = False
    assert writer.flush() == 1
    assert key.id in read_last_used(state)


def test_keys_of_the_previous_secret_count_until_it_is_gone_and_resealed_ones_for_good(state, added):
    """A previous secret is accepted while it is replaced."""
    key, _ = added(scopes=("a",))
    fresh = b"f" * 32
    assert KeyRecords(state, [fresh]).all() == []
    both = KeyRecords(state, [fresh, SECRET])
    assert [one.id for one in both.all()] == [key.id]
    assert (both.reseal(), both.reseal()) == (1, 0)
    (kept,) = KeyRecords(state, [fresh]).all()
    assert (kept.digest, kept.scopes) == (key.digest, ("a",))
    assert KeyRecords(state, [SECRET]).all() == []


def test_what_the_previous_secret_signed_counts_until_it_is_taken_out(state, added, refused):
    """The secret is replaced while keys exist; none of them may die of it."""
    key, text = added()
    settings = StateSettings()

    def seen_with(*secrets):
        keys = ApiKeys(KeyRecords(state, secrets), lambda: NOW, settings)
        keys.follower.look()
        return keys

    assert seen_with(b"n" * 32, SECRET).prove("partners", PREFIX, text) == key
    with refused(UNKNOWN_KEY):
        seen_with(b"n" * 32).prove("partners", PREFIX, text)
    renewed = KeyRecords(state, [b"n" * 32, SECRET])
    renewed.put(renewed.get(key.id))
    assert seen_with(b"n" * 32).prove("partners", PREFIX, text).id == key.id


def test_a_restored_store_that_counts_its_versions_again_hides_no_change(tmp_path, worker, records, added, refused):
    """A store that was put back gives versions a second time; whoever looks by version alone misses a revocation."""
    key, text = added()
    keys = worker()
    proof = keys.prove("partners", PREFIX, text).proof
    records.put(replace(key, revoked_at=NOW))
    # as if the revocation had got the version of the first write
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection as store:
        store.execute("UPDATE store SET sequence = sequence - 1")
        store.execute("UPDATE record SET sequence = ? WHERE key = ?", (key.version, key.id))
    keys.follower._whole_at = -1e9
    keys.follower.look()
    with refused(REVOKED):
        keys.prove("partners", PREFIX, text)
    assert not keys.current(proof)


def test_a_record_that_is_put_back_to_before_its_end_was_set_keeps_its_end(state, worker, records, added):
    key, text = added()
    before = state.get(NAMESPACE, key.id).value
    keys = worker()
    records.put(replace(key, expires_at=NOW + 5))
    keys.follower.look()
    state.put(NAMESPACE, key.id, before, expected=None)
    for _ in range(2):
        keys.follower.look()
        assert keys.prove("partners", PREFIX, text).expires_at == NOW + 5
    assert [fault for fault in keys.warned if "put back" in fault] == keys.warned
    assert len(keys.warned) == 1


@pytest.mark.parametrize("mac", ["é", "\ud800", "", None, 5, [], {"a": 1}], ids=repr)
def test_a_mac_of_any_type_is_a_wrong_one(state, worker, added, refused, mac):
    key, text = added()
    form, _, written = state.get(NAMESPACE, key.id).value.partition(b" ")
    content = json.dumps({**json.loads(written), "mac": mac}).encode()
    state.put(NAMESPACE, key.id, form + b" " + content, expected=None)
    keys = worker()
    assert keys.trouble == ""
    with refused(UNKNOWN_KEY):
        keys.prove("partners", PREFIX, text)


def test_the_record_of_an_imported_key_stays_for_good_so_that_no_file_revives_it(state, records):
    for facts in ({"revoked_at": NOW}, {"expires_at": NOW + 5}, {}):
        text = f"{PREFIX}legacy-{len(facts)}{next(iter(facts), 'none')}"
        key = ApiKey(imported_id(digest(text)), "partners", "acme", digest(text), NOW, imported=True, **facts)
        records.put(key)
        assert state.get(NAMESPACE, key.id).until == FOREVER


def test_the_record_of_a_key_of_ours_goes_a_month_after_its_end(state, added):
    key, _ = added(expires_at=NOW + 5)
    assert state.get(NAMESPACE, key.id).until == NOW + 5 + KEEP_ENDED_S


def test_a_text_is_named_by_the_id_of_a_key_that_there_is_and_by_nothing_else(worker, added):
    key, text = added()
    keys = worker()
    assert keys.known(PREFIX, text) == key.id
    assert [keys.known(PREFIX, other) for other in (make(PREFIX)[1], text[:-1], PREFIX + "legacy-0123", "", "é")] == [
        *([""] * 5),
    ]


def test_where_many_keys_are_busy_none_waits_for_ever_to_have_its_last_use_written(state):
    used = {f"key-{number}": float(NOW) for number in range(3)}
    writer = LastUsed(state, used, at_once=2)
    for round_ in (1, 2):
        writer.flush()
        used.update(dict.fromkeys(used, float(NOW + round_)))
    assert set(read_last_used(state)) == set(used)


@pytest.mark.parametrize(
    "value", [b"", b"1 {}", b'1 {"at":"x"}', b'1 {"at":true}', b'1 {"at":1e99}', b'1 {"at":-5}', b"9 {}"]
)
def test_a_last_use_that_cannot_be_read_is_not_known_and_hides_no_other(state, value):
    LastUsed(state, {"good": float(NOW)}).flush()
    state.put("api_keys_used", "bad", value, expected=None)
    assert read_last_used(state) == {"good": NOW}


def test_no_key_is_looked_up_in_the_store_known_or_not(state, worker, added, refused):
    """What a stranger tries costs no round trip, whether he knows an id or not."""
    key, text = added()
    keys = worker()
    state.away = True
    assert keys.prove("partners", PREFIX, text) == key
    for wrong in (make(PREFIX)[1], PREFIX + "legacy-0123456789"):
        with refused(UNKNOWN_KEY):
            keys.prove("partners", PREFIX, wrong)
