"""`sts api-keys`: what each command takes, says, keeps and refuses; and two machines over one Redis."""

import hashlib
import json
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from redis_servers import RedisServer

from scripts import servers
from sts.cli import common
from sts.cli.api_keys import importing
from sts.mint.keystore import open_secret, prepare
from sts.settings import load
from sts.state import ConflictError, StateSettings, open_state
from sts.state.api_keys import ApiKeys
from sts.state.key_records import LABEL, NAMESPACE, KeyRecords, digest, id_of, imported_id

PREFIX = "sk_live_"
LEGACY = "sk_live_legacy-0123456789abcdef0123456789abcdef"
SOURCE = {
    "type": "api_key",
    "prefix": PREFIX,
    "audiences": ["orders"],
    "namespace": "key",
    "identity": {"subject": "key.owner", "scopes": "key.scopes"},
}


def with_keys(document, **more):
    document["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
    document["sources"]["partner-keys"] = dict(SOURCE)
    document["sources"].update(more)
    document["clients"]["edge-gateway"]["sources"] = ["*"]


def prepared(file, environment=None):
    settings = load(file, environment)
    prepare(settings.keys, settings.var, settings.given_secret(), time.time, settings.wanted())
    return file


@pytest.fixture
def config(configure):
    """A configuration with one source of keys, whose secret and ring were made."""
    return prepared(configure(with_keys))


@pytest.fixture
def run(sts, config):
    def run(*arguments, status=0, **more):
        done = sts("api-keys", *arguments, "-c", config, **more)
        assert done.exit_code == status, (done.exit_code, done.stdout, done.stderr)
        return done

    return run


@pytest.fixture
def create(run):
    def create(*arguments):
        return json.loads(run("create", "--owner", "acme", *arguments, "--json").stdout)

    return create


@pytest.fixture
def listed(run):
    def listed(*arguments):
        return json.loads(run("list", "--all", "--json", *arguments).stdout)

    return listed


@pytest.fixture
def records(config, run):
    """The records as the commands keep them."""
    run("list")  # makes the store
    settings = load(config)
    state = open_state(settings.state, settings.redis, settings.var, time.time)
    yield KeyRecords(state, open_secret(None, settings.var).keys(LABEL))
    state.close()


def write(folder, text, name="keys"):
    (folder / name).write_text(text)
    return folder / name


# create


def test_a_key_is_made_with_what_it_may_and_shown_once(run, create, listed):
    """AK-01, AK-02."""
    options = ["--tenant", "t", "--scope", "a b", "--scope", "a", "--audience", "orders"]
    made = create(*options, "--tier", "gold", "--expires", "90d")
    assert set(made) == {"key", "id", "expires_at"}
    assert made["key"].startswith(PREFIX + made["id"])
    assert abs(made["expires_at"] - time.time() - 90 * 86400) < 60
    (found,) = listed()
    assert {name: found[name] for name in ("id", "owner", "source", "tenant", "scopes", "audiences", "tier")} == {
        "id": made["id"],
        "owner": "acme",
        "source": "partner-keys",
        "tenant": "t",
        "scopes": ["a", "b"],
        "audiences": ["orders"],
        "tier": "gold",
    }
    assert (found["state"], found["last_used"], found["expires_at"]) == ("live", None, made["expires_at"])
    assert made["key"] not in run("list").stdout + json.dumps(listed())


def test_a_person_is_told_in_three_lines(run):
    lines = run("create", "--owner", "acme").stdout.splitlines()
    assert lines[0].startswith(f"key (shown once):  {PREFIX}")
    assert lines[1].endswith("owner acme, source partner-keys; it never expires")
    assert len(lines) == 2
    assert "it expires on 2" in run("create", "--owner", "acme", "--expires", "1d").stdout


def test_a_scope_that_no_audience_has_is_told_and_the_key_is_made(run):
    done = run("create", "--owner", "acme", "--scope", "orders:raed", "--scope", "orders:read", "--json")
    assert json.loads(done.stdout)["key"]
    assert done.stderr == "warning: no audience has the scope orders:raed: is that meant?\n"
    assert run("create", "--owner", "acme", "--scope", "orders:read").stderr == ""


def test_an_owner_may_have_several(create, listed):
    made = {create()["id"] for _ in range(3)}
    assert {one["id"] for one in listed("--owner", "acme")} == made
    assert listed("--owner", "somebody") == []


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ([], 2, "Missing option '--owner'"),
        (["--owner", ""], 2, "`owner` is a printable text"),
        (["--owner", "a\x1b[2J"], 2, "`owner` is a printable text"),
        (["--owner", "x" * 257], 2, "`owner` is a printable text"),
        (["--owner", "a", "--scope", " "], 2, "a scope is visible ASCII without spaces"),
        (["--owner", "a", "--scope", '"'], 2, "a scope is visible ASCII"),
        (["--owner", "a", "--audience", "nowhere"], 2, "there is no audience nowhere"),
        (["--owner", "a", "--audience", "billing"], 2, "the source partner-keys does not list the audience billing"),
        (["--owner", "a", "--expires", "90"], 2, "a duration is"),
        (["--owner", "a", "--expires", "0s"], 2, "it must end in the future"),
        (["--owner", "a", "--expires", "9999999d"], 2, "before the year 10000"),
        (["--owner", "a", "--source", "corporate-idp"], 2, "corporate-idp is not a source of type api_key"),
    ],
)
def test_what_makes_no_key_is_refused_in_a_sentence(run, listed, options, status, says):
    done = run("create", *options, status=status)
    assert done.stdout == ""
    assert says in " ".join(done.stderr.split())
    assert listed() == []


def test_of_several_sources_one_must_be_named_and_without_any_none_is_made(sts, configure):
    several = prepared(configure(lambda it: with_keys(it, other={**SOURCE, "prefix": "pk_", "namespace": "other"})))
    done = sts("api-keys", "create", "--owner", "a", "-c", several)
    assert (done.exit_code, "--source (partner-keys, other)" in done.stderr) == (2, True)
    done = sts("api-keys", "create", "--owner", "a", "--source", "corporate-idp", "-c", several)
    assert (done.exit_code, "corporate-idp is not a source of type api_key" in done.stderr) == (2, True)
    done = sts("api-keys", "create", "--owner", "a", "--source", "other", "--json", "-c", several)
    assert json.loads(done.stdout)["key"].startswith("pk_")
    done = sts("api-keys", "create", "--owner", "a", "-c", configure(lambda _: None))
    assert (done.exit_code, done.stderr) == (
        1,
        "sts: no source of type api_key is configured: write one under `sources`\n",
    )


# list


def test_a_list_leaves_out_what_is_over_unless_asked(run, create, listed, records):
    live, revoked, expired = create()["id"], create()["id"], create()["id"]
    run("revoke", revoked)
    records.put(replace(records.get(expired), expires_at=int(time.time()) - 1))
    assert {one["id"]: one["state"] for one in listed()} == {live: "live", revoked: "revoked", expired: "expired"}
    plain = run("list").stdout
    assert (live in plain, revoked in plain, expired in plain) == (True, False, False)
    assert plain.rstrip().endswith("1 key")
    shown = run("list", "--all").stdout
    assert [word in shown for word in (revoked, expired, "revoked", "expired", "3 keys")] == [True] * 5


def test_keys_of_a_source_that_is_gone_are_shown_as_such(sts, config, configure, create):
    made = create()["id"]
    configure(lambda it: with_keys(it) or it["sources"].update(renamed=it["sources"].pop("partner-keys")))
    (found,) = json.loads(sts("api-keys", "list", "--json", "-c", config).stdout)
    assert (found["id"], found["source"], found["state"]) == (made, "partner-keys", "no_source")
    assert "no source" in sts("api-keys", "list", "-c", config).stdout
    done = sts("api-keys", "rotate", made, "-c", config)
    assert (done.exit_code, done.stderr) == (1, "sts: partner-keys is not a source of type api_key\n")
    assert sts("api-keys", "revoke", made, "-c", config).exit_code == 0


def test_a_record_that_somebody_else_wrote_is_told_and_the_others_are_listed(run, create, records):
    good, bad = create()["id"], create()["id"]
    record = records.state.get(NAMESPACE, bad)
    records.state.put(NAMESPACE, bad, record.value.replace(b'"acme"', b'"root"'), expected=None)
    done = run("list", "--json", status=1)
    assert [one["id"] for one in json.loads(done.stdout)] == [good]
    assert f"1 records are not authentic, and refused by running services: {bad}" in done.stderr
    assert "no API key" in run("revoke", bad, status=1).stderr


@pytest.mark.parametrize("width", [40, 60, 80])
def test_on_a_narrow_terminal_no_word_of_a_list_is_lost(run, create, monkeypatch, width):
    made = create("--scope", "orders:read-everything", "--tenant", "a-rather-long-tenant", "--tier", "gold")["id"]
    monkeypatch.setattr(common.console, "_width", width)
    text = run("list").stdout
    assert "…" not in text
    assert made in text
    assert max(map(len, text.splitlines())) <= max(width, 60)


# revoke


def test_a_revocation_is_told_and_lasts(run, create, listed):
    made = create()["id"]
    first = json.loads(run("revoke", made, "--json").stdout)
    assert (first["id"], abs(first["revoked_at"] - time.time()) < 60) == (made, True)
    assert json.loads(run("revoke", made, "--json").stdout) == first
    assert "is revoked; running services refuse it within two seconds" in run("revoke", made).stdout
    assert listed()[0]["state"] == "revoked"


@pytest.mark.parametrize("status", ["revoke", "rotate"])
def test_an_id_that_is_not_there_is_refused(run, status):
    assert "there is no API key 0123456789AB" in run(status, "0123456789AB", status=1).stderr


def test_a_whole_key_is_no_id_and_never_repeated_but_read_from_standard_input(run, create, listed):
    """Whoever finds a leaked key has its text, not its id; the command line is no place for it."""
    made = create()
    done = run("revoke", made["key"], status=2)
    assert made["key"] not in done.stdout + done.stderr
    assert listed()[0]["state"] == "live"
    assert made["id"] in run("revoke", "-", input=made["key"] + "\n").stdout
    assert listed()[0]["state"] == "revoked"
    for wrong in ("", "pk_test_123", made["key"][:-1], "x" * 2_000_000):
        done = run("revoke", "-", input=wrong, status=1)
        assert wrong[:40] not in done.stderr or not wrong


def test_an_imported_key_is_revoked_by_its_text_too(run, tmp_path, listed):
    run("import", write(tmp_path, f"key,owner\n{LEGACY},a\n"))
    run("revoke", "-", input=LEGACY)
    assert listed()[0]["state"] == "revoked"


# rotate


def test_a_successor_may_and_lives_as_the_old_one_did_and_the_old_one_ends(run, create, listed):
    old = create("--scope", "a", "--tenant", "t", "--tier", "gold", "--audience", "orders", "--expires", "30d")
    new = json.loads(run("rotate", old["id"], "--grace", "1d", "--json").stdout)
    assert new["replaces"] == old["id"]
    assert abs(new["replaced_ends_at"] - time.time() - 86400) < 60
    by_id = {one["id"]: one for one in listed()}
    same = ("owner", "source", "tenant", "scopes", "audiences", "tier")
    assert [by_id[new["id"]][name] for name in same] == [by_id[old["id"]][name] for name in same]
    assert (by_id[old["id"]]["state"], by_id[old["id"]]["replaced_by"]) == ("replaced", new["id"])
    assert by_id[old["id"]]["expires_at"] == new["replaced_ends_at"]
    assert abs(new["expires_at"] - time.time() - 30 * 86400) < 60
    assert by_id[new["id"]]["state"] == "live"


def test_what_has_a_successor_or_is_over_is_not_rotated(run, create, listed):
    """A second rotation would take the grace period for the life that the key was given."""
    old = create()["id"]
    new = json.loads(run("rotate", old, "--json").stdout)
    assert run("rotate", old, status=1).stderr == f"sts: rotate {new['id']}, its successor\n"
    third = json.loads(run("rotate", new["id"], "--grace", "0s", "--json").stdout)
    assert third["expires_at"] is None
    assert "is expired: make a new key" in run("rotate", new["id"], status=1).stderr
    run("revoke", third["id"])
    assert "is revoked: make a new key" in run("rotate", third["id"], status=1).stderr
    assert len(listed()) == 3


def test_a_grace_period_never_lengthens_a_life_and_a_person_is_told_its_end(run, create):
    old = create("--expires", "1h")
    done = json.loads(run("rotate", old["id"], "--grace", "7d", "--json").stdout)
    assert done["replaced_ends_at"] == old["expires_at"]
    said = run("rotate", create()["id"]).stdout.splitlines()[-1]
    assert f"works until {time.strftime('%Y-%m-%d', time.gmtime(time.time() + 7 * 86400))}" in said


def test_a_key_that_is_revoked_while_it_is_rotated_gets_no_living_successor(run, create, records, monkeypatch):
    old = create()["id"]
    put = KeyRecords.put

    def raced(self, key):
        if key.replaced_by:
            raise ConflictError("changed")
        return put(self, key)

    monkeypatch.setattr(KeyRecords, "put", raced)
    done = run("rotate", old, status=1)
    assert (done.stdout, "another process changed this key" in done.stderr) == ("", True)
    assert [key.id for key in records.all() if key.revoked_at is None] == [old]


def test_a_revocation_wins_whoever_changes_the_key_at_the_same_time(run, create, records, monkeypatch):
    made, put, lost = create()["id"], KeyRecords.put, []

    def raced(self, key):
        if not lost:
            lost.append(key)
            put(self, replace(self.get(made), tier="gold"))  # somebody else was quicker
        return put(self, key)

    monkeypatch.setattr(KeyRecords, "put", raced)
    run("revoke", made)
    assert (records.get(made).revoked_at is not None, records.get(made).tier) == (True, "gold")


def test_an_imported_key_gets_a_successor_of_our_own_shape(run, tmp_path, listed):
    run("import", write(tmp_path, f"key,owner,scopes\n{LEGACY},acme,a b\n"))
    (old,) = listed()
    new = json.loads(run("rotate", old["id"], "--json").stdout)
    assert id_of(PREFIX, new["key"]) == new["id"]
    found = next(one for one in listed() if one["id"] == new["id"])
    assert (found["scopes"], found["imported"], old["imported"]) == (["a", "b"], False, True)


# import


def test_keys_are_imported_from_csv_and_json_lines_by_text_or_hash(run, tmp_path, listed):
    hashed = hashlib.sha256(b"sk_live_hashed-elsewhere").hexdigest().upper()
    columns = "\ufeffkey,sha256,owner,tenant,scopes,audiences,tier,expires_at"  # as spreadsheets write it
    csv = f"{columns}\n{LEGACY},,a,t,x y,orders,gold,4000000000\n,{hashed},b,,,,,\n"
    assert run("import", write(tmp_path, csv)).stdout == "2 imported, 0 there already\n"
    lines = json.dumps({"key": LEGACY + "2", "owner": "c", "scopes": ["x"], "expires_at": 4000000000}) + "\n\n"
    done = json.loads(run("import", write(tmp_path, lines), "--json").stdout)
    assert done == {"imported": [imported_id(digest(LEGACY + "2"))], "there_already": 0, "differ": {}}
    by_owner = {one["owner"]: one for one in listed()}
    assert (by_owner["a"]["scopes"], by_owner["a"]["audiences"], by_owner["a"]["expires_at"]) == (
        *(["x", "y"], ["orders"], 4000000000),
    )
    assert by_owner["b"]["id"] == imported_id(hashed.lower())
    assert all(one["imported"] for one in by_owner.values())


def test_a_dry_run_writes_nothing_and_says_what_it_would(run, tmp_path, listed):
    file = write(tmp_path, f"key,owner\n{LEGACY},a\n")
    assert run("import", "--dry-run", file).stdout == "1 would be imported, 0 there already\n"
    told = json.loads(run("import", "--dry-run", file, "--json").stdout)
    assert (told["imported"], told["would_import"]) == ([], [imported_id(digest(LEGACY))])
    assert listed() == []


def test_a_key_that_is_there_but_differs_is_left_and_told(run, tmp_path, listed):
    file = write(tmp_path, f"key,owner,scopes\n{LEGACY},acme,a\n")
    run("import", file)
    assert run("import", file).stdout == "0 imported, 1 there already\n"
    other = write(tmp_path, f"key,owner,scopes,tier\n{LEGACY},acme,a b,gold\n{LEGACY}2,acme,a,\n")
    done = run("import", other, "--json", status=1)
    told, key_id = json.loads(done.stdout), imported_id(digest(LEGACY))
    assert told["differ"] == {key_id: ["another scopes", "another tier"]}
    assert told["imported"] == [imported_id(digest(LEGACY + "2"))]
    assert f"{key_id} is there already and was left as it is: another scopes, another tier" in done.stderr
    assert next(one for one in listed() if one["id"] == key_id)["scopes"] == ["a"]


def test_no_file_brings_a_revoked_or_replaced_key_back_to_life(run, tmp_path, listed):
    file = write(tmp_path, f"key,owner\n{LEGACY},acme\n{LEGACY}2,acme\n")
    run("import", file)
    first, second = imported_id(digest(LEGACY)), imported_id(digest(LEGACY + "2"))
    run("revoke", first)
    run("rotate", second)
    done = run("import", file, "--json", status=1)
    assert json.loads(done.stdout)["differ"] == {first: ["revoked"], second: ["replaced", "another expires_at"]}
    assert {one["id"]: one["state"] for one in listed()}[first] == "revoked"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{LEGACY},acme\n", "the first line must name the columns"),
        ("", "the first line must name the columns"),
        ("key,key,owner\n", "the first line must name the columns"),
        ("owner,scopes\n", "the first line must name the columns"),
        (f"key,owner\n{LEGACY},acme,more\n", "line 2: it has more columns than the first line"),
        (f"key,owner\n{LEGACY},\n", "line 2: `owner` is a printable text"),
        (f"key,owner\n{LEGACY},a\n{LEGACY},b\n", "line 3: this key is in the file twice"),
        ("key,owner\npk_live_0123456789,a\n", "line 2: the key does not begin with sk_live_"),
        ("key,owner\nsk_live_short,a\n", "line 2: the key is too short after its prefix"),
        (f"key,owner\nsk_live_{'x' * 250},a\n", "a key is at most 256 visible ASCII characters"),
        (f"key,owner\nsk_live_{'x' * 50},a\n", "line 2: the key has the format of generated keys"),
        (f"key,sha256,owner\n{LEGACY},{'0' * 64},a\n", "line 2: write either `key` or `sha256`"),
        ("sha256,owner\nabc,a\n", "line 2: `sha256` is 64 hex digits"),
        (f'key,owner,scopes\n{LEGACY},a,"x\n', "not CSV after line 1"),
        (f"key,owner,scopes\n{LEGACY},a,x\\y\n", "line 2: a scope is visible ASCII"),
        (f"key,owner,audiences\n{LEGACY},a,nowhere\n", "line 2: there is no audience nowhere"),
        (f"key,owner,audiences\n{LEGACY},a,billing\n", "line 2: the source partner-keys does not list"),
        (f"key,owner,expires_at\n{LEGACY},a,soon\n", "line 2: `expires_at` is Unix seconds"),
        (f"key,owner,expires_at\n{LEGACY},a,1700000000\n", "line 2: `expires_at` is in the past"),
        (f"key,owner,expires_at\n{LEGACY},a,{10**20}\n", "line 2: `expires_at` is Unix seconds"),
        (json.dumps({"key": LEGACY, "owner": "a", "expires_at": True}), "line 1: `expires_at` is Unix seconds"),
        (json.dumps({"key": LEGACY, "owner": "a", "expires_at": float("inf")}), "line 1: `expires_at` is Unix seconds"),
        (json.dumps({"key": LEGACY, "owner": "a", "scopes": 5}), "line 1: scopes and audiences are lists"),
        (json.dumps({"key": LEGACY, "owner": "a", "scopes": [5]}), "line 1: `scopes` is a printable text"),
        (json.dumps({"key": [LEGACY], "owner": "a"}), "line 1: write either `key` or `sha256`"),
        (json.dumps({"key": LEGACY, "owner": "a", LEGACY: 1}), "line 1: it has an unknown column"),
        ('{"key": ' + "[" * 100_000, "line 1: it is not a JSON object"),
        ("{}\n{", "line 2: it is not a JSON object"),
        (f'[{{"key": "{LEGACY}", "owner": "a"}}]', "one object per line, without brackets"),
        ("{}\n[]", "line 2: it is not a JSON object"),
    ],
    ids=range(30),
)
def test_a_faulty_line_is_named_the_key_is_not_and_nothing_is_imported(run, tmp_path, listed, text, says):
    done = run("import", write(tmp_path, text), status=1)
    assert says in done.stderr
    assert LEGACY not in done.stdout + done.stderr
    assert "\\n" not in done.stderr
    assert "Traceback" not in done.stderr
    assert listed() == []


def test_a_file_may_be_large_but_not_endless(run, tmp_path, monkeypatch):
    rest = "".join(f"{LEGACY}{number},acme,{'scope ' * 100}\n" for number in range(2000))
    file = write(tmp_path, "key,owner,scopes\n" + rest)
    assert file.stat().st_size > 1_000_000
    assert run("import", "--dry-run", file).stdout.startswith("2000 would be imported")
    monkeypatch.setattr(importing, "LONGEST", 1000)
    assert "longer than 1000 bytes: import it in parts" in run("import", file, status=1).stderr
    (tmp_path / "latin").write_bytes(b"key,owner\n\xff,a\n")
    assert "not UTF-8 text" in run("import", tmp_path / "latin", status=1).stderr


@examples(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.builds(
            lambda body, owner, scopes: {"key": PREFIX + body, "owner": owner, "scopes": scopes},
            st.text("abcdefXYZ0189-._~!", min_size=8, max_size=40),
            st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20),
            st.lists(st.text("abc:.", min_size=1, max_size=8), max_size=3),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda row: row["key"],
    )
)
def test_whatever_is_imported_is_proven_with_exactly_what_the_file_says(sts, config, tmp_path, rows):
    """The law of import: the worker's view is the file's."""
    file = write(tmp_path, "\n".join(map(json.dumps, rows)))
    assert sts("api-keys", "import", file, "-c", config).exit_code in (0, 1)  # an earlier example may have had the key
    settings = load(config)
    state = open_state(settings.state, None, settings.var, time.time)
    keys = ApiKeys(KeyRecords(state, open_secret(None, settings.var).keys(LABEL)), time.time, StateSettings())
    keys.follower.look()
    for row in rows:
        found = keys.prove("partner-keys", PREFIX, row["key"])
        assert found.digest == hashlib.sha256(row["key"].encode()).hexdigest()
    state.close()


# the audit


def test_whatever_is_done_to_a_key_is_audited_by_its_id_and_never_with_the_key(sts, configure, tmp_path):
    config = prepared(configure(lambda it: with_keys(it) or it.update(audit={"file": "audit.jsonl"})))

    def run(*arguments, **more):
        done = sts("api-keys", *arguments, "-c", config, **more)
        assert (done.exit_code, done.stderr) == (0, "")
        return done.stdout

    first = json.loads(run("create", "--owner", "acme", "--json"))
    second = json.loads(run("rotate", first["id"], "--json"))
    run("revoke", "-", input=second["key"])
    run("revoke", second["id"])  # it is revoked already: nothing was done
    file = write(tmp_path, json.dumps({"key": LEGACY, "owner": "acme"}))
    run("import", "--dry-run", file)
    run("import", file)
    run("import", file)  # it is there already
    run("reseal")
    run("list")
    text = (tmp_path / "audit.jsonl").read_text()
    events = [json.loads(line) for line in text.splitlines()]
    imported = imported_id(digest(LEGACY))
    assert [(one["action"], one.get("credential_id"), one.get("replaced_by")) for one in events] == [
        ("created", first["id"], None),
        ("rotated", first["id"], second["id"]),
        ("revoked", second["id"], None),
        ("imported", imported, None),
        ("resealed", None, None),
    ]
    assert {(one["owner"], one["source"]) for one in events[:-1]} == {("acme", "partner-keys")}
    assert all(one["event"] == "api_keys" and one["by"] and one["time"] and one["revision"] for one in events)
    assert [key for key in (first["key"], second["key"], LEGACY, digest(LEGACY)) if key in text] == []


def test_without_a_file_for_the_audit_a_revocation_alone_is_told_on_standard_error(run, create):
    made = create("--owner", "acme")
    (event,) = map(json.loads, run("revoke", made["id"]).stderr.splitlines())
    assert (event["event"], event["action"], event["credential_id"]) == ("api_keys", "revoked", made["id"])
    assert run("revoke", made["id"]).stderr == ""


# stores


@pytest.mark.parametrize(
    "command", [["list"], ["create", "--owner", "a"], ["revoke", "0123456789AB"], ["rotate", "0123456789AB"]]
)
def test_a_store_that_cannot_be_used_is_exit_status_3(sts, config, command):
    (config.parent / "var" / "state.db").mkdir()
    done = sts("api-keys", *command, "-c", config)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "state" in done.stderr


def test_without_the_deployment_secret_nothing_is_made(sts, configure):
    done = sts("api-keys", "create", "--owner", "a", "-c", configure(with_keys))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "there is no deployment secret" in done.stderr


@pytest.fixture
def valkey(tmp_path):
    if servers.find(servers.VALKEY) is None:
        pytest.skip("no valkey-server is installed, and none could be")
    server = RedisServer("valkey", tmp_path / "valkey").start()
    yield server
    server.stop()


def test_two_machines_over_one_redis_have_the_same_keys(sts, configure, valkey, monkeypatch, tmp_path):
    """AK-02; and a Redis that is gone is exit status 3, at once."""
    monkeypatch.setenv("STS_SECRET", "A" * 43)
    monkeypatch.setenv("REDIS_PASSWORD", valkey.settings["password"])
    redis = {"url": valkey.settings["url"], "password": {"env": "REDIS_PASSWORD"}}
    shared = {"redis": redis, "secret": {"env": "STS_SECRET"}, "state": {"store": "redis"}}
    file = configure(lambda it: with_keys(it) or it.update(shared))

    def on(machine, *arguments):
        (tmp_path / machine).mkdir(exist_ok=True)
        (tmp_path / machine / "sts.yaml").write_text(file.read_text())
        return sts("api-keys", *arguments, "-c", tmp_path / machine / "sts.yaml")

    made = json.loads(on("one", "create", "--owner", "acme", "--json").stdout)
    assert [one["id"] for one in json.loads(on("two", "list", "--json").stdout)] == [made["id"]]
    assert on("two", "revoke", made["id"]).exit_code == 0
    assert json.loads(on("one", "list", "--all", "--json").stdout)[0]["state"] == "revoked"
    valkey.stop()
    began = time.monotonic()
    done = on("one", "revoke", made["id"])
    assert (done.exit_code, done.stdout) == (3, "")
    assert time.monotonic() - began < 30
