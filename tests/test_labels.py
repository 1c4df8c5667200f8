import base64
import hmac
import os
import pickle
import stat
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from sts import labels
from sts.errors import StartError
from sts.labels import DeploymentSecret

MATERIAL = bytes(range(32))
AS_HEX = MATERIAL.hex()
AS_BASE64URL = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "var" / "secret"


def test_a_key_is_hkdf_sha256_of_the_secret_under_its_label():
    # RFC 5869 §2.2 and §2.3 in two steps, the first by HMAC itself
    prk = hmac.digest(bytes(32), MATERIAL, "sha256")
    expected = HKDFExpand(algorithm=hashes.SHA256(), length=32, info=b"sts audit").derive(prk)
    assert DeploymentSecret(MATERIAL).key("audit") == expected


@given(st.sets(st.text(min_size=1, max_size=20), min_size=2, max_size=5))
def test_each_label_has_its_own_key(names):
    secret = DeploymentSecret(MATERIAL)
    keys = {secret.key(name) for name in names}
    assert len(keys) == len(names)
    assert {len(key) for key in keys} == {32}
    assert MATERIAL not in keys


def test_a_key_needs_a_label():
    with pytest.raises(ValueError, match="label"):
        DeploymentSecret(MATERIAL).key("")


def test_the_secret_does_not_show_and_survives_a_way_to_another_process():
    secret = DeploymentSecret(MATERIAL)
    for shown in (repr(secret), str(secret), f"{secret}", repr([secret])):
        assert str(MATERIAL)[2:20] not in shown
        assert AS_HEX[:16] not in shown
    assert pickle.loads(pickle.dumps(secret)).key("x") == secret.key("x")  # noqa: S301 - our own bytes


@pytest.mark.parametrize("text", [AS_HEX, AS_HEX.upper(), AS_BASE64URL, AS_BASE64URL + "=", f"  {AS_BASE64URL}\n"])
def test_a_secret_is_given_as_base64url_or_hex(text):
    assert DeploymentSecret.parse(text).key("x") == DeploymentSecret(MATERIAL).key("x")


@pytest.mark.parametrize("command", [["rand", "-base64", "32"], ["rand", "-hex", "32"]])
def test_whatever_openssl_makes_is_a_secret(command):
    for _ in range(20):  # most in base64 have a + or a /
        text = subprocess.run(["openssl", *command], capture_output=True, text=True, check=True).stdout
        material = bytes.fromhex(text) if "-hex" in command else base64.b64decode(text)
        assert DeploymentSecret.parse(text).key("x") == DeploymentSecret(material).key("x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "correct horse battery staple",
        AS_HEX[:-2],
        AS_HEX + "00",
        "g" * 64,
        "é" * 43,
        AS_BASE64URL[:-1],
        AS_BASE64URL + "A",
        AS_BASE64URL[:-1] + "9",  # spare bits
        AS_BASE64URL[:-1] + "+",  # as in the other alphabet
        AS_BASE64URL[:20] + " " + AS_BASE64URL[20:],
        AS_BASE64URL[:20] + "\x00" + AS_BASE64URL[21:],
        "A" * 10_000,
    ],
)
def test_anything_else_is_refused_and_not_repeated(text):
    with pytest.raises(StartError) as refused:
        DeploymentSecret.parse(text)
    assert len(text) < 20 or text not in str(refused.value)


def test_64_characters_are_hex_even_where_they_could_be_base64url():
    assert DeploymentSecret.parse("A" * 64).key("x") == DeploymentSecret(b"\xaa" * 32).key("x")


@given(st.binary(max_size=80).filter(lambda data: len(data) != 32))
def test_a_secret_of_another_length_is_refused(data):
    with pytest.raises(StartError):
        DeploymentSecret(data)
    with pytest.raises(StartError):
        DeploymentSecret.parse(data.hex())


def test_what_was_made_is_read_again(path):
    made = labels.create(path)
    assert labels.read(path).key("x") == made.key("x")
    assert labels.create(path).key("x") == made.key("x")  # a second start makes nothing
    assert [each.name for each in path.parent.iterdir()] == ["secret"]


def test_two_secrets_differ(tmp_path):
    assert labels.create(tmp_path / "one").key("x") != labels.create(tmp_path / "two").key("x")


def test_the_file_is_for_its_owner_alone_whatever_the_umask_says(path):
    previous = os.umask(0)
    try:
        labels.create(path)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o700])
def test_a_wider_mode_is_refused(path, mode):
    labels.create(path)
    path.chmod(mode)
    with pytest.raises(StartError, match=f"{path} has mode {mode:04o}"):
        labels.read(path)
    with pytest.raises(StartError, match=f"{path} has mode"):
        labels.create(path)


def test_a_narrower_mode_is_fine(path):
    made = labels.create(path)
    path.chmod(0o400)
    assert labels.read(path).key("x") == made.key("x")


def test_a_missing_secret_is_named_with_its_absolute_path_and_nothing_is_made(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StartError, match=f"no deployment secret at {path}"):
        labels.read(path.relative_to(tmp_path))
    assert not path.parent.exists()


@pytest.mark.parametrize("content", [b"", b"secret", b"\xff" * 43, b"x" * 5000])
def test_a_file_with_something_else_in_it_is_refused_by_name(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StartError, match=f"{path} is unusable"):
        labels.read(path)
    with pytest.raises(StartError, match=f"{path} is unusable"):
        labels.create(path)  # and is never overwritten
    assert path.read_bytes() == content


def test_what_is_no_plain_file_is_refused(path):
    path.mkdir(parents=True)
    path.chmod(0o600)
    with pytest.raises(StartError, match="plain file"):
        labels.read(path)
    path.rmdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(StartError, match="plain file"):  # and does not hang
        labels.read(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot be created"):
        labels.create(tmp_path / "file" / "secret")


def test_what_root_makes_belongs_to_the_owner_of_the_folder(path, monkeypatch):
    given_to = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _descriptor, *owner: given_to.append(owner))
    labels.create(path)
    folder = path.parent.stat()
    assert given_to == [(folder.st_uid, folder.st_gid)] * 2  # the folder and the file


def test_processes_that_start_at_once_make_one_secret(path):
    source = """
import os, sys
from pathlib import Path
from sts import labels
gate, open_gate = os.pipe()
pids = []
for _ in range(8):
    pid = os.fork()
    if pid == 0:
        os.close(open_gate)
        os.read(gate, 1)
        os.write(1, labels.create(Path(sys.argv[1])).key("x").hex().encode() + b"\\n")
        os._exit(0)
    pids.append(pid)
os.close(open_gate)
sys.exit(max(os.waitpid(pid, 0)[1] for pid in pids))
"""
    done = subprocess.run([sys.executable, "-c", source, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 8
    assert set(done.stdout.split()) == {labels.read(path).key("x").hex()}
    assert [each.name for each in path.parent.iterdir()] == ["secret"]
