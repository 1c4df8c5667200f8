"""A rule on trial in a running service: the answer and the cache are as without it, and the audit says the rest."""

import json

from click.testing import CliRunner
from harness import minimal, wait_for

from sts.cli.main import cli


def test_a_rule_on_trial_is_told_for_minted_and_kept_tokens_and_summed_up(idp, configured, make_service):
    shadows = {"orders": "request.method == 'GET'", "billing": "timestamp(now).getFullYear() > 2000"}
    changes = {f"audiences/{name}/shadow": rule for name, rule in shadows.items()}
    service = make_service(configured(minimal(idp), {**changes, "workers": 1}))
    token = idp.token()
    first = [service.forward(token, method=method) for method in ("GET", "GET", "PUT", "PUT")]
    second = [service.exchange(token), service.exchange(token, "billing"), service.exchange(token, "billing")]
    refused = service.exchange(idp.token(roles=["intern"]), "billing")
    assert [answer.status for answer in (*first, *second, refused)] == [200] * 7 + [400]
    events = wait_for(lambda: len(service.events()) == 8 and service.events())
    assert [(event["cached"], event.get("shadow")) for event in events] == [
        (False, {"orders": "allow"}),
        (True, {"orders": "allow"}),
        (False, {"orders": "deny"}),
        (True, {"orders": "deny"}),
        (False, {"orders": "error"}),  # at /token nobody says which method it was
        (False, {"billing": "allow"}),
        (True, {"billing": "unknown"}),
        (False, None),
    ]
    report = CliRunner().invoke(cli, ["shadow", "report", "--json", str(service.audit_file)])
    rows = {(row["audience"], row["route"]): row for row in json.loads(report.stdout)["rows"]}
    assert rows["orders", "orders-write"]["denied"] == 2
    assert rows["orders", "orders-write"]["last_denied"]["request_id"] == first[3].headers["x-request-id"]
    assert (rows["orders", None]["errors"], rows["billing", None]["unknown"]) == (1, 1)
