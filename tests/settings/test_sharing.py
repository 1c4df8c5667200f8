"""What replicas share through Redis has a server, and one secret."""

import pytest

SECRET = "A" * 43
SERVER = {"url": "rediss://redis.example.internal:6379/0"}


@pytest.fixture
def told(base, faults):
    """The faults of the configuration with this in it, by path, less what is not built yet."""

    def told(environment=None, **sections):
        found = faults(base | sections, environment=environment or {})
        return {fault.path: fault.problem for fault in found if "not supported yet" not in fault.problem}

    return told


def test_whoever_says_redis_needs_the_section(told):
    found = told(keys={"store": "redis"}, secret={"env": "SECRET"}, environment={"SECRET": SECRET})
    assert found == {"redis": "`redis` is missing: keys.store asks for it"}


def test_where_redis_is_used_the_secret_must_be_written(told):
    found = told(keys={"store": "redis"}, redis=SERVER)
    assert found == {"secret": "`secret` is missing: keys.store uses Redis"}
    own = told(cache={"shared": SERVER})
    assert own == {"secret": "`secret` is missing: cache.shared uses Redis"}


def test_a_secret_that_each_machine_would_make_for_itself_is_not_enough(told, tmp_path):
    found = told(keys={"store": "redis"}, redis=SERVER, secret={"file": "var/secret"})
    assert "cannot be read" in found["secret"]
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "secret").write_text(SECRET)
    assert told(keys={"store": "redis"}, redis=SERVER, secret={"file": "var/secret"}) == {}


def test_a_server_that_nobody_uses_is_no_fault(base, loaded):
    settings = loaded(base | {"redis": SERVER})
    assert settings.redis.target.host == "redis.example.internal"
    assert settings.secret is None


def test_the_file_of_the_ca_is_looked_at(told, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    assert "no certificates" in told(redis=SERVER | {"ca_file": "ca.pem"})["redis.ca_file"]
    assert "cannot be read" in told(redis=SERVER | {"ca_file": "none.pem"})["redis.ca_file"]


def test_what_does_not_fit_in_the_section_is_told_there(told):
    assert "needs `nodes`" in told(redis={"mode": "cluster"})["redis"]
    assert "write rediss://" in told(redis={"url": "redis://redis.example.internal"})["redis.url"]
    assert told(redis={"ur": "x"})["redis.ur"] == "unknown key"
