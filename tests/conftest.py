"""What every test shares: a real service, a provider, hypothesis without deadlines, the rule on skips under CI."""

import contextlib
import os

import hypothesis
import pytest

from sts.errors import Refusal
from sts.telemetry import log

pytest_plugins = [
    "gateways",
    "harness",
    "opa_server",
    "opaque",
    "pki",
    "redis_servers",
    "key_stores",
    "skips",
    "state_stores",
]  # in tests/lib

# A busy machine is no failure, hence no deadline; under CI the same change must give the same result twice.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True)
def _nothing_is_suppressed():
    """A line that the log of this process has written in one test must not suppress it in the next."""
    log.throttle.forget()


@pytest.fixture(scope="session")
def refused():
    """Within it a Refusal for exactly this reason must come; its facts must say why."""

    @contextlib.contextmanager
    def expect(reason):
        with pytest.raises(Refusal) as caught:
            yield caught
        assert caught.value.reason is reason
        assert caught.value.facts["why"]

    return expect


SERVERS = (
    "attacks",
    "contract",
    "docs",
    "faults",
    "gateways",
    "idps",
    "packaging",
    "real_clients",
    "rfc",
    "scripts",
    "service",
    "wire",
)
"""The folders of tests whose tests start our service or a server of others."""
STARTS_A_SERVER = {
    "service",
    "make_service",
    "make_opa",
    "nginx_program",
    "redis_kind",
    "redis_server",
    "run_redis",
    "sentinel",
    "tls_server",
    "store",
    "key_place",
}
SLOW = ("keys/test_simulation.py", "test_skips.py", "cli/test_shadow.py")


def pytest_collection_modifyitems(items):
    """Mark what starts a server or takes seconds, so that `make check` can leave it out."""
    for item in items:
        folder = item.path.relative_to(item.config.rootpath / "tests").parts[0]
        if folder in SERVERS or STARTS_A_SERVER & set(item.fixturenames):
            item.add_marker("servers")
        if str(item.path.relative_to(item.config.rootpath / "tests")) in SLOW:
            item.add_marker("slow")
