"""Configurations written to real files, and what `load` makes of them."""

import copy
from pathlib import Path

import pytest
import yaml

from sts.settings import SettingsError, load

DATA = Path(__file__).parent / "data"

BASE = {
    "issuer": "https://sts.example.internal",
    "clients": {
        "edge": {"auth": "secret", "secrets": ["sha256:" + "a" * 64], "audiences": ["orders"], "profile": "nginx"},
    },
    "sources": {
        "idp": {
            "type": "jwt",
            "issuer": "https://idp.example.com",
            "jwks_uri": "https://idp.example.com/jwks",
            "algorithms": ["RS256"],
            "audience": "api-gateway",
            "identity": {"subject": "claims.sub", "scopes": "claims.scope", "roles": "claims.roles"},
        }
    },
    "audiences": {"orders": {"ttl": "5m", "scopes": ["orders:read", "orders:write"]}},
    "routes": {"orders": {"path": "/orders/**", "audience": "orders", "scopes": ["orders:read"]}},
}


@pytest.fixture
def base():
    """A small right configuration, to be changed by a test."""
    return copy.deepcopy(BASE)


@pytest.fixture
def two_sources(base):
    """A right configuration with two sources, so that all parts of the consent are written."""
    first = base["sources"]["idp"]
    first.update(audiences=["*"], namespace="")
    second = copy.deepcopy(first)
    second.update(issuer="https://other.example.com", namespace="other")
    base["sources"]["other"] = second
    base["clients"]["edge"]["sources"] = ["*"]
    return base


@pytest.fixture
def write(tmp_path):
    """Write the configuration (a mapping, or text as it stands) and files beside it; returns its path."""

    def write(config, **beside):
        for name, content in beside.items():
            target = tmp_path / name.replace("__", "/").replace("_yaml", ".yaml").replace("_json", ".json")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        path = tmp_path / "sts.yaml"
        path.write_text(config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False))
        return path

    return write


@pytest.fixture
def loaded(write):
    """Write and load."""
    return lambda config, environment=None, **beside: load(write(config, **beside), environment or {})


@pytest.fixture
def faults(loaded):
    """Write, load, and hand back the faults; it is a failure if there are none."""

    def faults(config, environment=None, **beside):
        with pytest.raises(SettingsError) as caught:
            loaded(config, environment, **beside)
        return caught.value.faults

    return faults


@pytest.fixture
def only_fault(faults):
    """The one fault of a configuration; it is a failure if there are more."""

    def only_fault(config, environment=None, **beside):
        found = faults(config, environment, **beside)
        assert len(found) == 1, [str(fault) for fault in found]
        return found[0]

    return only_fault


@pytest.fixture
def data():
    """Where the contract's two configurations are."""
    return DATA
