"""`sts keys plan | rotate --force | revoke | import | jwks | reseal`, over real files and the real clock."""

import json
import re
import subprocess
import time

import jwt
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey, OKPKey

from keys.algorithms import ALGORITHMS
from sts.cli.main import cli

SHORT = """\
  rotate_every: 1h
  jwks_max_age: 100ms
  verifier_refresh: 0s
  clock_skew: 0s
  poll: 50ms
  store_grace: 1m
"""


@pytest.fixture
def configure(tmp_path):
    """Write a configuration; `keys` are more lines of that section, `more` more of it."""

    def write(keys="", more="", short=True):
        (tmp_path / "sts.yaml").write_text(
            f"issuer: https://sts.example.internal\naudiences: {{orders: {{ttl: 5m}}}}\n{more}keys:\n  poll: 5s\n{keys}"
            if not short
            else f"issuer: https://sts.example.internal\naudiences: {{orders: {{ttl: 5m}}}}\n{more}keys:\n{SHORT}{keys}"
        )
        return tmp_path / "sts.yaml"

    return write


@pytest.fixture
def keys(tmp_path):
    """Run `sts keys …` with the configuration."""

    def run(*arguments, answer=None):
        command = ["keys", *map(str, arguments), "-c", str(tmp_path / "sts.yaml")]
        return CliRunner().invoke(cli, command, input=answer)

    return run


@pytest.fixture
def ring(tmp_path):
    return tmp_path / "var" / "keyring.json"


def listed(keys):
    return json.loads(keys("list", "--json").stdout)


def states(keys):
    return {key["kid"]: (key["algorithm"], key["state"]) for key in listed(keys)["keys"]}


def ready(keys):
    time.sleep(max(plan["guard_missing"] for plan in listed(keys)["plans"]) + 0.01)


def audited(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"time"')]


def pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def test_every_command_has_help_with_examples_and_exit_statuses():
    for command in ("plan", "revoke", "import", "reseal"):
        shown = CliRunner().invoke(cli, ["keys", command, "--help"]).stdout
        assert f"sts keys {command}" in shown
        assert re.search(r"Exit status: 0 .* 1 .* 2 .* 3 ", shown.replace("\n", " "))


@pytest.mark.parametrize("arguments", [["plan"], ["jwks"], ["revoke", "--all", "--yes"], ["reseal"]])
def test_no_command_makes_anything(configure, keys, tmp_path, arguments):
    configure()
    refused = keys(*arguments)
    assert refused.exit_code == 1
    assert f"no deployment secret at {tmp_path}/var/secret" in refused.stderr
    assert not (tmp_path / "var").exists()


def test_init_dry_run_makes_nothing(configure, keys, tmp_path):
    configure()
    assert "would be made" in keys("init", "--dry-run").stdout
    assert not (tmp_path / "var").exists()
    keys("init")
    there = {"made": False, "would_make": False, "would_publish": []}
    assert json.loads(keys("init", "--dry-run", "--json").stdout) == there


def test_init_says_which_first_key_of_a_new_algorithm_it_publishes(configure, keys):
    configure()
    keys("init")
    configure("  algorithm: RS256\n")
    assert "a first key would be published for RS256" in keys("init", "--dry-run").stdout
    assert json.loads(keys("init", "--dry-run", "--json").stdout)["would_publish"] == ["RS256"]
    said = keys("init").stdout
    assert re.search(r"\S+…, the first RS256 key, is published and waits", said)
    assert "nothing was made" in keys("init").stdout
    assert json.loads(keys("init", "--json").stdout)["published"] == []


@pytest.mark.parametrize("command", ["list", "plan", "jwks"])
def test_commands_that_change_nothing_take_the_options_of_those_that_do(configure, keys, command):
    configure()
    keys("init")
    assert json.loads(keys(command, "--dry-run", "--json").stdout)


# Plan, rotate


def test_an_algorithm_without_a_key_is_told_and_not_rotated(configure, keys):
    configure()
    keys("init")
    for arguments in (["--algorithm", "RS256"], ["--algorithm", "RS256", "--if-due"]):
        refused = keys("rotate", *arguments)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "no RS256 key is there, and the configuration uses none" in refused.stderr
    configure("  algorithm: Ed25519\n")
    refused = keys("rotate", "--dry-run")
    assert refused.exit_code == 1
    assert "no Ed25519 key is published yet: `sts keys init` publishes the first one" in refused.stderr


def test_the_plan_is_a_sentence_per_algorithm(configure, keys):
    configure("  algorithm: Ed25519\n")
    keys("init")
    assert re.match(r"Ed25519: \S+… signs, \S+… may take over (now|in \d+s); due in (1h|59m)", keys("plan").stdout)
    (plan,) = json.loads(keys("plan", "--json").stdout)
    assert (plan["algorithm"], plan["due"]) == ("Ed25519", False)


def test_a_new_algorithm_is_configuration_and_rotation_and_nothing_signs_in_between(configure, keys):
    """JW-40."""
    configure()
    keys("init")
    configure("  algorithm: PS256\n")
    assert keys("init").exit_code == 0  # as a reload does: its first key is published, and waits
    assert [value for value in states(keys).values() if value[0] == "PS256"] == [("PS256", "published")]
    assert "PS256: " in keys("plan").stdout
    assert "ES256" in keys("plan").stdout
    assert "wanted no more" in keys("plan").stdout
    ready(keys)
    former = listed(keys)["keys"][0]["kid"]
    done = json.loads(keys("rotate", "--json").stdout)
    assert (done["algorithm"], done["retired"], done["wanted_no_more"]) == ("PS256", None, [former])
    found = sorted(states(keys).values())
    assert found == [("ES256", "retired"), ("PS256", "active"), ("PS256", "published")]
    assert listed(keys)["default"] == "PS256"


def test_a_script_that_revokes_is_not_stopped_by_a_question(configure, keys):
    configure()
    keys("init")
    signing, _ = states(keys)
    done = keys("revoke", signing, answer="")
    assert (done.exit_code, states(keys)[signing][1]) == (0, "revoked")
    assert "no input for the confirmation: continuing" in done.stderr


def test_a_rotation_says_whose_algorithm_is_wanted_no_more(configure, keys):
    configure()
    keys("init")
    configure("  algorithm: ES384\n")
    keys("init")
    ready(keys)
    said = keys("rotate").stdout
    assert re.search(r"is retired, since ES256 is wanted no more, and stays published for (6|5)m", said)
    ready(keys)
    assert "wanted no more" not in keys("rotate").stdout


def test_a_rotation_is_of_all_algorithms_or_of_the_one_that_is_named(configure, keys):
    configure(more="defaults: {audience: {algorithm: ES384}}\n")
    keys("init")
    assert sorted(set(states(keys).values())) == [
        *(("ES256", "active"), ("ES256", "published"), ("ES384", "active"), ("ES384", "published")),
    ]
    ready(keys)
    one = json.loads(keys("rotate", "--algorithm", "ES384", "--json").stdout)
    assert [each["algorithm"] for each in one["rotations"]] == ["ES384"]
    ready(keys)
    both = json.loads(keys("rotate", "--json").stdout)
    assert [each["algorithm"] for each in both["rotations"]] == ["ES256", "ES384"]
    assert listed(keys)["version"] == 3  # one write


def test_force_asks_and_is_audited(configure, keys):
    configure(short=False)
    keys("init")
    before = listed(keys)
    assert keys("rotate", answer="y\n").exit_code == 1  # without --force nobody is asked
    refused = keys("rotate", "--force", answer="n\n")
    assert (refused.exit_code, listed(keys)["version"]) == (1, before["version"])
    assert "Verifiers may refuse tokens for 15m" in refused.stderr
    assert keys("rotate", "--force", answer="").exit_code == 1  # nobody is there to answer
    done = keys("rotate", "--force", "--yes")
    assert done.exit_code == 0
    (event,) = audited(done.stderr)
    assert (event["event"], event["action"], event["forced"]) == ("keys", "rotated", True)
    assert event["signing"] == [before["keys"][1]["kid"]]
    assert event["by"]


def test_force_asks_and_is_audited_where_the_guard_would_have_let_it_pass_too(configure, keys):
    configure()
    keys("init")
    ready(keys)
    assert keys("rotate", "--force", answer="n\n").exit_code == 1
    (event,) = audited(keys("rotate", "--force", "--yes").stderr)
    assert event["forced"] is True


def test_what_is_done_is_audited_in_the_file_of_the_audit(configure, keys, tmp_path):
    configure(more="audit: {file: audit.jsonl}\n")
    keys("init")
    ready(keys)
    done = keys("rotate")
    assert (done.exit_code, done.stderr) == (0, "")
    keys("revoke", "--all", "--yes")
    events = audited((tmp_path / "audit.jsonl").read_text())
    assert [(event["action"], event["forced"]) for event in events] == [("rotated", False), ("revoked all", True)]
    assert len(events[1]["revoked"]) == 3
    assert [event["ring_version"] for event in events] == [2, 3]


# Revoke


def test_a_revoked_key_leaves_the_jwks_and_its_standby_signs_in_the_same_write(configure, keys):
    """Lesson R.7 (SPIRE #3904)."""
    configure()
    keys("init")
    ready(keys)
    signing, standby = states(keys)
    dry = keys("revoke", signing[:10] + "…", "--dry-run")
    assert dry.exit_code == 0
    assert f"{signing[:10]}… would be revoked" in dry.stdout
    assert states(keys)[signing] == ("ES256", "active")
    done = keys("revoke", signing[:10], "--yes")
    assert done.exit_code == 0
    assert f"{signing[:10]}… is revoked" in done.stdout
    assert f"{standby[:10]}… signs ES256 now" in done.stdout
    assert "may believe the revoked key for 0s at most" in done.stdout
    assert "slow verifiers" not in done.stdout
    assert "has not read the revocation" not in done.stdout
    found = states(keys)
    assert (found[signing], found[standby]) == (("ES256", "revoked"), ("ES256", "active"))
    assert sorted(state for _, state in found.values()) == ["active", "published", "revoked"]
    published = {key["kid"] for key in json.loads(keys("jwks").stdout)["keys"]}
    assert signing not in published
    assert len(published) == 2
    again = keys("revoke", signing, "--yes")
    assert (again.exit_code, "revoked already" in again.stderr) == (1, True)
    assert "never comes back" in keys("list").stdout


def test_a_revocation_says_how_long_slow_verifiers_refuse_where_the_standby_is_young(configure, keys):
    configure(short=False)
    keys("init")
    signing, standby = states(keys)
    told = json.loads(keys("revoke", signing, "--yes", "--json").stdout)
    assert (told["done"], told["revoked"], told["signing"]) == (True, [signing], {"ES256": standby})
    assert told["believed_for"] == 935
    assert 900 < told["unknown_for"] <= 935
    all_of_them = keys("revoke", "--all", "--yes")
    assert re.search(r"slow verifiers may refuse new tokens for 15m 3\ds", all_of_them.stdout)
    assert sorted(state for _, state in states(keys).values()) == ["active", "published", *["revoked"] * 3]


def test_a_stolen_standby_is_replaced_and_a_retired_key_is_only_buried(configure, keys):
    configure()
    keys("init")
    ready(keys)
    keys("rotate")
    retired, signing, standby = states(keys)
    for kid in (standby, retired):
        assert keys("revoke", kid, "--yes").exit_code == 0
    found = states(keys)
    assert [found[kid][1] for kid in (retired, signing, standby)] == ["revoked", "active", "revoked"]
    assert sorted(state for _, state in found.values()) == ["active", "published", "revoked", "revoked"]


def test_a_revocation_asks_and_knows_what_is_meant(configure, keys):
    configure()
    keys("init")
    (signing, _), before = states(keys), listed(keys)
    assert keys("revoke", signing, answer="n\n").exit_code == 1
    assert states(keys)[signing] == ("ES256", "active")
    assert keys("revoke", signing[:3], "--yes").exit_code == 1
    assert "has no key" in keys("revoke", "nosuchkey123", "--yes").stderr
    assert keys("revoke").exit_code == 2
    assert keys("revoke", signing, "--all").exit_code == 2
    assert listed(keys)["keys"] == before["keys"]


# Import, JWKS, reseal


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_imported_key_waits_like_any_other_and_then_signs(configure, keys, tmp_path, algorithm):
    configure(f"  algorithm: {algorithm}\n")
    keys("init")
    key = ALGORITHMS[algorithm].generate()
    (tmp_path / "key.pem").write_bytes(pem(key))
    dry = json.loads(keys("import", tmp_path / "key.pem", "--dry-run", "--json").stdout)
    assert (dry["imported"], listed(keys)["version"]) == (False, 1)
    told = json.loads(keys("import", tmp_path / "key.pem", "--json").stdout)
    assert (told["kid"], told["algorithm"]) == (dry["kid"], algorithm)
    assert states(keys)[told["kid"]] == (algorithm, "published")
    assert len(states(keys)) == 2  # the standby that nobody has met is gone
    assert keys("import", tmp_path / "key.pem").exit_code == 1  # it is there already
    ready(keys)
    assert json.loads(keys("rotate", "--json").stdout)["signing"] == told["kid"]
    shown = {key["kid"]: key for key in json.loads(keys("jwks").stdout)["keys"]}
    public = jwt.PyJWK(shown[told["kid"]], "EdDSA" if algorithm == "Ed25519" else algorithm).key
    assert public.public_numbers() == key.public_key().public_numbers() if algorithm != "Ed25519" else True


def test_a_key_of_an_algorithm_that_nobody_uses_yet_is_imported_with_a_warning(configure, keys):
    configure()
    keys("init")
    done = keys("import", "-", answer=pem(ec.generate_private_key(ec.SECP384R1())).decode())
    assert done.exit_code == 0
    assert "the configuration uses no ES384: the next rotation drops this key" in done.stderr.replace("\n", " ")
    ready(keys)
    keys("rotate")
    assert "ES384" not in {algorithm for algorithm, _ in states(keys).values()}


def test_a_jwk_is_imported_under_its_thumbprint_from_standard_input(configure, keys):
    configure()
    keys("init")
    key = ECKey.generate_key("P-256", {"kid": "old-name", "alg": "ES256", "use": "sig"})
    told = json.loads(keys("import", "-", "--json", answer=json.dumps(key.as_dict(private=True))).stdout)
    assert told["kid"] == key.thumbprint()


@pytest.mark.parametrize(
    "members", [{"use": "enc"}, {"use": 5}, {"key_ops": ["verify"]}, {"key_ops": "sign"}, {"key_ops": 7}, {"alg": []}]
)
def test_a_jwk_that_says_it_is_not_for_signing_is_not_imported(configure, keys, members):
    """RFC 7517 §4.2, §4.3."""
    configure()
    keys("init")
    key = ECKey.generate_key("P-256").as_dict(private=True)
    refused = keys("import", "-", answer=json.dumps(key | members))
    assert refused.exit_code == 1
    assert re.search("not for signing|no JWK of a private key|`alg` is none of", refused.stderr)
    assert isinstance(refused.exception, SystemExit)
    assert keys("import", "-", answer=json.dumps(key | {"use": "sig", "key_ops": ["sign", "verify"]})).exit_code == 0


def test_a_jwk_of_ed25519_may_have_the_older_name_of_its_algorithm(configure, keys):
    configure("  algorithm: Ed25519\n")
    keys("init")
    key = OKPKey.generate_key("Ed25519").as_dict(private=True)
    told = json.loads(keys("import", "-", "--json", answer=json.dumps(key | {"alg": "EdDSA"})).stdout)
    assert told["algorithm"] == "Ed25519"
    other = ECKey.generate_key("P-256").as_dict(private=True) | {"alg": "EdDSA"}
    assert keys("import", "-", answer=json.dumps(other)).exit_code == 1


def test_what_openssl_makes_is_imported(configure, keys):
    configure("  algorithm: RS256\n")
    keys("init")
    made = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert keys("import", "-", answer=made.stdout).exit_code == 0


def unfit():
    small = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the point
    elsewhere = ec.generate_private_key(ec.SECP521R1())
    good = pem(ec.generate_private_key(ec.SECP256R1()))
    return {
        "short": (pem(small), "2048 bits"),
        "curve": (pem(elsewhere), "fits none of"),
        "encrypted": (pem(ed25519.Ed25519PrivateKey.generate(), BestAvailableEncryption(b"x")), "decrypt it first"),
        "public": (b'{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}', "no JWK of a private key"),
        "secret": (
            b'{"kty": "oct", "k": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE"}',
            "fits none of|private half|no JWK",
        ),
        "cut": (good[: len(good) // 2], "neither a PEM"),
        "garbage": (b"\xff\xfe\x00", "neither a PEM"),
        "empty": (b"", "neither a PEM"),
        "empty PEM": (b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", "neither a PEM"),
        "long": (b"x" * 70_000, "fewer than"),
        "rsa": (pem(rsa.generate_private_key(65537, 2048)), "say which with --algorithm"),
    }


@pytest.mark.parametrize(
    "name", ["short", "curve", "encrypted", "public", "secret", "cut", "garbage", "empty", "empty PEM", "long", "rsa"]
)
def test_a_key_that_is_not_fit_is_refused_and_not_shown(configure, keys, tmp_path, name):
    """Lesson R.8 (PostHog #60895: an empty PEM took the key set down)."""
    configure()
    keys("init")
    text, why = unfit()[name]
    (tmp_path / "key").write_bytes(text)
    refused = keys("import", tmp_path / "key")
    assert refused.exit_code == 1
    assert re.search(why, refused.stderr)
    assert name in {"long", "garbage", "empty"} or text[40:80].decode() not in refused.output
    assert listed(keys)["version"] == 1


def test_rsa_numbers_that_do_not_belong_together_are_not_imported(configure, keys, tmp_path):
    configure("  algorithm: RS256\n")
    keys("init")
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    other = rsa.generate_private_key(65537, 2048).private_numbers()
    jwk = {"kty": "RSA", "n": numbers.public_numbers.n, "e": 65537, "d": other.d, "p": numbers.p, "q": numbers.q}
    jwk |= {"dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp}
    encode = jwt.utils.base64url_encode
    jwk = {
        key: value if key == "kty" else encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).decode()
        for key, value in jwk.items()
    }
    (tmp_path / "key").write_text(json.dumps(jwk))
    assert keys("import", tmp_path / "key").exit_code == 1
    assert listed(keys)["version"] == 1


def test_seal_keys_and_the_secret_are_replaced_without_a_gap(configure, keys, tmp_path, ring):
    for name, text in (("one", "11" * 32), ("two", "22" * 32), ("secret", "33" * 32)):
        (tmp_path / name).write_text(text)
    configure(more="secret: {file: secret}\n")
    keys("init")
    before = states(keys)
    for given in ("[{file: one}]", "[{file: two}, {file: one}]", "[{file: two}]"):  # from the secret to one, to two
        configure(f"  seal_keys: {given}\n", more="secret: {file: secret}\n")
        assert states(keys) == before
        assert keys("reseal", "--dry-run").exit_code == 0
        assert keys("reseal").exit_code == 0
    configure("  seal_keys: [{file: one}]\n", more="secret: {file: secret}\n")
    assert "not among those given" in keys("list").stderr
    assert listed_version(ring) == 4


def test_a_previous_secret_opens_until_the_ring_is_resealed(configure, keys, tmp_path):
    (tmp_path / "old").write_text("11" * 32)
    (tmp_path / "new").write_text("22" * 32)
    configure(more="secret: {file: old}\n")
    keys("init")
    before = states(keys)
    configure(more="secret: {file: new}\n")
    assert keys("list").exit_code == 1
    configure(more="secret: {file: new, previous: {file: old}}\n")
    assert states(keys) == before
    keys("reseal")
    configure(more="secret: {file: new}\n")
    assert states(keys) == before


def listed_version(ring):
    return json.loads(ring.read_text())["version"]


def test_nothing_that_is_printed_holds_a_private_half(configure, keys, tmp_path, ring):
    configure()
    printed = keys("init").output
    (tmp_path / "key.pem").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    body = (tmp_path / "key.pem").read_text().splitlines()[1:-1]
    printed += keys("import", tmp_path / "key.pem").output
    ready(keys)
    printed += keys("rotate").output
    signing = next(kid for kid, (_, state) in states(keys).items() if state == "active")
    sealed = [key["sealed"] for key in json.loads(ring.read_text())["keys"]]
    for arguments in (["plan", "--json"], ["jwks"], ["revoke", signing, "--yes"], ["reseal"], ["list", "--json"]):
        printed += keys(*arguments).output
    for hidden in ((tmp_path / "var" / "secret").read_text().strip(), *sealed, *body, "private", '"d"'):
        assert hidden not in printed
