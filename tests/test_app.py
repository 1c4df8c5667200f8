"""What a worker's service asks outside, over a reload: kept, closed, or never begun."""

import json
from types import SimpleNamespace

import opaque
import pytest
from harness import free_port
from in_process import World

from sts.errors import StartError
from sts.settings import load
from sts.trust.fetch import Fetcher


def asking(document, opa, port):
    """A configuration that asks OPA, an introspection server and a table over HTTP, elsewhere for another port."""
    document["sources"]["corporate-idp"].update(audiences=["*"], namespace="")
    document["sources"]["legacy"] = {
        **opaque.source(SimpleNamespace(url=f"http://127.0.0.1:{port}")),
        "audiences": ["*"],
        "namespace": "legacy",
    }
    document["clients"]["edge-gateway"]["sources"] = ["*"]
    document["tables"] = {"staff": {"url": f"http://127.0.0.1:{port}/{{key}}"}}
    document["opa"] = {"url": f"{opa.url}?{port}", "timeout": "5s"}
    document["audiences"]["orders"]["opa"] = True


@pytest.fixture
def world(tmp_path, fake_opa, monkeypatch):
    """A service that has asked OPA, and what is closed from then on."""
    made = World(tmp_path, lambda document: asking(document, fake_opa, free_port()))
    assert made.exchange().status == 200
    closed = []
    close = Fetcher.close
    monkeypatch.setattr(Fetcher, "close", lambda self: (closed.append(self), close(self)))
    yield made, closed
    made.app.opa.keep(None)
    made.close()


def elsewhere(world, fake_opa):
    """The settings of the same service after whatever it asks has moved."""
    document = json.loads(world.file.read_text())
    asking(document, fake_opa, free_port())
    world.file.write_text(json.dumps(document))
    return load(world.file)


def test_what_is_asked_no_more_is_closed_after_the_swap(world, fake_opa):
    made, closed = world
    made.app.swap(load(made.file))
    assert closed == []
    made.app.swap(elsewhere(made, fake_opa))
    assert len(set(closed)) == 3
    assert made.exchange().status == 200
    assert fake_opa.connections == 2


def test_a_swap_that_fails_at_the_last_step_closes_what_it_made_and_nothing_else(world, fake_opa, monkeypatch):
    made, closed = world
    before = made.app.current
    with monkeypatch.context() as patch:

        def fails(*_):
            raise StartError("the last step")

        patch.setattr(made.app, "_introspection", fails)
        with pytest.raises(StartError, match="the last step"):
            made.app.swap(elsewhere(made, fake_opa))
    assert made.app.current is before
    assert len(set(closed)) == 3
    assert made.exchange().status == 200
    assert fake_opa.connections == 1  # the one that was there
    made.app.swap(before.settings)
    assert len(closed) == 3
