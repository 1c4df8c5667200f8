import json
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from harness import b64, wait_for
from opaque import AS_ISSUER, source
from pydantic import ValidationError

from sts.cache.memory import Memory
from sts.credentials.api_key import ApiKeySourceSettings
from sts.credentials.introspected import NEGATIVE_TTL, Answers, Introspections, Stores
from sts.credentials.introspection import (
    MAX_TOKEN,
    IntrospectionKind,
    IntrospectionSource,
    IntrospectionSourceSettings,
)
from sts.credentials.kind import Services
from sts.credentials.registry import build_sources
from sts.errors import BAD_TYPE, MALFORMED, REVOKED, SOURCE_UNREACHABLE, TOO_LARGE, UNKNOWN_ISSUER, Refusal
from sts.model import NOT_APPLICABLE, TYPE_ACCESS_TOKEN, TYPE_JWT, Credential, Presented
from sts.options import Place
from sts.resilience.bulkhead import Bulkhead, FullError
from sts.trust.introspection import Introspection

NOW = 1_800_000_000.0
ACTIVE = {
    "active": True,
    "iss": AS_ISSUER,
    "sub": "alice",
    "aud": "api-gateway",
    "scope": "orders:read",
    "client_id": "web",
    "token_type": "Bearer",
    "exp": NOW + 600,
    "iat": NOW,
}


class Somewhere:
    """Where a source says that its server is; nobody asks there."""

    url = "https://as.example.com"


@pytest.fixture
def settings(tmp_path):
    def read(**changed):
        return IntrospectionSourceSettings.model_validate(source(Somewhere, **changed), context=Place(tmp_path, {}))

    return read


@pytest.fixture
def stores():
    """Where answers are kept, and how many may wait for each other's."""
    return Stores(Memory(100_000), Memory(10_000), Bulkhead(5))


@pytest.fixture
def server():
    """A server by its answers alone; it counts the questions."""

    class Server:
        trouble = ""

        def __init__(self):
            self.asked = []
            self.said = dict(ACTIVE)

        def ask(self, token):
            self.asked.append(token)
            if isinstance(self.said, Exception):
                raise self.said
            return self.said if isinstance(self.said, bytes) else json.dumps(self.said).encode()

    return Server()


@pytest.fixture
def at_work(settings, server, stores):
    def make(name="legacy", **changed):
        written = settings(**changed)
        return IntrospectionSource(name, written, server, Answers(server.ask, written.cache_ttl, stores))

    return make


def presented(token="op_1"):
    return Presented("introspection", "legacy", TYPE_ACCESS_TOKEN, token)


@pytest.fixture
def prove(at_work, server):
    """Prove a token of which the server says the usual, with changes; `...` leaves a member out."""

    def prove(now=NOW, source=None, **changes):
        said = {**ACTIVE, **changes}
        server.said = {name: value for name, value in said.items() if value is not ...}
        return (source or at_work()).prove(presented(), now)

    return prove


# Settings


def test_the_smallest_source_has_safe_defaults(settings):
    read = settings()
    assert (read.cache_ttl, read.filters_by_caller, read.high_entropy, read.match) == (30, False, False, None)
    assert read.audience == ("api-gateway",)
    assert read.enabled


def test_the_secret_is_shown_nowhere(settings):
    read = settings(client_secret="s3cret-of-ours")
    assert "s3cret" not in repr(read) + repr(read.server("legacy")) + read.model_dump_json()


@pytest.mark.parametrize(
    "wrong",
    [
        {"audience": None},
        {"filters_by_caller": True},
        {"audience": None, "filters_by_caller": False},
        {"audience": []},
        {"endpoint": "http://as.example.com/introspect"},
        {"endpoint": None},
        {"client_secret": None},
        {"client_id": ""},
        {"match": {}},
        {"match": {"prefix": ""}},
        {"match": {"prefix": "a b"}},
        {"cache_ttl": "2h"},
        {"cache_ttl": "-1s"},
    ],
)
def test_a_source_that_would_accept_too_much_is_refused(settings, wrong):
    """IN-05."""
    with pytest.raises(ValidationError):
        settings(**wrong)


# Which source a token is for


@pytest.fixture
def kind(at_work):
    def make(*prefixes, elsewhere=()):
        sources = [at_work(prefix or "rest", match={"prefix": prefix} if prefix else None) for prefix in prefixes]
        return IntrospectionKind(sources, elsewhere)

    return make


def recognised(kind, token):
    found = kind.recognise(Credential(TYPE_ACCESS_TOKEN, token))
    return None if found is None else found.source


def test_the_prefix_chooses_the_one_source_and_the_rest_is_the_one_without(kind):
    """IN-06."""
    both = kind("op_", "", "xy_")
    assert [recognised(both, token) for token in ("op_1", "xy_1", "zz_1", "op")] == ["op_", "xy_", "rest", "rest"]
    assert recognised(kind("op_"), "zz_1") is None


def test_what_begins_like_another_kinds_credential_is_never_asked_about(kind, refused):
    """IN-06: neither an API key nor the token of a disabled source reaches the source that takes the rest."""
    with refused(UNKNOWN_ISSUER):
        recognised(kind("", elsewhere=["sk_live_", "old_"]), "sk_live_abc")
    with refused(UNKNOWN_ISSUER):
        recognised(kind("", elsewhere=["sk_live_", "old_"]), "old_abc")


def test_only_access_tokens_are_read(kind):
    assert kind("").token_types == {TYPE_ACCESS_TOKEN}
    assert TYPE_JWT not in kind("").token_types


@pytest.mark.parametrize(
    "junk",
    [
        "op_\n",
        "op_ a",
        "op_é",
        "op_\x00",
        "op_%41",
        "op_=a",
        "op_a,b",
        'op_"',
        "op_a\r\nX: y",
        "op_\ud800",
        "op_ä",
        "==",
    ],
)
def test_junk_never_leaves(kind, refused, server, junk):
    """IN-07."""
    with refused(MALFORMED):
        recognised(kind("op_", ""), junk)
    assert server.asked == []


HEAD = b64({"alg": "RS256", "kid": "1"})


@pytest.mark.parametrize(
    "damaged", [f"{HEAD}..e30.c2ln", f"{HEAD}.e30", f"{HEAD}.e30.c2ln.", f"{HEAD}.", f"{HEAD}.a.b.c"]
)
def test_a_damaged_jws_never_leaves_either(kind, refused, damaged):
    """IN-06: somebody else's signature and claims may still be in it."""
    with refused(MALFORMED):
        recognised(kind(""), damaged)


@pytest.mark.parametrize("opaque", [f"{HEAD}..iv.text.tag", HEAD, "a.b", "a.b.c.d", "x.e30.c2ln"])
def test_what_only_resembles_one_is_opaque(kind, opaque):
    """Some servers hand out tokens that are encrypted to themselves."""
    assert recognised(kind(""), opaque) == "rest"


def test_a_token_that_is_too_long_never_leaves(kind, refused):
    """IN-07."""
    assert recognised(kind("op_"), "op_" + "x" * (MAX_TOKEN - 3)) == "op_"
    for length in (MAX_TOKEN - 2, 1_000_000):
        with refused(TOO_LARGE):
            recognised(kind("op_"), "op_" + "x" * length)


# What the answer says


def test_an_active_token_is_a_principal_with_every_fact(prove):
    """IN-04, MT-07."""
    cnf, act = {"jkt": "x"}, {"sub": "helper"}
    found = prove(
        nbf=NOW - 1, auth_time=NOW - 9, cnf=cnf, act=act, may_act={"sub": "gw"}, acr="mfa", amr=["pwd"], jti="j"
    )
    assert (found.kind, found.source, found.issuer, found.subject) == ("introspection", "legacy", AS_ISSUER, "alice")
    assert (found.audience, found.expires_at) == (("api-gateway",), NOW + 600)
    assert (found.not_before, found.issued_at, found.auth_time) == (NOW - 1, NOW, NOW - 9)
    assert (found.confirmation, found.act, found.may_act) == (cnf, act, {"sub": "gw"})
    assert (found.acr, found.amr, found.jti, found.proof_key) == ("mfa", ["pwd"], "j", NOT_APPLICABLE)
    assert found.fresh_until == NOW + 30
    assert found.attributes["client_id"] == "web"
    assert "active" not in found.attributes


def test_what_the_server_does_not_say_is_not_made_up(prove):
    found = prove(sub=..., aud=..., exp=..., iat=..., iss=..., scope=..., client_id=..., token_type=...)
    assert found.subject is None
    assert found.audience == ()  # which no source's audience is among
    assert found.expires_at is NOT_APPLICABLE  # the end of life is `fresh_until` and our ttl (RFC 7662 §2.2)
    assert (found.not_before, found.issued_at, found.auth_time, found.confirmation) == (None, None, None, None)
    assert found.issuer == AS_ISSUER


def test_a_server_that_filters_by_caller_need_not_name_us(prove, at_work):
    """IN-05."""
    assert prove(source=at_work(audience=None, filters_by_caller=True), aud=...).audience is NOT_APPLICABLE
    assert at_work(audience=None, filters_by_caller=True).limits.audiences == frozenset()


def test_the_answer_cannot_name_another_issuer_than_the_configured_one(prove, at_work, refused):
    """IN-04."""
    with refused(UNKNOWN_ISSUER):
        prove(iss="https://other.example.com")
    assert prove(source=at_work(issuer=None), iss="https://other.example.com").issuer is NOT_APPLICABLE


@pytest.mark.parametrize("active", ["true", "True", 1, 1.0, False, None, [True], {}, ..., "yes"])
def test_only_the_json_value_true_is_active(prove, refused, active):
    """IN-02."""
    with refused(REVOKED):
        prove(active=active)


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            {name: value}
            for name in ("exp", "nbf", "iat", "auth_time")
            for value in ("1", True, None, [], 2**60, -1e300)
        ),
        *({name: value} for name in ("iss", "sub", "jti", "client_id", "username", "acr") for value in (1, None, [])),
        *({"aud": value} for value in (1, None, {}, [1], ["api-gateway", None])),
        *({"scope": value} for value in (1, None, {}, [1])),
        *({"amr": value} for value in (1, None, [1])),
        *({name: value} for name in ("cnf", "act", "may_act") for value in ("x", None, [])),
        {"token_type": 1},
        {"token_use": None},
    ],
    ids=str,
)
def test_a_member_of_another_type_is_refused_as_in_a_jwt(prove, refused, wrong):
    """IN-04."""
    with refused(MALFORMED):
        prove(**wrong)


@pytest.mark.parametrize(
    "other",
    [
        {"token_type": "refresh_token"},
        {"token_type": "N_A"},
        {"token_type": "mac"},
        {"token_type": "DPoP"},  # without a key
        {"token_use": "refresh_token"},
        {"token_use": "ID_token"},
        {"typ": "Refresh"},
        {"typ": "Offline"},
        {"typ": "ID"},
    ],
    ids=str,
)
def test_a_token_that_is_no_access_token_is_refused(prove, refused, other):
    """IN-04."""
    with refused(BAD_TYPE):
        prove(**other)


@pytest.mark.parametrize(
    "same", [{"token_type": "bearer"}, {"token_type": "access_token"}, {"token_use": "access_token"}, {"typ": "Bearer"}]
)
def test_the_usual_names_of_an_access_token_are_taken(prove, same):
    assert prove(**same).subject == "alice"


def test_a_dpop_token_comes_with_its_key_for_admit_to_judge(prove):
    assert prove(token_type="DPoP", cnf={"jkt": "k"}).confirmation == {"jkt": "k"}


@pytest.mark.parametrize(
    "unreadable",
    [
        b'{"active": true',
        b'{"active": true, "active": true}',
        b'{"active": true, "sub": "a", "sub": "b"}',
        b'{"active": true, "x": NaN}',
        b'{"active": true, "x": 1e999}',
        b'{"active": true, "sub": "\\u0000"}',
        b'{"active": true, "x": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"active": true, "sub": "\xff"}',
        b'\xef\xbb\xbf{"active": true}',
        b"[]",
        b"{}}",
    ],
)
def test_an_answer_that_can_be_read_in_two_ways_is_none(at_work, server, refused, unreadable):
    """IN-03: trouble of the server's, no verdict, and not kept."""
    server.said = unreadable
    one = at_work()
    for _ in range(2):
        with refused(SOURCE_UNREACHABLE):
            one.prove(presented(), NOW)
    assert len(server.asked) == 2


# What is kept


def test_an_answer_is_believed_for_the_configured_time_and_no_longer(at_work, server, refused):
    """IN-08, IN-09, CA-03. Lesson C.3."""
    one = at_work(cache_ttl="20s")
    for later in (0, 10, 19.9):
        assert one.prove(presented(), NOW + later).fresh_until == NOW + 20
    assert len(server.asked) == 1
    server.said = {"active": False}
    with refused(REVOKED):
        one.prove(presented(), NOW + 20)


def test_an_answer_is_never_believed_past_the_tokens_end(at_work, server):
    """IN-08: without a question nothing would say that it has ended."""
    server.said["exp"] = NOW + 5
    one = at_work()
    one.prove(presented(), NOW)
    one.prove(presented(), NOW + 4.9)
    assert len(server.asked) == 1
    one.prove(presented(), NOW + 5)
    assert len(server.asked) == 2


def test_a_token_that_is_not_active_is_not_asked_about_again_for_a_moment(at_work, server, refused):
    """IN-10."""
    server.said = {"active": False}
    one = at_work()
    for later in (0, 1, NEGATIVE_TTL - 0.1):
        with refused(REVOKED):
            one.prove(presented(), NOW + later)
    assert len(server.asked) == 1
    server.said = ACTIVE
    assert one.prove(presented(), NOW + NEGATIVE_TTL).subject == "alice"


def test_with_a_ttl_of_nothing_each_request_asks(at_work, server, refused):
    one = at_work(cache_ttl="0s")
    for _ in range(2):
        assert one.prove(presented(), NOW).fresh_until == NOW
    server.said = {"active": False}
    for _ in range(2):
        with refused(REVOKED):
            one.prove(presented(), NOW)
    assert len(server.asked) == 4


def test_trouble_of_the_server_is_not_kept_and_a_kept_answer_outlives_it_by_nothing(at_work, server, refused):
    """IN-10, IN-12. Lesson C.1: never for a 5xx."""
    one = at_work()
    one.prove(presented(), NOW)
    server.said = Refusal(SOURCE_UNREACHABLE, why="it answered 500")
    assert one.prove(presented(), NOW + 29).subject == "alice"
    for _ in range(2):
        with refused(SOURCE_UNREACHABLE):
            one.prove(presented(), NOW + 30)
    server.said = ACTIVE
    assert one.prove(presented(), NOW + 30).subject == "alice"


def test_a_flood_of_made_up_tokens_is_bounded_and_pushes_out_no_good_one(at_work, server, stores, refused):
    """IN-10, CA-08. Lesson C.1, lesson C.3."""
    one = at_work()
    one.prove(presented("op_good"), NOW)
    server.said = {"active": False}
    for number in range(200):
        with refused(REVOKED):
            one.prove(presented(f"op_{number}"), NOW)
    assert stores.inactive.size <= stores.inactive.bound
    assert 0 < len(stores.inactive) < 100
    assert one.prove(presented("op_good"), NOW + 1).subject == "alice"
    assert server.asked.count("op_good") == 1


def test_what_one_source_knows_another_asks_for_itself(at_work, server):
    """IN-11: the answer may differ by who asks."""
    one, other = at_work(), at_work("other")
    one.prove(presented(), NOW)
    other.prove(presented(), NOW)
    assert len(server.asked) == 2


def test_no_token_stands_in_what_is_kept(at_work, stores):
    """IN-11."""
    at_work().prove(presented("op_secret"), NOW)
    assert all(b"op_secret" not in key for key in stores.active._slots)
    assert "alice" not in repr([slot.value for slot in stores.active._slots.values()])


# The same question at the same time


@pytest.fixture
def together(server, stores):
    """Prove one token in several threads at once while the server thinks; each result or refusal."""

    def together(count, one):
        release, asking, results = threading.Event(), [], []
        answer, places = server.ask, stores.waiters.free

        def slow(token):
            asking.append(token)
            release.wait(60)
            return answer(token)

        one._answers._ask = slow

        def run():
            try:
                results.append(one.prove(presented(), NOW))
            except Refusal as refusal:
                results.append(refusal.reason)

        threads = [threading.Thread(target=run) for _ in range(count)]
        threads[0].start()
        wait_for(lambda: asking)
        for thread in threads[1:]:
            thread.start()
        wait_for(lambda: len(asking) + places - stores.waiters.free == count)  # each asks, or waits for who does
        release.set()
        for thread in threads:
            thread.join()
        return results

    return together


def test_the_same_token_at_the_same_time_is_asked_about_once(at_work, server, together):
    """IN-12."""
    results = together(5, at_work())
    assert [one.subject for one in results] == ["alice"] * 5
    assert len(server.asked) == 1


def test_who_waits_shares_the_trouble_too(at_work, server, together):
    server.said = Refusal(SOURCE_UNREACHABLE, why="it answered 500")
    assert together(5, at_work()) == [SOURCE_UNREACHABLE] * 5
    assert len(server.asked) == 1


def test_a_crowd_with_one_token_is_one_question_and_who_has_no_place_to_wait_is_told_at_once(at_work, server):
    """IN-12: never a second question, however many come."""
    one, places = at_work(), Bulkhead(2)
    release, refused, proven = threading.Event(), [], []
    answer = server.ask

    def slow(token):
        release.wait(60)
        return answer(token)

    @contextmanager
    def place():
        try:
            mine = places.enter()
        except FullError:
            raise Refusal(SOURCE_UNREACHABLE) from None
        yield
        mine.leave()

    def run():
        try:
            proven.append(one.prove(presented(), NOW))
        except Refusal as refusal:
            refused.append(refusal.reason)

    one._answers._ask, one._answers._place = slow, place
    threads = [threading.Thread(target=run) for _ in range(12)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(refused) == 12 - 1 - 4 - 2)  # who asks, who may wait whatever for, who has a place
    release.set()
    for thread in threads:
        thread.join()
    assert ([found.subject for found in proven], set(refused)) == (["alice"] * 7, {SOURCE_UNREACHABLE})
    assert len(server.asked) == 1


def test_with_a_ttl_of_nothing_nobody_shares(at_work, server, together):
    assert len(together(3, at_work(cache_ttl="0s"))) == 3
    assert len(server.asked) == 3


# A reload


@pytest.fixture
def reload(settings, stores):
    """The one source at work after a reload with these settings."""
    known = Introspections(time.monotonic, stores, 2)

    def reload(**changed):
        asked = settings(**changed)
        source = IntrospectionSource("legacy", asked, *known.of(*asked.asks("legacy")))
        known.keep([asked.asks("legacy")])
        return source

    return reload


def test_a_reload_keeps_what_is_known_unless_what_shapes_an_answer_changed(reload):
    first = reload()
    same = reload(namespace="other", audience="another")
    assert same._answers is first._answers
    assert same.limits.audiences == {"another"}
    for changed in (
        {"client_secret": "new"},
        {"client_id": "new"},
        {"cache_ttl": "5s"},
        {"endpoint": "https://b.example/"},
    ):
        assert reload(**changed)._answers is not first._answers
    assert reload()._answers is not first._answers


def test_a_server_that_is_asked_no_more_has_no_connections_left(reload, monkeypatch):
    closed = []
    monkeypatch.setattr(Introspection, "close", lambda self: closed.append(self))  # noqa: PLW0108 - it must bind
    first = reload()
    reload()
    assert closed == []
    reload(client_secret="new")
    assert closed == [first._server]


def test_a_disabled_source_is_not_at_work_and_its_tokens_go_nowhere_else(settings, stores, refused):
    """IN-06."""
    keys = ApiKeySourceSettings(type="api_key", prefix="sk_", identity={"subject": "key.owner"})
    sources = {"rest": settings(), "old": settings(match={"prefix": "op_"}, enabled=False), "keys": keys}
    own = SimpleNamespace(name="own", issuer="")
    built = build_sources(sources, Services(None, None, Introspections(time.monotonic, stores, 2), None, own))
    assert set(built.by_name) == {"rest", "keys", "own"}
    kind = next(one for one in built.kinds if isinstance(one, IntrospectionKind))
    assert recognised(kind, "other") == "rest"
    for token in ("op_1", "sk_1"):
        with refused(UNKNOWN_ISSUER):
            recognised(kind, token)
