"""`sts backends keygen`: a pair that the service can encrypt to and an independent library can decrypt with."""

import json
import stat
from pathlib import Path

import pytest
import yaml
from recipient import Pair

from sts.jose import encrypt, import_encryption_jwks

PRIVATE = {"d", "p", "q", "dp", "dq", "qi"}


@pytest.fixture
def keygen(sts, tmp_path):
    """Make a pair; returns its two files."""

    def keygen(*arguments, status=0):
        result = sts("backends", "keygen", "--out", tmp_path / "out", *arguments)
        assert result.exit_code == status, result.output
        return [Path(line.split()[-1]) for line in result.stdout.splitlines()[:2]]

    return keygen


@pytest.mark.parametrize(
    ("alg", "arguments"),
    [
        ("ECDH-ES+A256KW", []),
        ("ECDH-ES", ["--alg", "ECDH-ES", "--curve", "X25519"]),
        ("RSA-OAEP-256", ["--alg", "RSA-OAEP-256"]),
    ],
)
def test_a_pair_works_from_end_to_end(keygen, alg, arguments):
    private, public = keygen(*arguments)
    (key,) = import_encryption_jwks(public.read_bytes(), alg).keys
    pair = Pair.__new__(Pair)
    pair.private = json.loads(private.read_text())
    header, inner = pair.decrypt(encrypt("a.b.c", key), [alg])
    assert (inner, header["kid"]) == ("a.b.c", pair.private["kid"])


def test_the_private_key_is_its_owners_alone_and_the_set_holds_nothing_secret(keygen):
    for arguments in ([], ["--alg", "RSA-OAEP-256"]):
        private, public = keygen(*arguments)
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
        (jwk,) = json.loads(public.read_text())["keys"]
        assert PRIVATE.isdisjoint(jwk)
        assert (jwk["use"], jwk["kid"]) == ("enc", public.name.removesuffix(".jwks.json"))
        assert PRIVATE & json.loads(private.read_text()).keys()


@pytest.mark.parametrize("folder", ["keys", "a, b: {c} #d"])
def test_the_line_for_the_configuration_names_the_file_that_was_written(sts, tmp_path, folder):
    result = sts("backends", "keygen", "--out", tmp_path / folder)
    (said,) = (yaml.safe_load(line) for line in result.stdout.splitlines() if line.startswith("encryption:"))
    named = tmp_path / said["encryption"]["jwks_file"]
    (key,) = import_encryption_jwks(named.read_bytes(), said["encryption"]["alg"]).keys
    assert key.kid in result.stdout


def test_a_curve_for_rsa_is_a_usage_error(keygen):
    keygen("--alg", "RSA-OAEP-256", "--curve", "P-256", status=2)
    keygen("--alg", "RSA1_5", status=2)
    keygen("--alg", "dir", status=2)


def test_a_directory_that_cannot_be_written_is_told(sts, tmp_path):
    (tmp_path / "file").write_text("")
    result = sts("backends", "keygen", "--out", tmp_path / "file" / "below")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
