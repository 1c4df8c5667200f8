"""`sts clients secret`."""

import base64
import hashlib
import json

import pytest
import yaml
from click.testing import CliRunner

from sts.cli.main import cli

KNOWN = "edge-gateway-secret-for-tests-only"
KNOWN_DIGEST = "sha256:346166fccc2baaf9c0e989c00ad085a5c32aefc1e2a61d97d4058388450240ad"  # the contract's


@pytest.fixture
def secret():
    return lambda *arguments, **more: CliRunner().invoke(cli, ["clients", "secret", *arguments], **more)


def test_it_makes_256_random_bits_and_the_line_for_the_configuration(secret):
    first, second = (line.partition(":")[2].strip() for line in secret().stdout.splitlines())
    assert len(base64.urlsafe_b64decode(first + "=")) == 32
    (digest,) = yaml.safe_load(second)
    assert digest == "sha256:" + hashlib.sha256(first.encode()).hexdigest()


@pytest.mark.parametrize(
    ("group", "line"),
    [
        ("keys", "Create the deployment secret and the key ring."),
        ("clients", "Generate a client secret and its hash."),
        ("api-keys", "Revoke a key permanently."),
    ],
)
def test_no_line_in_a_list_of_commands_is_cut(group, line):
    shown = CliRunner().invoke(cli, [group, "--help"], terminal_width=80).stdout
    assert f"  {line}\n" in shown
    assert "..." not in shown.partition("Commands:")[2]


def test_each_is_new(secret):
    assert secret().stdout != secret().stdout


def test_json_is_one_object(secret):
    made = json.loads(secret("--json").stdout)
    assert set(made) == {"secret", "digest"}
    assert made["digest"] == "sha256:" + hashlib.sha256(made["secret"].encode()).hexdigest()


def test_a_given_secret_is_hashed_and_not_repeated(secret):
    result = secret("--hash", input=KNOWN + "\n")
    assert (result.exit_code, result.stdout, result.stderr) == (0, KNOWN_DIGEST + "\n", "")
    assert json.loads(secret("--hash", "--json", input=KNOWN).stdout) == {"digest": KNOWN_DIGEST}


def test_a_short_secret_is_hashed_with_a_warning(secret):
    result = secret("--hash", input="hunter2")
    assert result.exit_code == 0
    assert result.stdout.startswith("sha256:")
    assert "random" in result.stderr
    assert "hunter2" not in result.output


@pytest.mark.parametrize("given", ["", "two words", "a\nb", "x" * 129, "pässword", "a:b"])
def test_what_cannot_be_a_secret_is_refused(secret, given):
    result = secret("--hash", input=given)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "1 to 128 characters" in result.stderr
