"""The policy server: who asks it, and where it is."""

import pytest
import trustme

URL = "https://opa.example.internal/v1/data/sts/allow"


def test_an_audience_cannot_ask_where_nobody_is_to_be_asked(base, only_fault):
    base["audiences"]["orders"].update(opa=True, enabled=False)
    fault = only_fault(base)
    assert fault.path == "audiences.orders.opa"
    assert "`opa` is missing" in fault.problem


def test_a_faulty_policy_server_is_one_fault(base, only_fault):
    base["audiences"]["orders"]["opa"] = True
    base["opa"] = {"url": "http://opa.example.internal/v1/data/sts/allow"}
    assert only_fault(base).path == "opa.url"


@pytest.mark.parametrize(
    ("opa", "path"),
    [
        ({"url": URL, "time_out": "1s"}, "opa.time_out"),
        ({"url": URL, "timeout": "10s"}, "opa.timeout"),
        ({"url": URL, "ca_file": "none.pem"}, "opa.ca_file"),
        ({}, "opa.url"),
        ("on", "opa"),
    ],
)
def test_a_fault_stands_at_its_own_path(base, only_fault, opa, path):
    base["opa"] = opa
    assert only_fault(base).path == path


def test_whose_certificate_is_believed_is_part_of_the_configuration(base, loaded):
    base["opa"] = {"url": URL, "ca_file": "ca.pem"}
    base["audiences"]["orders"]["opa"] = True
    base["audiences"]["other"] = {}
    pem = [trustme.CA().cert_pem.bytes().decode() for _ in range(2)]
    first, second = (loaded(base, **{"ca.pem": one}).fingerprints() for one in pem)
    assert first["audience/orders"] != second["audience/orders"]
    assert first["audience/other"] == second["audience/other"]
