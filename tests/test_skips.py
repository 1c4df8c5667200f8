"""The rule on skips is tried on small test runs of their own, since it decides whether a run counts as passed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture
def run(tmp_path):
    """Run one module of tests with the rule in force, with CI set or not; return (exit status, output)."""

    def run(source, allowed="", *, ci=True, processes=0):
        (tmp_path / ".ci").mkdir()
        (tmp_path / ".ci" / "allowed-skips").write_text(allowed)
        (tmp_path / "tests").mkdir()
        (tmp_path / "tests" / "test_some.py").write_text(source)
        environment = {name: value for name, value in os.environ.items() if name != "CI"}
        environment |= {"PYTHONPATH": str(HERE / "lib")} | ({"CI": "true"} if ci else {})
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-n",
                str(processes),
                "-p",
                "no:cacheprovider",
                "-p",
                "skips",
                "--rootdir",
                tmp_path,
                "tests",
            ],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    return run


SKIPPED = (
    "import pytest\ndef test_good(): pass\n@pytest.mark.parametrize('n', [1])\ndef test_no(n): pytest.skip('no')\n"
)
WHOLE_MODULE = "import pytest\npytest.skip('nothing here', allow_module_level=True)\n"


@pytest.mark.parametrize("processes", [0, 2])
def test_a_skip_that_nobody_wrote_down_fails_the_run(run, processes):
    status, output = run(SKIPPED, processes=processes)
    assert status == 1
    assert "tests/test_some.py::test_no[1]" in output.partition("not listed")[2]


def test_a_skip_with_a_reason_passes(run):
    status, output = run(SKIPPED, "# why\ntests/test_some.py::test_no[1] | there is no such server here\n")
    assert (status, "not listed" in output) == (0, False)


def test_a_skip_without_a_reason_is_an_error(run):
    status, _ = run(SKIPPED, "tests/test_some.py::test_no[1]\n")
    assert status != 0


@pytest.mark.parametrize("processes", [0, 2])
def test_a_whole_module_that_skips_itself_is_seen_too(run, processes):
    status, output = run(WHOLE_MODULE + "def test_x(): pass\n", processes=processes)
    assert status != 0
    assert "tests/test_some.py" in output.partition("not listed")[2]


def test_a_person_may_skip(run):
    status, _ = run(SKIPPED, ci=False)
    assert status == 0


def test_an_expected_failure_is_no_skip(run):
    status, _ = run("import pytest\ndef test_good(): pass\n@pytest.mark.xfail\ndef test_bad(): assert False\n")
    assert status == 0
