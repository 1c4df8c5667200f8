"""What tests of the commands share: a way to run them, and a configuration that needs nobody."""

import json

import pytest
import yaml
from click.testing import CliRunner
from harness import MINIMAL

from sts.cli.main import cli


@pytest.fixture
def sts():
    """Run `sts` in this process; standard output and error apart. Whatever is wrong, a command ends by itself."""

    def sts(*arguments, **more):
        result = CliRunner().invoke(cli, list(map(str, arguments)), **more)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return sts


@pytest.fixture
def configure(tmp_path):
    """Write minimal.yaml with changes made by a function; returns the file."""

    def configure(change):
        document = yaml.safe_load(MINIMAL.read_text())
        change(document)
        path = tmp_path / "sts.yaml"
        path.write_text(json.dumps(document))
        return path

    return configure


@pytest.fixture
def offline(configure, tmp_path, idp):
    """A configuration with the provider's keys in a file."""
    (tmp_path / "idp.jwks.json").write_text(json.dumps({"keys": idp.keys}))

    def with_file(document):
        source = document["sources"]["corporate-idp"]
        del source["jwks_uri"]
        source["jwks_file"] = "idp.jwks.json"

    return configure(with_file)
