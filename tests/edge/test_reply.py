"""How answers are put on the wire."""

import json

from sts.edge.reply import problem


def test_a_problem_without_a_request_has_no_instance():
    assert json.loads(problem(404, "not_found", "Not Found").body) == {
        "type": "urn:sts:error:not_found",
        "title": "Not Found",
        "status": 404,
        "detail": "Not Found",
        "error_reason": "not_found",
    }
