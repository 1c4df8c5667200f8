"""The laws of the token cache: what the key covers, what a hit needs, what is made once and what is never kept."""

import gc
import secrets
import threading
import tracemalloc
from dataclasses import replace

import pytest
from harness import wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sts.cache.memory import Memory
from sts.cache.tokens import CacheSettings, Causes, TokenCache, cache_key
from sts.errors import BAD_SIGNATURE, SOURCE_UNREACHABLE, STATE_UNAVAILABLE, Refusal
from sts.model import (
    NOT_APPLICABLE,
    TYPE_ACCESS_TOKEN,
    TYPE_JWT,
    Ask,
    Client,
    Credential,
    Grant,
    Presented,
    Principal,
    Revocable,
)
from sts.resilience.bulkhead import Bulkhead

NOW = 1_800_000_000.0
KEY = b"k" * 32
NOTHING = Revocable(())
PRESENTED = Presented("jwt", "idp", TYPE_JWT, None)

# --- the key -----------------------------------------------------------------------------------------------------

texts = st.text(st.sampled_from("a1:;-+,"), max_size=4)  # what could be taken for a length or a separator
lists = st.lists(texts, max_size=3).map(tuple)
facts = st.lists(st.tuples(texts, texts), max_size=2).map(tuple)
requests = st.fixed_dictionaries(
    {
        "client": texts,
        "kind": st.sampled_from([TYPE_ACCESS_TOKEN, TYPE_JWT]),
        "value": texts,
        "door": st.sampled_from(["token", "forward_auth"]),
        "audiences": lists,
        "resources": lists,
        "scopes": st.none() | lists,
        "requested_type": st.sampled_from([TYPE_ACCESS_TOKEN, TYPE_JWT]),
        "actor": st.none() | st.builds(Credential, texts, texts),
        "route": st.none() | texts,
        "certificate": st.none() | texts,
        "caller_certificate": st.none() | texts,
        "facts": facts,
    }
)


def key_of_request(request, secret=b"s" * 32):
    fields = dict(request)
    client = Client(fields.pop("client"), frozenset(), frozenset(), None, None)
    credential = Credential(fields.pop("kind"), fields.pop("value"))
    read = fields.pop("facts")
    return cache_key(secret, client, Ask(credential=credential, **fields), credential, read)


def meaning(request):
    """What makes two requests the same: sets without order, everything else as it is."""
    sets = {name: frozenset(request[name]) for name in ("audiences", "resources")}
    scopes = None if request["scopes"] is None else frozenset(request["scopes"])
    return request | sets | {"scopes": scopes}


@given(requests, requests)
@settings(max_examples=200)
def test_two_requests_share_a_key_if_and_only_if_they_mean_the_same(one, other):
    assert (key_of_request(one) == key_of_request(other)) == (meaning(one) == meaning(other))


@given(requests, st.data())
@settings(max_examples=200)
def test_changing_any_one_input_changes_the_key(request, data):
    """CA-01."""
    name = data.draw(st.sampled_from(sorted(request)))
    other = request | {name: data.draw(requests)[name]}
    assert (key_of_request(request) == key_of_request(other)) == (meaning(request) == meaning(other))


@given(requests, st.randoms(use_true_random=False))
def test_the_order_and_repetition_of_sets_do_not_count(request, random):
    """CA-02."""
    shuffled = dict(request)
    for name in ("audiences", "resources", "scopes"):
        if request[name] is not None:
            again = [*request[name], *request[name][:1]]
            random.shuffle(again)
            shuffled[name] = tuple(again)
    assert key_of_request(request) == key_of_request(shuffled)


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": "other-gateway"},
        {"value": "header.payload.Signature"},  # lesson 3.1: a good signature with another payload
        {"value": "header.other.signature"},
        {"token_type": TYPE_JWT},
        {"door": "forward_auth"},
        {"audiences": ("billing",)},
        {"audiences": ("orders", "billing")},
        {"audiences": (), "resources": ("orders",)},
        {"scopes": ("write",)},
        {"scopes": ()},
        {"scopes": None},
        {"requested_type": TYPE_JWT},
        {"actor": Credential("type", "token")},
        {"route": "orders-read"},
        {"route": ""},
        {"certificate": "thumbprint"},
        {"caller_certificate": "thumbprint"},
        {"certificate": ""},
        {"facts": (("method", "GET"),)},
        {"facts": (("method", "POST"),)},
        {"secret": b"t" * 32},
    ],
    ids=str,
)
def test_each_input_of_the_decision_is_in_the_key(key_of, change):
    """CA-01. Lesson 3.1 (heimdall #3454: forwarded headers were not part of the key)."""
    keys = {key_of(), key_of(**change), key_of(facts=(("ip", "10.0.0.1"),))}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"audiences": ("a,b", "c")}, {"audiences": ("a", "b,c")}),
        ({"audiences": ("a", "b"), "resources": ("c",)}, {"audiences": ("a",), "resources": ("b", "c")}),
        ({"facts": (("ab", "c"),)}, {"facts": (("a", "bc"),)}),
        (
            {"client_id": "a1", "token_type": "b", "value": "ccccccc1:z"},
            {"client_id": "a", "token_type": "b10:ccccccc", "value": "z"},
        ),
        ({"scopes": None, "route": "-"}, {"scopes": ("-",), "route": None}),
    ],
    ids=str,
)
def test_no_text_can_stand_for_a_separator(key_of, one, other):
    """CA-02. Lesson 3.1 (Oathkeeper joins with `|`, heimdall without lengths)."""
    assert key_of(**one) != key_of(**other)


def test_every_text_that_can_arrive_makes_a_key(key_of):
    assert len({key_of(value=value) for value in ("\ud800", "\udc80", "é", "\x00", "", "a" * 70_000)}) == 6


# --- a hit -------------------------------------------------------------------------------------------------------


def test_a_kept_token_is_found_again_and_says_so(world, issue):
    made = world.fill(issue)
    found = world.find()
    assert (made.cached, found.cached) == (False, True)
    assert (found.token, found.jti, found.expires_at) == (made.token, made.jti, made.expires_at)


def move_part(world, index):
    world.parts = tuple(part + "'" if n == index else part for n, part in enumerate(world.parts))


@pytest.mark.parametrize(
    "change",
    [
        lambda world: move_part(world, 0),
        lambda world: move_part(world, 1),
        lambda world: move_part(world, 2),
        lambda world: setattr(world, "parts", (*world.parts, "route")),
        lambda world: setattr(world, "parts", world.parts[:-1]),
        lambda world: world.keys.gone.add(("idp", "proof-1")),
        lambda world: world.keys.gone.add("kid-1"),
        lambda world: setattr(world, "now", NOW + 270),
    ],
    ids=["client", "source", "audience", "another part", "a part less", "issuer's key", "our key", "life"],
)
def test_the_change_of_any_one_dependency_is_a_miss(world, issue, change):
    """CA-07."""
    world.fill(issue)
    assert world.find() is not None
    change(world)
    assert world.find() is None


def test_keys_that_did_not_make_the_token_may_come_and_go(world, issue):
    world.fill(issue)
    world.keys.gone |= {"kid-0", ("idp", "proof-0"), ("other-idp", "proof-1")}
    assert world.find() is not None


def test_a_kind_without_an_issuers_key_asks_for_none(world, issue):
    world.fill(lambda: issue(proof_key=None))
    world.keys.gone.add(("idp", None))
    assert world.find() is not None


def test_a_token_for_a_key_that_its_backend_took_back_is_void(world, issue):
    """The recipient's key is a cause like any other: nobody may be able to decrypt it any more."""
    world.fill(lambda: issue(recipient=("billing", "thumb")))
    assert world.find() is not None
    world.keys.gone.add(("ledger", "thumb"))
    assert world.find() is not None
    world.keys.gone.add(("billing", "thumb"))
    assert world.find() is None


def test_what_was_revoked_is_no_hit(world, issue):
    """CA-07, RV-06."""
    world.fill(lambda: issue(subject="mallory"))
    assert world.find() is not None
    world.keys.gone.add("subject:alice")
    assert world.find() is not None
    world.keys.gone.add("subject:mallory")
    assert world.find() is None


def test_a_cache_that_cannot_ask_for_revocations_hands_nothing_out(world, issue):
    world.cache = TokenCache(b"s" * 32, world.memory, world.keys.published)
    world.fill(issue)
    assert world.find() is None


def test_where_it_cannot_be_told_what_is_revoked_the_refusal_is_handed_on(world, issue, refused):
    def unknown(*_):
        raise Refusal(STATE_UNAVAILABLE, why="too old")

    world.fill(issue)
    world.cache._unrevoked = unknown
    with refused(STATE_UNAVAILABLE):
        world.find()


def test_a_cache_that_knows_no_recipients_keeps_no_token_for_one(world, issue):
    world.cache = TokenCache(b"s" * 32, world.memory, world.keys.published, unrevoked=world.keys.unrevoked)
    world.fill(lambda: issue(recipient=("billing", "thumb")))
    assert world.find() is None


dependencies = st.fixed_dictionaries(
    {
        "parts": st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple),
        "proof_gone": st.booleans(),
        "kid_gone": st.booleans(),
        "later": st.integers(0, 400),
    }
)


@given(dependencies, st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple), st.integers(0, 400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_hit_needs_every_dependency_as_it_was(world, issue, after, parts, life):
    world.keys.gone.clear()
    world.now, world.parts = NOW, parts
    key = secrets.token_bytes(32)
    world.fill(lambda: issue(until=NOW + life), key)
    world.now, world.parts = NOW + after["later"], after["parts"]
    world.keys.gone |= ({("idp", "proof-1")} if after["proof_gone"] else set()) | (
        {"kid-1"} if after["kid_gone"] else set()
    )
    current = parts == after["parts"] and not after["proof_gone"] and not after["kid_gone"] and after["later"] < life
    assert (world.find(key) is not None) == current


def grant_and_principal(*, min_remaining, fresh_until, keep=True, proof_key="proof-1"):
    grant = Grant(
        client_id="c",
        subject="s",
        aud=("a",),
        scopes=None,
        claims={},
        headers={},
        act={},
        typ="at+jwt",
        algorithm="ES256",
        ttl=300.0,
        not_after=NOW + 1000,
        fresh_until=fresh_until,
        min_remaining=min_remaining,
        max_token_bytes=3000,
        keep=keep,
    )
    facts = (
        "issuer",
        "audience",
        "reach",
        "expires_at",
        "not_before",
        "issued_at",
        "since",
        "auth_time",
        "fresh_until",
        "confirmation",
    )
    nothing = dict.fromkeys((*facts, "confirmation", "act", "may_act", "acr", "amr", "jti"), NOT_APPLICABLE)
    principal = Principal(kind="jwt", source="idp", subject="s", proof_key=proof_key, attributes={}, **nothing)
    return principal, grant


@pytest.mark.parametrize(
    ("min_remaining", "fresh_until", "until"),
    [(30.0, NOW + 1000, NOW + 270), (30.0, NOW + 100, NOW + 100), (0.0, NOW + 1000, NOW + 300)],
)
def test_a_token_is_kept_until_too_little_life_is_left_or_its_causes_are_stale(
    issue, min_remaining, fresh_until, until
):
    """CA-03."""
    issued, _ = issue(exp=NOW + 300)
    principal, grant = grant_and_principal(min_remaining=min_remaining, fresh_until=fresh_until)
    assert Causes.of([(PRESENTED, principal)], grant, issued, NOTHING) == Causes(
        (("idp", "proof-1"),), "kid-1", until, keep=True, revocable=NOTHING
    )


def test_an_encrypted_token_depends_on_its_backends_key(issue):
    issued, _ = issue()
    principal, grant = grant_and_principal(min_remaining=30.0, fresh_until=NOW + 1000)
    causes = Causes.of(
        [(PRESENTED, principal)], replace(grant, recipient="billing"), replace(issued, recipient="thumb"), NOTHING
    )
    assert causes.recipient == ("billing", "thumb")


def test_a_kind_that_has_no_issuers_key_depends_on_none(issue):
    issued, _ = issue()
    principal, grant = grant_and_principal(
        min_remaining=30.0, fresh_until=NOW + 1000, keep=False, proof_key=NOT_APPLICABLE
    )
    causes = Causes.of([(PRESENTED, principal)], grant, issued, NOTHING)
    assert (causes.proofs, causes.keep) == ((), False)


def test_a_door_cannot_change_what_the_next_one_gets(world, issue):
    world.fill(issue)
    with pytest.raises(TypeError):
        world.find().headers["X-User-ID"] = "admin"


# --- what is not kept --------------------------------------------------------------------------------------------


def test_a_token_that_may_not_be_kept_is_made_anew_each_time(world, issue):
    """CA-06."""
    made = [world.fill(lambda: issue(keep=False)) for _ in range(3)]
    assert len({issued.jti for issued in made}) == 3
    assert (world.find(), len(world.memory)) == (None, 0)


def test_a_token_whose_life_is_over_when_it_is_made_is_not_kept(world, issue):
    world.fill(lambda: issue(until=NOW))
    assert len(world.memory) == 0


def test_time_that_passed_in_the_making_counts(world, issue):
    def make():
        world.now += 300
        return issue()

    world.fill(make)
    assert len(world.memory) == 0


def test_a_refusal_is_not_remembered(world, issue):
    """CA-08."""

    def refuse():
        raise Refusal(SOURCE_UNREACHABLE)

    with pytest.raises(Refusal):
        world.fill(refuse)
    assert world.fill(issue).cached is False
    assert world.cache._flights == {}


# --- many at once ------------------------------------------------------------------------------------------------


class Crowd:
    """Threads that ask for the same token at the same time, while the first to make it is held up."""

    def __init__(self, world, number):
        self.world = world
        self.number = number
        self.calls = []
        self.results = []
        self.refusals = []
        self.faults = []
        self.release = threading.Event()

    def run(self, make, *, makers=1):
        """Let go once `makers` are at it and all the others wait."""

        def held():
            self.calls.append(threading.get_ident())
            assert self.release.wait(60)
            return make()

        def ask():
            try:
                self.results.append(self.world.fill(held))
            except Refusal as refusal:
                self.refusals.append(refusal)
            except Exception as fault:  # noqa: BLE001 - the test looks at it
                self.faults.append(fault)

        threads = [threading.Thread(target=ask) for _ in range(self.number)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(self.calls) >= makers and self.waiting() >= self.number - makers, every=0.001)
        self.release.set()
        for thread in threads:
            thread.join(60)
        return self

    def waiting(self):
        flights = list(self.world.cache._flights.values())
        return sum(len(flight.landed._cond._waiters) for flight in flights)


def test_the_same_request_at_the_same_time_is_made_once(world, issue):
    """Lesson C.1."""
    crowd = Crowd(world, 20).run(issue)
    assert len(crowd.calls) == 1
    assert len({issued.jti for issued in crowd.results}) == 1
    assert sorted(issued.cached for issued in crowd.results) == [False] + [True] * 19


@pytest.mark.parametrize("reason", [SOURCE_UNREACHABLE, BAD_SIGNATURE], ids=lambda reason: reason.name)
def test_a_refusal_is_shared_by_all_who_wait_for_it(world, reason):
    def refuse():
        raise Refusal(reason, why="because")

    crowd = Crowd(world, 20).run(refuse)
    assert len(crowd.calls) == 1  # a dead source is not tried by each of them in turn
    assert [(refusal.reason, refusal.facts) for refusal in crowd.refusals] == [(reason, {"why": "because"})] * 20
    assert len(set(map(id, crowd.refusals))) == 20  # one object for all would carry one caller's traceback to others


def test_those_who_wait_try_for_themselves_when_the_maker_breaks(world, issue):
    first = []

    def break_once():
        if not first:
            first.append(True)
            raise RuntimeError("ours")
        return issue()

    crowd = Crowd(world, 5).run(break_once)
    assert len(crowd.faults) == 1
    assert len(crowd.results) == 4


def test_what_may_not_be_kept_is_not_shared_with_those_who_wait(world, issue):
    crowd = Crowd(world, 5).run(lambda: issue(keep=False))
    assert len({issued.jti for issued in crowd.results}) == 5
    assert not any(issued.cached for issued in crowd.results)


def test_nobody_waits_longer_than_the_patience_for_somebody_else(world, issue):
    """Lesson C.1."""
    world.cache._patience = 0.02
    crowd = Crowd(world, 3).run(issue, makers=3)
    assert len(crowd.calls) == 3
    assert len({issued.jti for issued in crowd.results}) == 3


def test_no_more_than_a_few_wait_at_once_and_the_others_go_their_own_way(world, issue):
    world.cache.waiters = Bulkhead(2)
    crowd = Crowd(world, 6).run(issue, makers=4)
    assert len(crowd.calls) == 4
    assert len({issued.jti for issued in crowd.results}) == 4
    assert world.cache.waiters.free == 2  # the places are free again


def test_who_waits_judges_the_token_by_the_keys_of_that_moment(world, issue):
    def make():
        world.keys.gone.add("kid-1")
        return issue()

    crowd = Crowd(world, 2).run(make)
    assert len(crowd.calls) == 2  # the second did not take a token of a key that had gone


def test_another_revision_does_not_wait_for_the_old_ones_token(world, issue):
    started, release = threading.Event(), threading.Event()

    def slow():
        started.set()
        assert release.wait(60)
        return issue()

    old = threading.Thread(target=world.cache.fill, args=(KEY, ("old",), world.keys, world.clock, slow))
    old.start()
    assert started.wait(60)
    new = world.cache.fill(KEY, ("new",), world.keys, world.clock, issue)
    release.set()
    old.join(60)
    assert new.cached is False


def test_a_flight_that_landed_just_before_is_not_flown_again(world, issue):
    first = world.fill(issue)
    again = world.fill(lambda: pytest.fail("there is a token already"))
    assert (again.jti, again.cached) == (first.jti, True)


# --- memory ------------------------------------------------------------------------------------------------------


def test_the_bound_holds_in_real_memory(issue):
    bound = 2_000_000
    memory = Memory(bound)
    world_keys = type("Keys", (), {"key_current": staticmethod(lambda *_: True)})()
    cache = TokenCache(b"s" * 32, memory, lambda *_: True, unrevoked=lambda *_: True)
    sample, causes = issue()
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(2500):
            text = f"{number:08d}"
            size = 200 + number * 37 % 2000
            issued = replace(
                sample,
                subject="user " + text,
                token=text + "t" * size,
                jti=text * 2,
                expires_at=int(NOW) + 100_000 + number,
                scopes=tuple(f"scope:{text}:{n}" for n in range(number % 5)),
                headers={"X-User-ID": text, "X-Roles": "r" * (number % 300) + text},
            )
            ours = replace(causes, until=NOW + 1000 + number)
            cache.fill(
                secrets.token_bytes(32), ("c", "s", "a"), world_keys, lambda: NOW, lambda i=issued, c=ours: (i, c)
            )
        del issued, ours
        gc.collect()
        taken, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(memory) < 2500  # it was full
    assert memory.size <= bound
    assert 0.6 * bound < taken <= bound


# --- settings ----------------------------------------------------------------------------------------------------


def test_the_settings_have_the_contracts_defaults():
    defaults = CacheSettings()
    assert (defaults.memory, defaults.min_remaining) == (64_000_000, None)
    written = CacheSettings.model_validate({"memory": "16MB", "min_remaining": "20s"})
    assert (written.memory, written.min_remaining) == (16_000_000, 20.0)


@pytest.mark.parametrize("wrong", [{"memory": 64}, {"memory": "0MB"}, {"min_remaining": 30}, {"shared": "redis"}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        CacheSettings.model_validate(wrong)
