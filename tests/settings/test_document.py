"""The files: what is read, what is refused, and where it stands."""

import errno
import os
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
import yaml
from click.testing import CliRunner

from sts.cli.check import check
from sts.settings.document import read
from sts.settings.faults import Mark


@pytest.fixture
def document(tmp_path):
    def document(text):
        path = tmp_path / "sts.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read(path)

    return document


@pytest.fixture
def refused(document):
    """The one fault for which a file is given up."""

    def refused(text):
        _, (fault,), whole = document(text)
        assert not whole
        return fault

    return refused


def test_every_value_knows_its_line(document, tmp_path):
    found, _, _ = document(
        "issuer: x\n\nclients:\n  edge:\n    audiences:\n    - a\n    - b\n  other: {auth: secret}\n"
    )
    file = str(tmp_path / "sts.yaml")
    assert found.mark(("clients", "edge", "audiences", 1)) == Mark(file, 7, ("clients", "edge", "audiences", 1))
    assert found.mark(("clients", "other", "auth")).line == 8
    assert found.mark(("clients", "edge")).line == 4


def test_what_is_missing_stands_where_it_should_have_been(document):
    found, _, _ = document("issuer: x\nclients:\n  edge:\n    auth: secret\n")
    mark = found.mark(("clients", "edge", "audiences"))
    assert (mark.line, mark.path) == (3, ("clients", "edge", "audiences"))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *(("on", "on"), ("off", "off"), ("yes", "yes"), ("1:30", "1:30"), ("0o17", "0o17"), ("0660", "0660")),
        *(("0x10", "0x10"), ("1_000", "1_000"), ("2024-01-01", "2024-01-01"), ("1e400", "1e400"), (".inf", ".inf")),
        *(("true", True), ("false", False), ("null", None), ("~", None), ("", None)),
        *(("12", 12), ("-3", -3), ("1.5", 1.5), ("'12'", "12"), ('"true"', "true"), ("!!str 12", "12")),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_plain_scalars_are_read_as_in_yaml_1_2(document, written, value):
    found, faults, whole = document(f"key: {written}\n")
    assert (found.value, faults, whole) == ({"key": value}, [], True)


def test_a_key_is_a_text_even_where_it_looks_like_something_else(document):
    found, _, _ = document("clients: {1: a, true: b, null: c, on: d}\n")
    assert found.value == {"clients": {"1": "a", "true": "b", "null": "c", "on": "d"}}


def test_a_repeated_key_is_told_with_both_lines_and_reading_goes_on(document):
    found, (fault,), whole = document("audiences:\n  orders: {allow: 'false'}\n  orders:\n    ttl: 1h\nissuer: x\n")
    assert whole
    assert (fault.line, fault.path, fault.problem) == (3, "audiences.orders", "written twice")
    assert "line 2" in fault.hint
    assert found.value == {"audiences": {"orders": {"allow": "false"}}, "issuer": "x"}
    assert found.mark(("audiences", "orders", "ttl")).line == 2


def test_a_key_that_differs_in_quotes_only_is_the_same_key(document):
    _, (fault,), _ = document('issuer: a\n"issuer": b\n')
    assert fault.path == "issuer"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: &x 1\nb: *x\n", 1, "anchors"),
        ("a: 1\nb: *x\n", 2, "alias"),
        ("a: {b: &x [1]}\n", 1, "anchors"),
        ("&x a: 1\n", 1, "plain text"),
        ("a:\n  <<: {b: 1}\n", 2, "merge keys"),
        ("a: 1\nb: !!python/object/apply:os.system [id]\n", 2, "tag"),
        ("a: 1\nb: !!binary aGk=\n", 2, "tag"),
        ("a: 1\nb: !secret x\n", 2, "tag"),
        ("a: 1\nb: !!set {x}\n", 2, "tag"),
        ("a: 1\n? [b]\n: 1\n", 2, "plain text"),
        ("a: 1\n---\nb: 2\n", 2, "second YAML document"),
        ("a: 1\nb: [1,\n", 3, "is not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "is not valid YAML"),
        ("- a\n", 1, "mapping of sections"),
        ("just text\n", 1, "mapping of sections"),
        ("a: " + "[" * 40 + "]" * 40 + "\n", 1, "deep"),
        ("a: " + "{b: " * 40 + "1" + "}" * 40 + "\n", 1, "deep"),
        (b"a: 1\nb: \xff\xfe\n", 2, "UTF-8"),
        (b"a: \x00\n", 0, "character"),
        ('a: 1\nb: "\\0"\n', 2, "NUL"),
        ('a: 1\n"b\\0": 1\n', 2, "NUL"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(refused, text, line, problem):
    fault = refused(text)
    assert (fault.line, problem in fault.problem) == (line, True), fault


@pytest.mark.parametrize(
    ("text", "line"),
    [
        *(
            ("a: 1\n\tb: 2\n", 2),
            ("a:\n\tb: 2\n", 2),
            ("a:\r\n  b: 1\r\n \tc: 2\r\n", 3),
            ("a:\n  - b: 1\n\t c: 2\n", 3),
        ),
        ("# \u2028\x85\n\na:\n\tb: 2\n", 6),
    ],
)
def test_a_tab_is_told_as_such(refused, text, line):
    fault = refused(text)
    assert (fault.line, fault.problem, fault.hint) == (line, "is not valid YAML: a tab", "indent with spaces")


@pytest.mark.parametrize("text", ["a:\n  b: 1\n c: 2\n", "a:\n  - b\n  c: 1\n"])
def test_a_block_that_does_not_line_up_is_told_to_be_looked_at(refused, text):
    fault = refused(text)
    assert (fault.line, fault.hint) == (3, "look at the indentation of this line and the one above")


@pytest.mark.parametrize("text", ["a:\n  b: 'x' in y\n  c: 1\n", 'a:\n  b: "x" in y\n', "a:\n  - 'x' in y\n"])
def test_a_value_that_goes_on_behind_its_quotes_is_told_to_be_quoted(refused, text):
    fault = refused(text)
    assert (fault.line, fault.hint[:42]) == (2, "a value that begins with a quote must end ")


def test_a_text_with_a_colon_in_it_is_told_to_be_quoted(refused):
    fault = refused("a:\n  b: c: 1\n")
    assert fault.line == 2
    assert fault.hint.endswith("a text with a colon and a space needs quotes")


def test_another_fault_of_yaml_says_nothing_of_indentation(refused):
    assert not refused("a: [1,\n\t2\n").hint
    assert not refused("a: \t@x\n").hint


def test_a_file_that_may_not_be_read_is_a_fault_and_no_usage_error(monkeypatch, tmp_path):
    path = tmp_path / "sts.yaml"
    path.write_text("issuer: x\n")

    def denied(*_args, **_more):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    monkeypatch.setattr(os, "access", lambda *_args, **_more: False)  # what a command line would ask; root may read all
    _, (fault,), whole = read(path)
    assert (whole, str(fault)) == (False, f"{path}  cannot be read: Permission denied")
    shown = CliRunner().invoke(check, [str(path)])
    assert shown.exit_code == 1
    assert "Usage" not in shown.output


def test_nesting_that_would_overflow_the_stack_is_a_fault(refused):
    assert "deep" in refused("a: " + "[" * 200_000).problem or "YAML" in refused("a: " + "[" * 200_000).problem


def test_a_file_that_is_too_large_is_not_read(refused):
    assert "larger" in refused("a: " + "x" * 5_000_000).problem


def test_a_missing_file_is_told_with_what_to_do(tmp_path):
    _, (fault,), whole = read(tmp_path / "sts.yaml")
    assert (whole, fault.line) == (False, 0)
    assert "No such file" in fault.problem
    assert "sts init" in fault.hint


def test_a_folder_is_no_configuration(tmp_path):
    _, (fault,), _ = read(tmp_path)
    assert "cannot be read" in fault.problem


def test_an_empty_file_and_a_byte_order_mark_are_read(document):
    assert document("")[0].value == {}
    assert document("# nothing\n")[0].value == {}
    assert document(b"\xef\xbb\xbfissuer: x\n")[0].value == {"issuer": "x"}


text = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


@hypothesis.given(st.dictionaries(text, plain, max_size=5))
@hypothesis.settings(
    max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], deadline=None
)
def test_what_another_writer_writes_is_read_back(document, value):
    # YAML 1.1's writer quotes more than 1.2 needs, so that both readers agree; aliases are off as they are not read
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, _data):
            return True

    found, faults, whole = document(yaml.dump(value, Dumper=Plain, allow_unicode=False))
    assert (found.value, faults, whole) == (value, [], True)


@hypothesis.given(
    st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!|>'\"#%@`,?<~ \n\t", max_size=60).map(str.encode)
)
@hypothesis.settings(
    max_examples=150, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], deadline=None
)
def test_no_bytes_make_it_raise(document, text):
    found, faults, whole = document(text)
    assert isinstance(found.value, dict)
    assert whole or len(faults) == 1
