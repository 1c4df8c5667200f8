"""The environment: read once, and secrets taken out of it."""

import os
from pathlib import Path

import pytest

from sts.settings import Environment, default_config, load

SECRET = "A" * 43


def test_secrets_that_were_read_leave_the_process_but_not_the_copy(base, write, monkeypatch):
    monkeypatch.setenv("STS_SECRET", SECRET)
    monkeypatch.setenv("UNRELATED", "stays")
    monkeypatch.setenv("STS_VAR", "/srv/sts")
    base["secret"] = {"env": "STS_SECRET"}
    path = write(base)
    environment = Environment()
    first = load(path, environment)
    environment.take_out_secrets()
    assert "STS_SECRET" not in os.environ
    assert (os.environ["UNRELATED"], os.environ["STS_VAR"]) == ("stays", "/srv/sts")
    assert load(path, environment) == first


def test_a_copy_does_not_follow_the_environment(monkeypatch):
    monkeypatch.setenv("STS_SECRET", "first")
    environment = Environment()
    monkeypatch.setenv("STS_SECRET", "second")
    assert environment["STS_SECRET"] == "first"
    assert set(environment) >= {"STS_SECRET"}
    assert len(environment) == len(set(environment))


def test_without_being_told_load_reads_the_process_environment(base, write, monkeypatch):
    monkeypatch.setenv("STS_VAR", "/srv/sts")
    assert load(write(base)).var == Path("/srv/sts")


@pytest.mark.parametrize(
    ("environment", "path"), [({}, "sts.yaml"), ({"STS_CONFIG": ""}, "sts.yaml"), ({"STS_CONFIG": "/etc/a"}, "/etc/a")]
)
def test_the_configuration_is_where_the_environment_says_else_here(environment, path):
    assert default_config(environment) == Path(path)
