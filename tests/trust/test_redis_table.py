"""Rows from hashes of a real Redis or Valkey."""

import pytest

from sts.errors import Refusal
from sts.lookups.redis_table import RedisTable
from sts.options import Place
from sts.redis_link import RedisLink, RedisSettings

NOW = 1_000_000.0


@pytest.fixture
def table(redis_server, tmp_path):
    link = RedisLink(RedisSettings.model_validate(redis_server.settings, context=Place(tmp_path, {})), keeps=False)
    yield RedisTable(link, "partners:", 30.0)
    link.close()


def test_a_hash_is_a_row_and_its_fields_are_the_columns(table, redis_server):
    redis_server.client().hset("partners:CN=acme é", mapping={"account": "A-1", "none": "", "name": "Acmé"})
    row = table.row("CN=acme é", NOW)
    assert dict(row.values) == {"account": "A-1", "name": "Acmé"}
    assert row.fresh_until == NOW + 30


def test_there_is_no_row_without_a_hash(table, redis_server):
    redis_server.client().hset("partners:", "a", "b")
    for key in ("nobody", ""):
        assert table.row(key, NOW) is None


def why(table, key):
    with pytest.raises(Refusal) as caught:
        table.row(key, NOW)
    assert caught.value.reason.name == "source_unreachable"
    return caught.value.facts["why"]


def test_what_is_no_hash_of_texts_is_no_answer(table, redis_server):
    client = redis_server.client()
    client.set("partners:text", "x")
    client.hset("partners:bytes", "a", b"\xff")
    assert why(table, "text").startswith("Redis:")
    assert "not UTF-8 text" in why(table, "bytes")


def test_a_server_that_is_down_is_no_answer_and_no_missing_row(table, redis_server):
    redis_server.client().hset("partners:a", "x", "y")
    redis_server.stop()
    assert why(table, "a").startswith("Redis:")
    assert table.trouble
    redis_server.start()
