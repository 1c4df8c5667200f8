"""`sts init` that is killed leaves nothing that is in the way of the next run."""

import fcntl
import os
import subprocess
import sys

from harness import wait_for
from pydantic import SecretStr

from sts.clients.secret import digest
from sts.settings import load


def init(folder, output):
    return subprocess.Popen(
        [sys.executable, "-m", "sts", "init", str(folder)], stdout=output, stderr=subprocess.PIPE, text=True
    )


def test_killed_before_the_secret_was_shown_it_can_be_run_again_and_says_so(tmp_path):
    reader, writer = os.pipe()
    os.write(writer, bytes(fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)))  # full: the secret cannot be shown
    killed = init(tmp_path, writer)
    wait_for(lambda: any(path.stat().st_size for path in tmp_path.iterdir()))
    killed.kill()
    killed.communicate()
    os.close(reader)
    os.close(writer)
    assert not (tmp_path / "sts.yaml").exists()
    again = init(tmp_path, subprocess.PIPE)
    shown, told = again.communicate()
    assert (again.returncode, "an earlier `sts init` was interrupted" in told) == (0, True)
    secret = shown.partition("shown once:  ")[2].splitlines()[0]
    assert load(tmp_path / "sts.yaml", {}).clients["edge-gateway"].secrets == (SecretStr(digest(secret)),)
    assert [path.name for path in tmp_path.iterdir()] == ["sts.yaml"]
