"""An issuer's keys under load: at a cold start, at a reload, and while made-up keys are asked for all the time."""

import json
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
import yaml
from harness import ACCESS_TOKEN, CLIENT, GRANT, ISSUER, Idp, Key, minimal, wait_for
from web import Web

from sts.clients.assertion import ASSERTION_TYPE

AT_ONCE = 64
WITHIN_S = 5.0


@pytest.fixture
def idps():
    made = []

    def make(issuer, takes=0.0):
        made.append(Idp(issuer))
        made[-1].answer = lambda handler, own=made[-1]: (own.over.wait(takes), handler.reply({"keys": own.keys}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def configured(first, *more, **settings):
    """A configuration that believes all of these issuers."""
    document = yaml.safe_load(minimal(first))
    source = document["sources"].pop("corporate-idp")
    source.update({"audiences": ["*"], "namespace": ""})
    for number, idp in enumerate((first, *more)):
        other = {"issuer": idp.issuer, "jwks_uri": idp.url, "namespace": f"n{number}"}
        document["sources"][f"idp-{number}"] = {**source, **other}
    document["clients"][CLIENT]["sources"] = ["*"]
    return document | settings


def burst(service, idp):
    """The statuses of many requests at once, each with a token of its own."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tokens = [idp.token(jti=f"{idp.issuer}{number}") for number in range(AT_ONCE)]
        return [one.status for one in pool.map(service.exchange, tokens)]


def test_a_worker_has_the_keys_of_its_issuers_before_it_takes_requests_and_waits_for_no_dead_one(idps, make_service):
    good, dead = idps("https://good.example.com", 0.1), idps("https://dead.example.com", 60.0)
    service = make_service(json.dumps(configured(good, dead, workers=1)))
    assert good.fetches == 1
    assert burst(service, good) == [200] * AT_ONCE
    assert good.fetches == 1


def test_after_a_reload_the_keys_of_a_new_issuer_are_there_before_its_first_token(idps, make_service):
    first, second = idps("https://first.example.com"), idps("https://second.example.com", 0.1)
    service = make_service(json.dumps(configured(first, workers=2)))
    service.write(json.dumps(configured(first, second, workers=2)))
    assert service.reload()["event"] == "reloaded"
    assert second.fetches == 2
    assert burst(service, second) == [200] * AT_ONCE


def test_under_a_flood_of_made_up_keys_a_rotation_is_accepted_within_five_seconds(idps, make_service):
    """JK-08. Until then the answer is trouble of ours, with Retry-After; a key that is not there is unknown."""
    idp = idps("https://idp.example.com")
    service = make_service(json.dumps(configured(idp, workers=1)))
    over, numbers, answers = threading.Event(), iter(range(10**9)), []

    def flood():
        while not over.is_set():
            answers.append(service.exchange(idp.token(header={"kid": f"made-up-{next(numbers)}"})))

    with ThreadPoolExecutor(3) as pool:
        try:
            flooding = [pool.submit(flood) for _ in range(3)]
            wait_for(lambda: idp.fetches > 4, every=0.05)  # the cool-down has reached its bound
            rotated = Key("rotated", "ES256")
            idp.keys = [rotated.jwk]
            published, held = time.monotonic(), 0
            while (answer := service.exchange(idp.token(rotated))).status != 200:
                assert (answer.status, answer.reason) == (503, "source_unreachable"), answer
                assert int(answer.headers["retry-after"]) > 0
                held = time.monotonic() - published
                time.sleep(0.05)
            assert held < WITHIN_S
        finally:
            over.set()
        for one in flooding:
            one.result()
    assert {answer.reason for answer in answers} == {"source_unreachable", "unknown_key"}
    whys = {event["facts"]["why"] for event in service.events() if event["outcome"] == "refused"}
    assert any("fetched again" in why for why in whys)


@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "refuses"])
def test_a_client_whose_keys_cannot_be_had_is_refused_as_an_unknown_one_is(idps, make_service, hangs):
    """EP-07: who has proven nothing learns nothing; operators are told everywhere else."""
    idp = idps("https://idp.example.com")
    silent = Web(lambda handler: handler.owner.over.wait(60))
    if not hangs:
        silent.close()
    try:
        document = configured(idp, workers=1)
        given = {"auth": "private_key_jwt", "jwks_uri": silent.url + "/jwks", "audiences": ["*"], "sources": ["*"]}
        document["clients"]["signer"] = given
        service = make_service(json.dumps(document))
        seen = [ask(service, idp, name) for name in ("signer", "stranger") for _ in range(3)]
        bodies = {(answer.status, answer.body, tuple(sorted(set(answer.headers) - {"date"}))) for answer in seen}
        assert {status for status, _, _ in bodies} == {401}
        assert len(bodies) == 1
        told = [event["facts"] for event in service.events() if event.get("client") == "signer"]
        assert all(facts["fault"] == "source_unreachable" for facts in told)
        assert len(told) == 3
        wait_for(lambda: service.get("/readyz").json["degraded"].get("client signer"))
        metric = 'sts_jwks_fetches_total{outcome="failed",source="client signer"}'
        assert metric in service.get("/metrics").body.decode()
        assert '"source": "client signer"' in service.log()
    finally:
        if hangs:
            silent.close()


def ask(service, idp, name):
    """What is answered to an assertion that proves nothing."""
    now = int(time.time())
    claims = {"iss": name, "sub": name, "aud": ISSUER, "exp": now + 60, "jti": str(time.monotonic_ns())}
    assertion = jwt.encode(claims, Key("signer", "ES256").private, "ES256", {"kid": "signer"})
    form = {"grant_type": GRANT, "subject_token": idp.token(), "subject_token_type": ACCESS_TOKEN}
    form |= {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion, "audience": "orders"}
    body = urllib.parse.urlencode(form).encode()
    return service.request("POST", "/token", {"Content-Type": "application/x-www-form-urlencoded"}, body)
