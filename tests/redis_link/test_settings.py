"""What a `redis` section may say."""

import pytest
import trustme
from pydantic import ValidationError

from sts.errors import StartError
from sts.options import KeptFile, Place
from sts.redis_link import RedisSettings
from sts.redis_link.settings import RedisUrl, parse_url, read_ca


def section(tmp_path, **written):
    return RedisSettings.model_validate(written, context=Place(tmp_path, {"REDIS_PASSWORD": "hush"}))


@pytest.mark.parametrize(
    ("url", "means"),
    [
        ("rediss://redis.example.internal", RedisUrl(host="redis.example.internal")),
        ("rediss://sts@redis.example.internal:6380/3", RedisUrl(True, "sts", "redis.example.internal", 6380, 3)),
        ("redis://127.0.0.1:6379/0", RedisUrl(False, None, "127.0.0.1")),
        ("redis://[::1]:1", RedisUrl(False, None, "::1", 1)),
        ("unix:///run/redis.sock", RedisUrl(tls=False, path="/run/redis.sock")),
        ("unix:///run/redis.sock?db=2", RedisUrl(tls=False, database=2, path="/run/redis.sock")),
    ],
)
def test_a_url_says_how_the_server_is_reached(url, means):
    assert parse_url(url) == means


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://redis.example.internal:6379", "write rediss://"),
        ("redis://localhost:6379", "write rediss://"),  # a name is what the resolver says
        ("redis://10.0.0.1:6379", "write rediss://"),
        ("rediss://:hunter2@redis.example.internal", "as `password`"),
        ("https://redis.example.internal", "begins with rediss://"),
        ("rediss://redis.example.internal/one", "whole number"),
        ("rediss://redis.example.internal?ssl_cert_reqs=none", "such as rediss://"),
        ("rediss://redis.example.internal:99999", "not a URL"),
        ("rediss://redis.example.internal#a", "fragment"),
        ("unix://host/run/redis.sock", "unix:///"),
        ("unix:///run/redis.sock?x=1", "unix:///"),
        ("rediss://", "such as"),
        ("rediss://a b", "ASCII"),
    ],
)
def test_a_url_that_says_anything_else_is_refused_without_being_repeated(url, says):
    with pytest.raises(ValueError, match=says) as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({}, "`url` is missing"),
        ({"url": "rediss://a", "nodes": ["b:1"]}, "single server"),
        ({"url": "rediss://a", "master": "m"}, "sentinel"),
        ({"mode": "sentinel", "nodes": ["a:1"]}, "`master`"),
        ({"mode": "sentinel", "master": "m"}, "needs `nodes`"),
        ({"mode": "cluster"}, "needs `nodes`"),
        ({"mode": "cluster", "nodes": ["a:1"], "master": "m"}, "`master`"),
        ({"mode": "cluster", "nodes": ["a:1"], "url": "rediss://a/1"}, "database 0"),
        ({"mode": "cluster", "nodes": ["127.0.0.1:1"], "url": "unix:///a"}, "Unix socket"),
        ({"mode": "cluster", "nodes": ["127.0.0.1:1", "a:1"], "url": "redis://127.0.0.1"}, "literal loopback"),
        ({"mode": "cluster", "nodes": ["a"]}, "host:port"),
        ({"mode": "cluster", "nodes": ["me@a:1"]}, "host:port"),
        ({"mode": "ring", "url": "rediss://a"}, "cluster"),
        ({"url": "rediss://a", "tls": False}, "extra"),
    ],
)
def test_what_does_not_fit_together_is_a_fault(tmp_path, written, says):
    with pytest.raises(ValidationError, match=says):
        section(tmp_path, **written)


def test_nodes_of_sentinels_and_clusters_are_reached_with_tls_unless_the_url_says_otherwise(tmp_path):
    bare = section(tmp_path, mode="cluster", nodes=["redis-1.example.internal:6379", "[::1]:1"])
    assert bare.target.tls
    assert bare.addresses == (("redis-1.example.internal", 6379), ("::1", 1))
    assert not section(tmp_path, mode="cluster", nodes=["127.0.0.1:1"], url="redis://127.0.0.1").target.tls


def test_the_password_is_masked_wherever_the_section_is_shown(tmp_path):
    written = section(tmp_path, url="rediss://a", password={"env": "REDIS_PASSWORD"})
    assert written.password.get_secret_value() == "hush"
    assert "hush" not in f"{written!r} {written.model_dump_json()}"


def test_a_ca_file_holds_certificates(tmp_path):
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert read_ca(KeptFile.of(tmp_path / "ca.pem")).startswith("-----BEGIN")
    (tmp_path / "bad.pem").write_text("nothing of that kind")
    for name in ("bad.pem", "none.pem"):
        with pytest.raises(StartError, match=name):
            read_ca(KeptFile.of(tmp_path / name))
