"""`sts keys init | list | rotate`, over real files and the real clock; a short schedule where time must pass."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace

import jwt
import pytest
from click.testing import CliRunner

from keys.keyring import Keyring
from keys.record import KeyRecord, Ring
from sts.cli import common
from sts.cli.keys.opening import open_ring
from sts.cli.keys.output import span, time_line
from sts.cli.main import cli
from sts.mint.keystore import prepare
from sts.mint.settings import KeysSettings
from sts.settings import load

FILES = ["keyring.json", "keyring.json.lock", "keyring.seen", "secret"]
SHORT = """\
keys:
  rotate_every: 1h
  jwks_max_age: 100ms
  verifier_refresh: 0s
  clock_skew: 0s
  poll: 50ms
  store_grace: 1m
"""


@pytest.fixture
def configure(tmp_path):
    """Write a configuration; `keys:` as given."""

    def write(keys=""):
        (tmp_path / "sts.yaml").write_text(
            "issuer: https://sts.example.internal\naudiences: {orders: {ttl: 5m}}\n" + keys
        )
        return tmp_path / "sts.yaml"

    return write


@pytest.fixture
def keys(tmp_path):
    """Run `sts keys …` with the configuration."""
    return lambda *arguments: CliRunner().invoke(cli, ["keys", *arguments, "-c", str(tmp_path / "sts.yaml")])


@pytest.fixture
def var(tmp_path):
    return tmp_path / "var"


def listed(keys):
    return json.loads(keys("list", "--json").stdout)


def ready(keys):
    """Wait until the standby may sign."""
    time.sleep(listed(keys)["plans"][0]["guard_missing"] + 0.01)


def test_init_makes_secret_and_ring_once(configure, keys, var):
    configure()
    first = keys("init")
    assert first.exit_code == 0
    assert f"{var}/keyring.json: made" in first.stdout
    assert sorted(each.name for each in var.iterdir()) == [
        "keyring.json",
        "keyring.json.lock",
        "keyring.seen",
        "secret",
    ]
    before = (var / "keyring.json").read_bytes()
    second = keys("init")
    assert second.exit_code == 0
    assert "is there already (version 1)" in second.stdout
    assert json.loads(keys("init", "--json").stdout) == {
        "made": False,
        "place": f"{var}/keyring.json",
        "version": 1,
        "published": [],
    }
    assert (var / "keyring.json").read_bytes() == before


def test_init_never_makes_a_new_secret_for_a_ring(configure, keys, var):
    configure()
    keys("init")
    (var / "secret").unlink()
    refused = keys("init")
    assert refused.exit_code == 1
    assert f"{var}/secret is missing" in refused.stderr
    assert not (var / "secret").exists()


@pytest.mark.parametrize("command", ["list", "rotate"])
def test_no_other_command_makes_anything_and_each_names_where_it_looked(configure, keys, var, command):
    configure()
    refused = keys(command)
    assert refused.exit_code == 1
    assert f"no deployment secret at {var}/secret" in refused.stderr
    assert not var.exists()
    keys("init")
    (var / "keyring.json").unlink()
    refused = keys(command)
    assert refused.exit_code == 1
    assert f"no key ring at {var}/keyring.json, though this machine has seen one" in refused.stderr
    (var / "keyring.seen").unlink()
    refused = keys(command)
    assert refused.exit_code == 1
    assert f"no key ring at {var}/keyring.json" in refused.stderr
    assert "`sts keys init` make" in refused.stderr


def test_list_is_a_time_line(configure, keys):
    configure()
    keys("init")
    shown = keys("list")
    assert shown.exit_code == 0
    lines = [line for line in shown.stdout.splitlines() if "…" in line]
    assert len(lines) == 2
    assert re.search(r"active +\d{4}-\d\d-\d\d \d\d:\d\d +rotation is due in (30d|29d 23h)", lines[0])
    assert re.search(r"published .* may sign in 15m [23]\ds", lines[1])
    assert "ES256" not in shown.stdout


def test_at_80_columns_states_and_times_stand_whole(configure, keys, monkeypatch):
    configure(SHORT)
    keys("init")
    ready(keys)
    keys("rotate")
    kids = [key["kid"] for key in listed(keys)["keys"]]
    monkeypatch.setattr(common.console, "width", 80)
    lines = keys("list").stdout.splitlines()[1:]
    assert max(map(len, lines)) <= 80
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    told = (
        ("retired", r"leaves the JWKS in (6m|5m \d+s)"),
        ("active", r"rotation is due in (1h|59m \d+s)"),
        ("published", r"may sign (now|in \d+s)"),
    )
    for kid, (state, what) in zip(kids, told, strict=True):
        (line,) = (line for line in lines if line.strip().startswith(kid[:10] + "…"))
        assert re.fullmatch(rf" *\S+ +{state} +{when} +{what} *", line)


def test_algorithms_are_told_where_there_are_several_and_only_they_and_kids_give_way(monkeypatch):
    monkeypatch.setattr(common.console, "width", 72)
    now = 1_800_000_000.0
    active = KeyRecord(
        kid="a" * 43, algorithm="ES256", public={}, private=b"", published_at=0.0, ready_at=0.0, active_at=now - 5e6
    )
    other = replace(active, kid="b" * 43, algorithm="EdDSA", active_at=None)
    ring = Ring(version=1, longest_ttl=300.0, keep=300.0, guard=900.0, keys=(active, other))
    with common.console.capture() as shown:
        common.console.print(time_line(ring, now, KeysSettings().schedule()))
    first, second = (line for line in shown.get().splitlines() if line.strip().startswith(("a", "b")))
    assert re.fullmatch(r" *a+… +E\S+ +active +2026-11-18 \d\d:\d\d +rotation is due since 27d 20h *", first)
    assert re.fullmatch(r" *b+… +E\S+ +published +1970-01-01 00:00 +may sign now *", second)


def test_list_as_json_has_every_time_and_the_plan(configure, keys, var):
    configure()
    keys("init")
    found = listed(keys)
    assert found["place"] == f"{var}/keyring.json"
    assert (found["version"], found["longest_ttl"]) == (1, 300)
    signing, standby = found["keys"]
    assert (signing["state"], standby["state"]) == ("active", "published")
    assert standby["ready_at"] == standby["published_at"] + 935
    (plan,) = found["plans"]
    assert (plan["signing"], plan["standby"], plan["due"]) == (signing["kid"], standby["kid"], False)
    assert 900 < plan["guard_missing"] <= 935


def test_nothing_that_is_printed_holds_a_private_half(configure, keys, var):
    configure(SHORT)
    printed = keys("init").output + keys("list").output + keys("list", "--json").output
    ready(keys)
    printed += keys("rotate", "--dry-run").output + keys("rotate", "--json").output + keys("rotate").output
    secret = (var / "secret").read_text().strip()
    sealed = [key["sealed"] for key in json.loads((var / "keyring.json").read_text())["keys"]]
    for hidden in (secret, *sealed, "private", '"d"'):
        assert hidden not in printed


def test_rotate_too_early_is_refused_with_the_seconds_missing(configure, keys, var):
    """RO-02."""
    configure()
    keys("init")
    before = (var / "keyring.json").read_bytes()
    for arguments in (("rotate",), ("rotate", "--dry-run")):
        refused = keys(*arguments)
        assert refused.exit_code == 1
        assert re.search(r"still lack it for 9[23]\d s", refused.stderr)
    refused = keys("rotate", "--json")
    assert refused.exit_code == 1
    told = json.loads(refused.stdout)
    assert (told["rotated"], told["why"]) == (False, "guard")
    assert 900 < told["seconds"] <= 935
    assert (var / "keyring.json").read_bytes() == before


def test_rotate_promotes_the_standby(configure, keys):
    configure(SHORT)
    keys("init")
    former, next_key = (key["kid"] for key in listed(keys)["keys"])
    ready(keys)
    done = keys("rotate")
    assert done.exit_code == 0
    assert f"{next_key[:10]}… signs now" in done.stdout
    assert re.search(rf"{former[:10]}… is retired and stays published for (6m|5m 59s)", done.stdout)
    found = listed(keys)
    assert [key["state"] for key in found["keys"]] == ["retired", "active", "published"]
    assert [key["kid"] for key in found["keys"][:2]] == [former, next_key]
    assert re.search("retired .* leaves the JWKS in ", keys("list").stdout)


def test_rotate_as_json_names_all_three_keys(configure, keys):
    configure(SHORT)
    keys("init")
    before = listed(keys)
    ready(keys)
    done = json.loads(keys("rotate", "--json").stdout)
    after = {key["kid"]: key for key in listed(keys)["keys"]}
    assert done["rotated"] is True
    assert done["version"] == 2
    assert (done["retired"], done["signing"]) == tuple(key["kid"] for key in before["keys"])
    assert after[done["standby"]]["state"] == "published"
    assert done["leaves_at"] == after[done["retired"]]["leaves_at"]


def test_dry_run_changes_nothing(configure, keys, var):
    configure(SHORT)
    keys("init")
    ready(keys)
    before = (var / "keyring.json").read_bytes()
    would = keys("rotate", "--dry-run")
    assert would.exit_code == 0
    assert "would sign instead of" in would.stdout
    assert json.loads(keys("rotate", "--dry-run", "--json").stdout)["why"] == "dry run"
    assert (var / "keyring.json").read_bytes() == before


def test_if_due_does_nothing_until_it_is_due(configure, keys):
    configure(SHORT)
    keys("init")
    ready(keys)
    waits = keys("rotate", "--if-due")
    assert waits.exit_code == 0
    assert re.search("not due: due in (1h|59m)", waits.stdout)
    assert json.loads(keys("rotate", "--if-due", "--json").stdout)["why"] == "not due"
    assert listed(keys)["version"] == 1


def test_a_rotation_that_is_due_happens_once(configure, keys, var):
    settings = load(configure())
    prepare(settings.keys, var, None, lambda: time.time() - 31 * 86400, settings.wanted())
    assert re.search("rotation is due since 1d", keys("list").stdout)
    assert "signs now" in keys("rotate", "--if-due").stdout
    assert "not due" in keys("rotate", "--if-due").stdout


def test_a_ring_of_another_secret_and_a_store_that_cannot_be_read_have_their_exit_status(configure, keys, var):
    configure()
    keys("init")
    (var / "keyring.json").chmod(0o644)
    unreadable = keys("list")
    assert unreadable.exit_code == 3
    assert "chmod 600" in unreadable.stderr
    (var / "keyring.json").chmod(0o600)
    (var / "secret").write_text("00" * 32)
    forged = keys("rotate")
    assert forged.exit_code == 1
    assert "not among those given" in forged.stderr


def test_a_faulty_configuration_is_told_before_anything_is_made(configure, keys, var):
    configure("keys: {rotate_every: 1m}\n")
    refused = keys("init")
    assert refused.exit_code == 1
    assert "rotate_every" in refused.stderr
    assert not var.exists()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0s"), (0.4, "0s"), (59, "59s"), (60, "1m"), (3661, "1h 1m"), (90061, "1d 1h"), (2592000, "30d")],
)
def test_a_length_of_time_is_said_in_its_two_largest_units(seconds, shown):
    assert span(seconds) == shown


@pytest.mark.parametrize("command", ["init", "list", "rotate"])
def test_the_help_has_an_example_and_the_exit_statuses(command):
    shown = CliRunner().invoke(cli, ["keys", command, "--help"]).stdout
    assert f"sts keys {command}" in shown
    assert re.search(r"Exit status: 0 .* 1 .* 2 .* 3 ", shown)
    assert "\\b" not in shown


def test_commands_started_at_once_make_one_ring(configure, keys, var):
    command = [sys.executable, "-m", "sts", "keys", "init", "--json", "-c", str(configure(SHORT))]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sorted(each["made"] for each in told) == [False, False, True]
    assert listed(keys)["version"] == 1
    assert sorted(each.name for each in var.iterdir()) == [
        "keyring.json",
        "keyring.json.lock",
        "keyring.seen",
        "secret",
    ]


def test_tokens_of_a_ring_that_commands_made_verify_with_another_library(configure, keys):
    path = configure(SHORT)
    keys("init")
    settings = load(path)
    keyring = Keyring(open_ring(settings), settings.keys.schedule(), time.time)
    ready(keys)
    signed = []
    for _ in range(2):
        signer = keyring.signer("ES256", time.time())
        signing_input = jwt.utils.base64url_encode(b'{"alg":"ES256"}') + b"." + jwt.utils.base64url_encode(b"{}")
        signed.append((signer.kid, signing_input + b"." + jwt.utils.base64url_encode(signer.sign(signing_input))))
        keys("rotate")
        keyring.refresh()
    assert signed[0][0] != signed[1][0]
    published = jwt.PyJWKSet.from_dict(keyring.jwks(time.time()))
    for kid, token in signed:
        assert jwt.decode(token, published[kid], algorithms=["ES256"]) == {}
