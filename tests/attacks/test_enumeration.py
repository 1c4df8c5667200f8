"""Who may not have something cannot find out whether it is there."""

import pytest
from harness import ACCESS_TOKEN, JWT

OWN = {"date", "x-request-id"}


def seen(answer):
    """All that a caller sees of an answer but what is every answer's own."""
    own = answer.headers["x-request-id"].encode()
    headers = {name: value for name, value in answer.headers.items() if name not in OWN}
    return answer.status, headers, answer.body.replace(own, b"")


def alike(answers):
    first, *others = map(seen, answers)
    for other in others:
        assert other == first
    return first


def test_an_audience_that_is_unknown_unlisted_or_disabled_is_one_and_the_same(world):
    """TE-06, lesson 2.6: by name and by `aud`; alone, or beside one that is allowed (TE-05)."""
    token = world.first.token()
    ask = world.doors.at_token
    status, _, body = alike(
        ask(token, audience=name) for name in ("nowhere", "hidden", "asleep", "Orders", "orders ", "*", "edge-gateway")
    )
    assert (status, b'"error":"invalid_target"' in body) == (400, True)
    alike(ask(token, audience=None, resource=f"urn:{name}") for name in ("nowhere", "hidden", "orders", "asleep"))
    alike(ask(token, resource=f"urn:{name}") for name in ("nowhere", "hidden", "asleep"))


@pytest.mark.parametrize(
    "changes", [{"exp": 1}, {"aud": "x"}, {"scope": "none"}, {"iss": "https://nobody.example"}], ids=repr
)
def test_a_bad_token_tells_no_more_of_an_audience(world, changes):
    """The target is judged before the credential, so that what is wrong with one says nothing of the other."""
    token = world.first.token(**changes)
    for declared in (ACCESS_TOKEN, JWT, "urn:unknown"):
        status, _, body = alike(world.doors.at_token(token, declared, audience=name) for name in ("nowhere", "hidden"))
        assert (status, b"no_consent" in body) == (400, True)


def test_an_audience_of_another_client_is_like_none_at_forward_auth(world):
    token = world.first.token()
    for send in (lambda path: world.doors.at_forward(token, path), lambda path: world.doors.at_forward(None, path)):
        alike(send(path) for path in ("/hidden/1", "/asleep/1"))
    status, _, body = alike(world.doors.at_forward(token, path) for path in ("/hidden/1", "/asleep/1"))
    assert (status, b"no_consent" in body) == (403, True)


def test_a_client_that_is_unknown_disabled_or_wrong_is_one_and_the_same_at_the_token_door(world):
    """EP-07, RFC 6749 §2.3.1."""
    token = world.first.token()
    ask = world.doors.at_token
    status, headers, _ = alike(
        [
            ask(token, client="nobody", secret="wrong"),
            ask(token, client="edge-gateway", secret="wrong"),
            ask(token, client="asleep", secret="wrong"),
            ask(token, client="asleep"),  # its right secret
            ask(token, client="twin", secret="narrow-secret-for-tests-only"),  # another client's
            ask(token, client="x" * 128, secret="wrong"),
        ]
    )
    assert status == 401
    assert headers["www-authenticate"].startswith("Basic")


def test_a_client_that_is_unknown_disabled_or_wrong_is_one_and_the_same_at_forward_auth(world):
    """Design §5.3: one and the same 403, without a challenge, whatever is asked about and with which credential."""
    token, ask = world.first.token(), world.doors.at_forward
    status, headers, _ = alike(
        [
            ask(token, client="nobody", secret="wrong"),
            ask(token, client="edge-gateway", secret="wrong"),
            ask(token, client="asleep"),
            ask(token, client="token-only"),  # it has no profile
            ask(token, client="twin", secret="narrow-secret-for-tests-only"),
            ask(token, "/nowhere", client="edge-gateway", secret="wrong"),
            ask(token, "/../x", client="nobody", secret="wrong"),
            ask(None, client="nobody", secret="wrong"),
            ask("junk", client="twin", secret="wrong"),
        ]
    )
    assert status == 403
    assert "www-authenticate" not in headers


def test_what_follows_a_wrong_secret_is_not_looked_at(world):
    """The caller is proven first: its request tells nothing before, not even that it is malformed."""
    token = world.first.token()
    alike(
        [
            world.doors.at_token(token, client="twin", secret="wrong"),
            world.doors.at_token(token, client="twin", secret="wrong", audience="nowhere"),
            world.doors.at_token("junk", "urn:unknown", client="twin", secret="wrong", scope='"'),
            world.doors.at_token(None, None, client="twin", secret="wrong", grant_type="password"),
        ]
    )


def test_a_source_that_is_disabled_is_like_none(own_world):
    """Lesson 2.6: whether it is configured at all is not told."""
    own_world.configuration["sources"]["second"]["enabled"] = False
    world = own_world.start()
    pairs = [(world.second.token(), world.second.token(iss="https://nobody.example"))]
    pairs.append((world.second.token(exp=1), world.second.token(iss="https://nobody.example", exp=1)))
    for disabled, unknown in pairs:
        for send in (world.doors.at_token, world.doors.at_forward):
            _, _, body = alike([send(disabled), send(unknown)])
            assert b"unknown_issuer" in body or b"invalid_credential" in body
    assert world.second.fetches == 0


def test_a_source_that_a_client_does_not_list_tells_nothing_of_the_token(world):
    """Lesson 2.1, lesson 2.4 (Dex GHSA-7qjx-gp9h-65qj): consent is judged before any key is fetched or tried."""
    first, head = world.first, {"client": "narrow", "audience": "billing"}
    alike(
        world.doors.at_token(token, **head)
        for token in (first.token(), first.token(exp=1), first.token()[:-8] + "AAAAAAAA", first.token(aud="x"))
    )
    status, _, body = alike(
        world.doors.at_forward(token, "/billing/1", client="narrow") for token in (first.token(), first.token(exp=1))
    )
    assert (status, b"no_consent" in body) == (403, True)


def test_a_source_that_does_not_list_the_audience_is_refused_at_both_doors(world):
    """Lesson 2.1 (CVE-2026-56668 ZITADEL), the second part of the consent; before any look at the signature."""
    for token in (world.file.token(), world.file.token()[:-8] + "AAAAAAAA"):
        world.doors.refused(world.doors.at_token(token, audience="billing"), "no_consent", token)
        world.doors.refused(world.doors.at_forward(token, "/billing/1"), "no_consent", token)
    world.doors.accept(world.file.token())


def test_a_scope_that_is_unknown_is_like_one_that_is_not_granted(world):
    """TE-07, lesson 2.1 (scope must be a part of what subject, source and audience have)."""
    token = world.first.token(scope="orders:read billing:read")
    alike(world.doors.at_token(token, scope=scope) for scope in ("orders:write", "orders:admin", "billing:read", "x"))
