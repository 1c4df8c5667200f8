"""What strangers send as often as they like must not fill the log."""

import json
import time

import pytest
from harness import minimal, wait_for

MALFORMED = {
    "InvalidRequestLine": b"GET\r\n\r\n",
    "InvalidHeader": b"GET /healthz HTTP/1.1\r\nHost: sts\r\nbad header\r\n\r\n",
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_of_malformed_requests_one_line_a_second_is_written_and_the_others_are_counted(make_service, idp, fault):
    service = make_service(minimal(idp) + "\nworkers: 1\n")
    began = time.monotonic()
    for _ in range(200):
        service.raw(MALFORMED[fault])
    seconds = time.monotonic() - began

    def accounted():
        lines = [json.loads(line) for line in service.log().splitlines() if '"invalid request"' in line]
        return sum(1 + line.get("suppressed", 0) for line in lines) == 200 and lines

    lines = wait_for(accounted)
    assert len(lines) <= seconds + 2
