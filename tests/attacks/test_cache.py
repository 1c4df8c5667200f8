"""An answer from the cache is given to the same request only, while all that made it stands (lessons 3.1 and 3.2)."""

import secrets
import time

import pytest
from harness import ISSUER, JWT, b64, in_time, unb64

REQUESTED_JWT = {"requested_token_type": JWT}


@pytest.fixture(scope="module")
def warm(world):
    """Ask twice at the token door and twice at forward-auth: each second answer comes from the cache."""

    def ask(token, **changes):
        answers = []
        for send in (world.doors.at_token, world.doors.at_forward):
            first, second = send(token, **changes), send(token, **changes)
            assert (first.status, second.status) == (200, 200)
            assert (is_cached(world, first), is_cached(world, second)) == (False, True)
            assert first.token == second.token
            answers.append(first)
        return answers

    return ask


def fresh(world, **changes):
    """A good token like no other: RS256 gives the same text for the same claims in the same second."""
    return world.first.token(**{"jti": secrets.token_hex(8), **changes})


def is_cached(world, answer):
    return world.doors.event(answer)[0]["cached"]


def test_a_good_signature_under_changed_claims_is_no_hit(world, warm):
    """Lesson 3.1 (WSO2 01a4b093: the cache of valid tokens was keyed by the signature alone)."""
    token = fresh(world, jti="one")
    warm(token)
    header, _, signature = token.split(".")
    for changes in ({"sub": "root"}, {"scope": "orders:write"}, {"exp": 4_000_000_000}, {"jti": "two"}):
        changed = b64({**world.first.claims(jti="one"), **changes})
        world.doors.refuse(f"{header}.{changed}.{signature}", "bad_signature")


def test_the_same_claims_under_another_signature_or_header_are_no_hit(world, warm):
    """Lesson 3.1, lesson 2.11 (CVE-2026-35039 fast-jwt: keys of the cache collided)."""
    token = fresh(world)
    warm(token)
    header, claims, signature = token.split(".")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    world.doors.refuse(f"{header}.{claims}.{flipped}", "bad_signature")
    world.doors.refuse(f"{header}.{claims}.{b64(unb64(signature)[:-1])}", "bad_signature")
    other = b64({"alg": "RS256", "typ": "JWT", "kid": "rsa-1"})
    assert other != header
    world.doors.refuse(f"{other}.{claims}.{signature}", "bad_signature")
    world.doors.refuse(f"{b64({'alg': 'none'})}.{claims}.", "bad_algorithm")


def test_the_same_jti_of_two_issuers_is_two_tokens(world, warm):
    """Lesson 3.1 (WSO2: keyed by `jti`, so that two issuers collide)."""
    names = {}
    for provider in (world.first, world.second):
        at_token, _ = warm(provider.token(jti="same", sub="alice"))
        names[provider.issuer] = world.service.verified(at_token.token)["sub"]
    assert names == {"https://first.example": "first|alice", "https://second.example": "second|alice"}


def test_another_client_gets_a_token_of_its_own(world, warm):
    """Lesson 3.1, TE-27: who asks is part of what is asked."""
    token = fresh(world)
    warm(token)
    for send in (world.doors.at_token, world.doors.at_forward):
        answer = send(token, client="twin")
        assert not is_cached(world, answer)
        claims = world.service.verified(answer.token)
        assert (claims["client_id"], claims["act"]) == ("twin", {"sub": "twin", "iss": ISSUER})


def test_a_warm_cache_serves_nobody_who_does_not_prove_itself(world, warm):
    """Lesson 3.1: the caller is proven first, on every call."""
    token = fresh(world)
    warm(token)
    for changes in ({"secret": "wrong"}, {"client": "nobody"}, {"client": "asleep"}, {"client": "twin", "secret": "x"}):
        for send in (world.doors.at_token, world.doors.at_forward):
            world.doors.refused(send(token, **changes), "client_refused", token)
    for send in (world.doors.at_token, world.doors.at_forward):
        world.doors.refused(send(token, client="narrow"), "no_consent", token)


def test_another_audience_gets_a_token_of_its_own(world, warm):
    """Lesson 3.1 (flux pkg #1231: the audience was not part of the key)."""
    token = fresh(world)
    warm(token)
    for answer in (world.doors.at_token(token, audience="billing"), world.doors.at_forward(token, "/billing/1")):
        assert not is_cached(world, answer)
        claims = world.service.verified(answer.token, "billing")
        assert (claims["aud"], claims["scope"]) == ("billing", "billing:read")


def test_other_scopes_are_another_token_and_their_order_is_not(world, warm):
    """Lesson 3.1 (Oathkeeper #743: scopes were not part of the key)."""
    token = fresh(world)
    warm(token)
    narrow = world.doors.at_token(token, scope="orders:read")
    both = world.doors.at_token(token, scope="orders:read orders:write")
    turned = world.doors.at_token(token, scope="orders:write orders:read")
    assert [is_cached(world, answer) for answer in (narrow, both, turned)] == [False, False, True]
    assert world.service.verified(narrow.token)["scope"] == "orders:read"
    assert turned.token == both.token
    write = world.doors.at_forward(token, method="POST")
    assert not is_cached(world, write)
    assert world.service.verified(write.token)["scope"] == "orders:write"
    wider = world.doors.at_token(token, scope="orders:read billing:read")
    world.doors.refused(wider, "insufficient_scope", token)


def test_another_declared_or_requested_type_is_no_hit(world, warm):
    """Lesson 2.11: the requested type is part of the key, and so is what the token was declared as."""
    token = fresh(world)
    warm(token)
    assert not is_cached(world, world.doors.at_token(token, JWT))
    assert not is_cached(world, world.doors.at_token(token, **REQUESTED_JWT))
    world.doors.refused(world.doors.at_token(token, "urn:ietf:params:oauth:token-type:id_token"), "bad_type", token)


def test_one_door_does_not_answer_for_the_other(world, warm):
    token = fresh(world)
    at_token, at_forward = warm(token)
    assert at_token.token != at_forward.token
    assert world.service.verified(at_token.token)["scope"] == "orders:read orders:write"
    assert world.service.verified(at_forward.token)["scope"] == "orders:read"


def test_an_actor_token_beside_a_cached_request_is_not_dropped(world, warm):
    """TE-25, lesson 2.3: a hit for the same request without an actor would be a token of somebody else's doing."""
    token = fresh(world)
    warm(token)
    actor = {"actor_token": world.second.token(sub="robot"), "actor_token_type": JWT}
    answer = world.doors.at_token(token, **actor)
    assert world.service.verified(answer.token)["act"] == {"sub": "robot", "iss": world.second.issuer}
    head, _, signature = actor["actor_token"].split(".")
    forged = {**actor, "actor_token": f"{head}.{b64(world.second.claims(sub='root'))}.{signature}"}
    world.doors.refused(world.doors.at_token(token, **forged), "bad_signature", token)


def test_a_refusal_is_not_remembered_against_a_better_request(world, warm):
    """And a good answer does not lift a refusal."""
    token = fresh(world, scope="orders:read")
    wide = {"scope": "orders:read orders:write"}
    world.doors.refused(world.doors.at_token(token, **wide), "insufficient_scope", token)
    warm(token)
    world.doors.refused(world.doors.at_token(token, **wide), "insufficient_scope", token)


def test_no_token_outlives_what_it_was_made_of(world):
    """TE-30, lesson 3.2 (Oathkeeper, heimdall, WSO2, Pomerium, Tokenetes: exp = now + ttl)."""
    end = int(time.time()) + 100
    token = fresh(world, exp=end)
    answers = [send(token) for send in (world.doors.at_token, world.doors.at_forward) for _ in range(2)]
    assert [world.service.verified(answer.token)["exp"] for answer in answers] == [end] * 4
    left = [answer.json["expires_in"] for answer in answers[:2]]
    assert all(0 < seconds <= 100 for seconds in left)


def test_a_token_near_its_end_is_not_kept_and_after_it_refused(world):
    """Lesson 3.2 (Oathkeeper hands out cached tokens with a tenth of their life left)."""

    def used_twice(seconds):
        end = time.time() + seconds
        token = fresh(world, exp=end)
        answers = [world.doors.at_token(token) for _ in range(2)]
        return (end, token, answers) if [answer.status for answer in answers] == [200, 200] else None

    end, token, answers = in_time(used_twice, (4, 10, 30, 90))  # below the third of a life that must remain
    assert [is_cached(world, answer) for answer in answers] == [False, False]
    time.sleep(max(0.0, end - 1 - time.time()))  # the last second is none: a token has at least one
    world.doors.refuse(token, "expired")


@pytest.fixture(scope="module")
def parts():
    """What may be disabled, and the reasons at both doors from then on."""
    return {
        ("clients", "edge-gateway"): ("client_refused", "client_refused"),
        ("sources", "first"): ("unknown_issuer", "unknown_issuer"),
        ("audiences", "orders"): ("no_consent", "no_consent"),
        ("routes", "orders"): (None, "no_route"),
    }


def test_what_is_disabled_or_withdrawn_answers_nothing_from_the_cache(own_world, parts):
    """Lesson 2.6 (CVE-2026-1486, CVE-2026-1609, CVE-2026-93999 Keycloak), lesson 3.2 (CVE-2021-41230 Pomerium)."""
    world = own_world.start()
    token = fresh(world)

    def warm_again():
        for send in (world.doors.at_token, world.doors.at_forward):
            assert [send(token).status for _ in range(2)] == [200, 200]

    warm_again()
    for (section, name), (at_token, at_forward) in parts.items():
        entry = world.configuration[section][name]
        entry["enabled"] = False
        world.reload()
        if at_token is None:
            assert world.doors.at_token(token).status == 200
        else:
            world.doors.refused(world.doors.at_token(token), at_token, token)
        world.doors.refused(world.doors.at_forward(token), at_forward, token)
        entry["enabled"] = True
        world.reload()
        warm_again()
    for name, consents in (("clients", ("edge-gateway", "sources")), ("sources", ("first", "audiences"))):
        entry, key = world.configuration[name][consents[0]], consents[1]
        before, entry[key] = entry[key], entry[key][1:]
        world.reload()
        world.doors.refuse(token, "no_consent")
        entry[key] = before
    world.configuration["audiences"]["orders"]["allow"] = "identity.subject == 'first|bob'"
    world.reload()
    world.doors.refuse(token, "not_allowed")
    world.doors.accept(fresh(world, sub="bob"))
