"""What happens to the audit's file while the service writes to it: no event is lost, or the loss is counted."""

import json
import re
import resource

import pytest
from harness import minimal, wait_for


@pytest.fixture
def audited(make_service, idp):
    service = make_service(minimal(idp) + "\nworkers: 2\naudit: {file: own.jsonl, flush: 0}\n")
    service.own = service.directory / "own.jsonl"
    return service


def ids(path):
    """The request ids of a file's events, and how many of its lines are no event."""
    found, broken = set(), 0
    for line in path.read_bytes().splitlines():
        try:
            found.add(json.loads(line)["request_id"])
        except ValueError:
            broken += 1
    return found, broken


def ask(service, idp):
    answer = service.exchange(idp.token())
    assert answer.status == 200
    return answer.headers["x-request-id"]


def test_a_deleted_file_is_made_again_by_each_worker_and_has_every_later_event(audited, idp):
    audited.each(lambda: ask(audited, idp))
    audited.own.unlink()
    later = {ask(audited, idp) for _ in range(4)} | set(audited.each(lambda: ask(audited, idp)))
    assert ids(audited.own) == (later, 0)
    assert "audit file was deleted or renamed: opened again" in audited.log()


def test_a_renamed_file_and_the_new_one_have_every_event_between_them(audited, idp):
    asked = set(audited.each(lambda: ask(audited, idp)))
    old = audited.own.rename(audited.directory / "own.jsonl.1")

    def left_by_all():
        before = ids(old)[0]
        asked.update(audited.each(lambda: ask(audited, idp)))
        return ids(old)[0] == before

    wait_for(left_by_all)
    assert ids(old)[0] | ids(audited.own)[0] == asked


def test_a_line_torn_by_one_worker_takes_no_event_of_another_with_it(audited, idp):
    """As on a full disk: the first worker may write only a part of its line."""
    first, second = sorted(audited.workers())
    with audited.own.open("a") as file:  # longer than the log, which must go on
        file.write(json.dumps({"request_id": "x" * 1_000_000}) + "\n")
    size = audited.own.stat().st_size + 100
    _, hard = resource.prlimit(first, resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with audited.only(first):
        lost = ask(audited, idp)
    assert audited.own.stat().st_size == size
    with audited.only(second):
        kept = ask(audited, idp)
    resource.prlimit(first, resource.RLIMIT_FSIZE, (hard, hard))
    with audited.only(first):
        after = ask(audited, idp)
    found, broken = ids(audited.own)
    assert (found >= {kept, after}, lost in found, broken) == (True, False, 1)
    assert re.search(rb"^sts_audit_failures_total 1\.0$", audited.get("/metrics").body, re.MULTILINE)
    assert "only part of the line was written" in audited.log()
