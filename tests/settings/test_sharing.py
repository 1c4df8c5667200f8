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


STATE = {"store": "redis"}


def test_whoever_says_redis_needs_the_section(told):
    found = told(state=STATE, secret={"env": "SECRET"}, environment={"SECRET": SECRET})
    assert found == {"redis": "`redis` is missing: state.store needs it"}


def test_where_redis_is_used_the_secret_must_be_written(told):
    found = told(state=STATE, redis=SERVER)
    assert found == {"secret": "`secret` is missing: state.store uses Redis"}
    own = told(cache={"shared": dict(SERVER)})
    assert own["secret"] == "`secret` is missing: cache.shared uses Redis"


def test_a_secret_that_each_machine_would_make_for_itself_is_not_enough(told, base, loaded, tmp_path):
    found = told(state=STATE, redis=SERVER, secret={"file": "var/secret"})
    assert "cannot be read" in found["secret"]
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "secret").write_text(SECRET)
    settings = loaded(base | {"state": STATE, "redis": SERVER, "secret": {"file": "var/secret"}})
    assert settings.secret.get_secret_value() == SECRET
    assert (settings.state.store, settings.state.max_stale, settings.state.on_outage.replay) == ("redis", 300, "deny")


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


@pytest.mark.parametrize(
    ("section", "path"), [({"keys": STATE}, "keys.store"), ({"cache": {"shared": "redis"}}, "cache.shared")]
)
def test_several_machines_with_a_state_each_are_refused(told, section, path):
    given = {"redis": SERVER, "secret": {"env": "SECRET"}, "environment": {"SECRET": SECRET}}
    for state in ({}, {"state": {"store": "sqlite"}}, {"state": {"max_stale": "1m"}}):
        found = told(**given, **section, **state)
        assert path in found["state.store"]
        assert "for one machine" in found["state.store"]
    assert "state.store" not in told(**given, **section, state=dict(STATE), treads=1)


def test_a_configuration_for_one_machine_says_nothing_about_its_state(base, loaded):
    assert loaded(base).state.store == "sqlite"
    assert loaded(base | {"state": {"on_outage": {"revocation": "allow"}}}).state.on_outage.revocation == "allow"


def test_what_the_state_may_say_is_told(told):
    assert '"vault" is not one of' in told(state={"store": "vault"})["state.store"]
    assert "not one of" in told(state={"on_outage": {"replay": "maybe"}})["state.on_outage.replay"]
    assert "at least 2s" in told(state={"max_stale": "1s"})["state.max_stale"]
