"""Tables from CSV, JSON and YAML files."""

import csv
import io
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sts.errors import StartError
from sts.lookups.table_files import FileTable
from sts.options import KeptFile

NOW = 1_000_000.0


def table(content, name="t.csv", key="id"):
    raw = content if isinstance(content, bytes) else content.encode()
    return FileTable(KeptFile(Path(name), raw), key)


def row(content, key, name="t.csv", column="id"):
    found = table(content, name, column).row(key, NOW)
    return None if found is None else dict(found.values)


def fault(content, name="t.csv", key="id"):
    with pytest.raises(StartError) as caught:
        table(content, name, key)
    return str(caught.value)


CSV = "id,employee,site\nalice,E7,home\nbob,E8,\n"


def test_a_row_of_a_csv_file_is_found_by_its_key():
    assert row(CSV, "alice") == {"id": "alice", "employee": "E7", "site": "home"}
    assert row(CSV, "E8", column="employee")["id"] == "bob"


def test_a_cell_with_nothing_in_it_has_no_value():
    assert row(CSV, "bob") == {"id": "bob", "employee": "E8"}
    assert table("id,a\nx,\n").columns == {"id"}


def test_there_is_no_row_for_a_key_that_is_not_there_nor_for_one_that_looks_like_it():
    for key in ("carol", "Alice", "alice ", "", "id"):
        assert row(CSV, key) is None


def test_a_row_may_be_used_until_the_file_is_read_anew():
    assert table(CSV).row("alice", NOW).fresh_until == float("inf")


def test_csv_is_read_as_rfc_4180_has_it():
    assert row('id,name\r\na,"O\'Neil, ""Bob"""\r\n', "a")["name"] == 'O\'Neil, "Bob"'
    assert row("\ufeffid,name\na,Ärger\n\n", "a")["name"] == "Ärger"


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
        max_size=5,
    )
)
def test_whatever_python_writes_as_csv_is_found_again(rows):
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("id", "v"), *rows.items()])
    written = out.getvalue()
    assert {key: row(written, key)["v"] for key in rows} == rows


ROWS = [{"id": "alice", "n": 7, "on": True, "groups": ["a", "b"], "none": None}, {"id": "bob", "word": "no"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.json", json.dumps(ROWS)), ("t.yaml", yaml.safe_dump(ROWS)), ("t.YML", yaml.safe_dump(ROWS))],
)
def test_json_and_yaml_hold_a_list_of_rows(name, content):
    assert row(content, "alice", name) == {"id": "alice", "n": 7, "on": True, "groups": ["a", "b"]}
    assert row(content, "bob", name) == {"id": "bob", "word": "no"}
    assert table(content, name).columns == {"id", "n", "on", "groups", "word"}


def test_yaml_is_read_as_yaml_1_2_like_the_configuration():
    assert row("- {id: a, land: no, at: 2024-01-01, n: 010, q: '7', t: true}", "a", "t.yaml") == {
        "id": "a",
        "land": "no",
        "at": "2024-01-01",
        "n": "010",
        "q": "7",
        "t": True,
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "must name every column"),
        ("id,\na,b\n", "must name every column"),
        ("id,id\na,b\n", "names a column twice"),
        ("id,x\na,1\na,2\n", "line 3 has the same key as a row above it"),
        ("id,x\n,1\n", 'line 2 has no text as its key, "id"'),
        ("name,x\na,1\n", 'line 2 has no key column "id"; it has "name", "x"'),
        ("id,x\na,1,2\n", "line 2 has 3 columns, the first row 2"),
        ("id,x\na\n", "line 2 has 1 columns, the first row 2"),
        ('id,x\na,"b\n', "line 2 is not valid CSV"),
        ('id,x\na,"b"c\n', "line 2 is not valid CSV"),
        (b"id,x\na,\xff\n", "line 2 is not UTF-8 text"),
        ("id,x\na,b\0c\n", "line 2"),
        ("id,x\na," + "b" * 4097 + "\n", "longer than 4096 characters"),
        ("id,x\n" + "a" * 1025 + ",b\n", "no text as its key"),
        ("id," + ",".join(f"c{n}" for n in range(64)) + "\na" + ",x" * 64 + "\n", "more than 64 columns"),
        ("id\n" + "\n".join(map(str, range(100_001))), "more than 100000 rows"),
        (b"id\n" + b"a" * 8_000_000, "larger than 8000000 bytes"),
    ],
)
def test_a_csv_file_that_is_not_right_is_a_fault_that_names_the_line(content, said):
    assert said in fault(content)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.json", "{}", "a list of rows"),
        ("t.json", "[1]", "row 1 is not a mapping"),
        ("t.json", '[{"id": "a", "id": "b"}]', "a member is there twice"),
        ("t.json", '[{"id": 7}]', 'row 1 has no text as its key, "id"; put it between quotes'),
        ("t.json", '[{"id": "a"}, {}]', 'row 2 has no key column "id"; it has none'),
        ("t.json", '[{"id": "a", "x": 1.5}]', "row 1, x: neither a text"),
        ("t.json", '[{"id": "a", "x": {"y": 1}}]', "row 1, x: neither a text"),
        ("t.json", '[{"id": "a", "x": ["b", 1]}]', "row 1, x: neither a text"),
        ("t.json", '[{"id": "a", "x": "\\u0000"}]', "NUL"),
        ("t.json", "[", "not JSON"),
        ("t.yaml", "a: 1", "a list of rows"),
        ("t.yaml", "", "a list of rows"),
        ("t.yaml", "- {id: a, id: b}", "is a duplicate"),
        ("t.yaml", "- {id: a, x: &y b, z: *y}", "anchors, aliases"),
        ("t.yaml", "- {id: a, x: !!python/name:os.system b}", "tags"),
        ("t.yaml", "- {id: a, x: [[[b]]]}", "deeper nesting"),
        ("t.yaml", "- {id: a", "is not valid YAML"),
        ("t.yaml", "- {id: a}\n---\n- {id: b}", "a second YAML document"),
        ("t.yaml", "- {id: a, x: 1.5, y: {z: 1}}", "row 1, y: neither a text"),
        ("t.xml", "<a/>", "must end in .csv"),
    ],
)
def test_a_json_or_yaml_file_that_is_not_right_is_a_fault(name, content, said):
    assert said in fault(content, name)


def test_a_fault_names_no_value():
    for content in ("id,x\nmarker,1\nmarker,2\n", "id,x\nmarker,marker,marker\n", 'id,x\nmarker,"marker\n'):
        assert "marker" not in fault(content)


@given(st.binary(max_size=60), st.sampled_from(["t.csv", "t.json", "t.yaml"]))
def test_whatever_a_file_holds_it_is_a_table_or_a_fault_in_one_line(content, name):
    try:
        table(content, name)
        said = ""
    except StartError as error:
        said = str(error)
    assert "\n" not in said
