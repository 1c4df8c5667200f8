"""A real OPA behind a running service, and one that is slow, wrong or gone: nobody passes without its `true`."""

import threading
import time

import pytest
from harness import minimal, wait_for

REGO = """\
package sts

import rego.v1

default allow := false

allow if {
    input.audience == "orders"
    input.client.id == "edge-gateway"
    "accountant" in input.identity.roles
    not deletes
}

deletes if input.request.method == "DELETE"

text := "true"
"""


@pytest.fixture(scope="module")
def opa(make_opa):
    return make_opa(REGO)


@pytest.fixture
def asking(idp, configured, make_service):
    """A service whose `orders` ask the policy server at `url`."""

    def asking(url, **changes):
        wanted = {"audiences/orders/opa": True, "opa": {"url": url, "timeout": "1s"}, "workers": 1, **changes}
        return make_service(configured(minimal(idp), wanted))

    return asking


def test_a_real_opa_narrows_at_both_doors_and_whether_it_is_asked_is_the_audiences_to_say(asking, idp, opa):
    service = asking(opa.url())
    assert service.verified(service.exchange(idp.token()).token)["sub"] == "alice"
    refused = service.exchange(idp.token(roles=["intern"]))
    assert (refused.status, refused.reason) == (400, "not_allowed")
    assert service.forward(idp.token(), method="GET").status == 200
    refused = service.forward(idp.token(), method="DELETE")
    assert (refused.status, refused.headers["x-auth-reason"]) == (403, "not_allowed")
    assert service.exchange(idp.token(), "billing").status == 200
    assert "OPA" in service.events()[1]["facts"]["why"]


@pytest.mark.parametrize("rule", ["sts/text", "sts", "sts/nothing", "nowhere/at/all"])
def test_a_real_opa_that_does_not_say_true_refuses(asking, idp, opa, rule):
    assert asking(opa.url(rule)).exchange(idp.token()).reason == "not_allowed"


def test_a_real_opa_says_nothing_of_caching_so_every_request_asks_it(asking, idp, opa):
    service, token = asking(opa.url()), idp.token()
    assert [service.exchange(token).status for _ in range(3)] == [200] * 3
    assert [event["cached"] for event in service.events()] == [False] * 3


def test_a_consent_is_kept_as_long_as_the_answer_says_and_for_the_same_request_only(asking, idp, fake_opa):
    fake_opa.headers = {"Cache-Control": "max-age=3"}
    service, token = asking(fake_opa.url), idp.token()
    began = time.monotonic()
    assert service.forward(token, X_Original_Addr="10.0.0.1").status == 200
    said = last_asked = time.monotonic()
    fake_opa.says = False
    assert service.forward(token, X_Original_Addr="10.0.0.2").status == 403
    assert service.forward(token, X_Original_Addr="10.0.0.1", uri="/orders/8").status == 403
    asking = time.monotonic()
    while (answer := service.forward(token, X_Original_Addr="10.0.0.1")).status == 200:
        last_asked = asking
        time.sleep(0.05)
        asking = time.monotonic()
    assert answer.status == 403
    assert time.monotonic() - began > 2
    assert last_asked - said < 3


def test_a_slow_or_broken_opa_is_trouble_of_ours_and_told(asking, idp, fake_opa):
    service = asking(fake_opa.url, opa={"url": fake_opa.url, "timeout": "1s"})
    release = threading.Event()
    fake_opa.says = lambda _: release.wait(60)
    began = time.monotonic()
    answer = service.exchange(idp.token())
    assert (answer.status, answer.reason, "retry-after" in answer.headers) == (503, "source_unreachable", True)
    assert time.monotonic() - began < 30
    assert service.forward(idp.token()).status == 503
    assert service.get("/readyz").status == 200
    wait_for(lambda: "opa" in service.get("/readyz").json["degraded"])
    assert 'sts_opa_questions_total{outcome="failed"}' in service.get("/metrics").body.decode()
    release.set()
    fake_opa.says = True
    wait_for(lambda: service.exchange(idp.token()).status == 200)
    wait_for(lambda: service.get("/readyz").json["degraded"] == {})


def test_a_hung_opa_leaves_threads_to_everybody_else(asking, idp, fake_opa):
    """Of 8 threads one may wait for it; the other seven answer."""
    release = threading.Event()
    fake_opa.says = lambda handler: (release.wait(60), handler.reply(b"{}"))
    service = asking(fake_opa.url, threads=8, opa={"url": fake_opa.url, "timeout": "5s"})
    waiting = [threading.Thread(target=service.exchange, args=[idp.token()]) for _ in range(20)]
    for thread in waiting:
        thread.start()
    wait_for(lambda: fake_opa.asked)
    began = time.monotonic()
    assert service.exchange(idp.token(), "billing").status == 200
    assert time.monotonic() - began < 4.5  # who waits for it, or for a thread of those who do, waits for 5 s
    wait_for(lambda: sum(thread.is_alive() for thread in waiting) < 5)  # the others are told that it does not answer
    release.set()
    for thread in waiting:
        thread.join()
    assert len(fake_opa.asked) < 5


def test_a_reload_to_another_rule_voids_what_the_former_one_let_through(asking, idp, fake_opa, configured):
    fake_opa.headers = {"Cache-Control": "max-age=600"}
    service, token = asking(fake_opa.url), idp.token()
    assert service.exchange(token).status == 200
    fake_opa.says = False
    assert service.exchange(token).status == 200
    service.write(configured(service.file.read_text(), {"opa/url": fake_opa.url + "/v2"}))
    assert service.reload()["event"] == "reloaded"
    refused = wait_for(lambda: (answer := service.exchange(token)).status != 200 and answer)
    assert refused.reason == "not_allowed"
