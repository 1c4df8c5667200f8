"""What the image is built from: the wheel and the hash-locked requirements, installed outside the checkout.

There is no container engine where these tests run, so the Dockerfile itself is not built here. Its steps are: build the
wheel, install the lock with hashes, install the wheel, start as another user with nothing but /var/lib/sts to write to.
All but the other user and the read-only file system are done here for real, away from the checkout.
"""

import os
import re
import socket
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.timeout(300)  # it downloads what the image holds


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh environment with the lock and the wheel, nothing else; returns its folder."""
    directory = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    # A copy, so that the build leaves nothing behind in the checkout.
    source = directory / "source"
    source.mkdir()
    run(
        "cp",
        "-r",
        *(str(ROOT / name) for name in ("pyproject.toml", "README.md", "LICENSE", "sts", "keys")),
        str(source),
    )
    run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(source))
    (wheel,) = directory.glob("*.whl")
    environment = directory / "environment"
    venv.create(environment, with_pip=False)  # the pip that runs the tests installs into it
    inside = (*pip, "--python", str(environment / "bin" / "python"), "install", "-q", "--no-compile")
    lock = ROOT / "requirements" / "runtime.txt"
    run(*inside, "--require-hashes", "--only-binary", ":all:", "-r", str(lock), cwd=directory)
    run(*inside, "--no-deps", "--no-index", str(wheel), cwd=directory)
    return environment


@pytest.fixture
def sts(installed, tmp_path):
    """Run the installed command in an empty folder, with an empty environment."""

    def sts(*arguments):
        return run(
            str(installed / "bin" / "sts"), *arguments, cwd=tmp_path, env={"PATH": os.defpath, "LANG": "C.UTF-8"}
        )

    return sts


def test_the_installed_command_says_its_version(sts):
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert version in sts("version")


def test_the_lock_is_all_that_the_wheel_needs(installed):
    run(sys.executable, "-m", "pip", "--python", str(installed / "bin" / "python"), "check")


def test_a_first_configuration_passes_the_installed_check(sts, tmp_path):
    sts("init")
    assert sts("check") is not None
    assert (tmp_path / "sts.yaml").stat().st_mode & 0o777 == 0o600


def test_the_installed_service_runs_in_the_images_surroundings(installed, tmp_path):
    """The environment that the Dockerfile sets, no home, and a configuration that cannot be written."""
    (tmp_path / "var").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    configuration = tmp_path / "sts.yaml"
    configuration.write_text(f"issuer: https://sts.example.internal\nlisten: 127.0.0.1:{port}\nworkers: 1\n")
    configuration.chmod(0o444)
    image = dict(part.split("=") for name, value in dockerfile() if name == "ENV" for part in value.split())
    image |= {"PATH": f"{installed / 'bin'}:{os.defpath}", "HOME": "/nowhere"}
    image |= {"STS_CONFIG": str(configuration), "STS_VAR": str(tmp_path / "var")}
    with (tmp_path / "log").open("wb") as log:
        service = subprocess.Popen(["sts", "serve"], cwd=tmp_path / "var", env=image, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        health = ["sts", "health", "--ready"]
        while subprocess.run(health, env=image, capture_output=True, check=False).returncode != 0:
            assert service.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.1)
        service.terminate()
        assert service.wait(60) == 0
    finally:
        service.kill()
        service.wait()
    assert {path.name for path in tmp_path.iterdir()} == {"sts.yaml", "var", "log"}


def test_every_module_is_in_the_wheel(installed):
    (site,) = (installed / "lib").glob("python*/site-packages")
    wanted = {str(p.relative_to(ROOT)) for folder in ("sts", "keys") for p in (ROOT / folder).rglob("*.py")}
    assert {name for name in wanted if not (site / name).exists()} == set()
    assert (site / "sts" / "py.typed").exists()
    assert not (site / "tests").exists()


def dockerfile():
    text = (ROOT / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [line.split(None, 1) for line in lines if line.strip()]


def test_the_image_runs_without_root_and_installs_only_with_hashes():
    steps = dockerfile()
    assert [value for name, value in steps if name == "USER"] == ["65532:65532"]
    installs = [part for _, value in steps for part in value.split("&&") if "pip install" in part]
    assert installs
    assert all("--require-hashes" in part or "--no-index" in part for part in installs)
    assert [value for name, value in steps if name == "VOLUME"] == ["/var/lib/sts"]


def test_every_base_image_is_named_by_its_digest():
    arguments = dict(value.split("=", 1) for name, value in dockerfile() if name == "ARG")
    bases = [value.split()[0] for name, value in dockerfile() if name == "FROM"]
    assert bases
    for base in bases:
        named = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], base)
        assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", named), named


@pytest.mark.parametrize("page", ["Dockerfile", "docs/operations.md"])
def test_a_configuration_that_may_hold_secrets_is_never_made_readable_for_all(page):
    modes = re.compile(r"(chmod|install|chown)\b.*\bsts\.yaml")
    advice = [line for line in (ROOT / page).read_text().splitlines() if modes.search(line)]
    assert any("65532" in line for line in advice)
    assert not [line for line in advice if re.search(r" 0?[0-7][0-7][1-7] |[oa]\+r", line)]


def test_the_image_is_built_from_files_that_exist_and_are_not_ignored():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [value.split()[:-1] for name, value in dockerfile() if name == "COPY" and "--from" not in value]
    sources = {source for group in copied for source in group}
    assert sources
    assert all((ROOT / source).exists() for source in sources)
    assert sources == kept


def test_the_image_asks_the_service_how_it_is_and_stops_it_gently():
    steps = dict(dockerfile())
    assert 'CMD ["sts", "health"]' in steps["HEALTHCHECK"]
    assert (steps["ENTRYPOINT"], steps["CMD"], steps["STOPSIGNAL"]) == ('["sts"]', '["serve"]', "SIGTERM")
