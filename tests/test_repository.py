"""What must hold of the repository's own files: the locks, the Makefile, the run that decides on a change."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def pins(lock):
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_pins_every_package_with_hashes_and_names_no_address(lock):
    blocks = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^ *#.*\n", "", lock.read_text(), flags=re.MULTILINE).strip())
    assert blocks
    assert all(re.match(r"[a-z0-9-]+==[^\s=]+ ", block) and "--hash=sha256:" in block for block in blocks)
    assert not re.search(r"://|--(extra-)?index-url|--find-links|@ ", lock.read_text())


def test_no_lock_goes_back_to_a_joserfc_that_could_be_kept_busy():
    """Lesson 3.3 (CVE-2026-27932: mended in joserfc 1.6.3)."""
    found = [pins(lock)["joserfc"] for lock in LOCKS if "joserfc" in pins(lock)]
    assert found
    assert min(tuple(int(number) for number in version.split(".")) for version in found) >= (1, 6, 3)


def test_the_locks_agree_with_each_other():
    locks = {lock.stem: pins(lock) for lock in LOCKS}
    assert locks["runtime"].items() <= locks["demo"].items() <= locks["dev"].items()
    assert locks["build"].items() <= locks["demo"].items()


def test_what_the_project_depends_on_is_locked():
    text = (ROOT / "pyproject.toml").read_text()
    wanted = re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)[1]
    names = {name.lower() for name in re.findall(r'"([A-Za-z0-9-]+)', wanted)}
    assert names
    assert names <= set(pins(ROOT / "requirements" / "runtime.txt"))


def test_make_without_a_target_lists_the_targets():
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("help", "demo", "test", "lint", "bench", "serve"):
        assert f"make {target} " in shown


def test_the_run_that_decides_starts_from_anywhere_without_input(tmp_path):
    """A copy whose Makefile only tells: the script finds its own root, needs no terminal, and reports a failure."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_text((ROOT / ".ci" / "run").read_text())
    (tmp_path / "Makefile").write_text(
        "lint:\n\t@echo lint in $(CURDIR)\n\t@exit $(BAD)\ntest:\n\t@echo test, CI=$(CI)\n"
    )
    command = ["bash", str(tmp_path / ".ci" / "run")]
    for bad, status in (("0", 0), ("1", 1)):
        environment = {"PATH": os.environ["PATH"], "BAD": bad}
        done = subprocess.run(
            command, cwd="/", env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert f"lint in {tmp_path}" in done.stdout
        assert done.stdout.splitlines()[-1] == "test, CI=true"
        assert done.returncode == status
