"""How answers are put on the wire."""

import json

import pytest

from sts.edge.reply import problem, send
from sts.model import Reply


@pytest.mark.parametrize(("method", "body"), [("GET", [b"abc"]), ("HEAD", [])])
def test_an_answer_has_its_length_and_for_head_no_body(method, body):
    started = []
    assert send(Reply(403, (("A", "b"),), b"abc"), method, lambda *head: started.append(head)) == body
    assert started == [("403 Forbidden", [("A", "b"), ("Content-Length", "3")])]


def test_a_problem_without_a_request_has_no_instance():
    assert json.loads(problem(404, "not_found", "Not Found").body) == {
        "type": "urn:sts:error:not_found",
        "title": "Not Found",
        "status": 404,
        "detail": "Not Found",
        "error_reason": "not_found",
    }
