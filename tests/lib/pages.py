"""Run the shell blocks of a page of docs in order, as one shell session, and compare what they print.

A page is a list of fenced blocks. `sh` blocks are commands. A `text` block directly after an `sh` block is what these
commands print; `…` in it is any text. Every other block is a part of a file, which the page shows for reading.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_MARK = "=== next block of the page ==="


def blocks(page):
    """Return the blocks of a page as pairs of language and text, in their order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [
        (language, "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True)))
        for indent, language, body in _BLOCK.findall(text)
    ]


def sessions(page):
    """Return pairs of commands and the output that the page shows for them ("" where it shows none)."""
    found = blocks(page)
    following = [*found[1:], ("", "")]
    return [
        (text, shown if kind == "text" else "")
        for (language, text), (kind, shown) in zip(found, following, strict=True)
        if language == "sh"
    ]


def run(commands, directory, *, change=(), path=(), seconds=300):
    """Run `commands`, one text for each block, in one bash in `directory`; return what each block printed.

    Args:
        commands: the blocks, in order. The first one that fails ends the session and the test.
        directory: where the session begins; it is its HOME too.
        change: pairs of a text of the page and the text of this machine that replaces it, such as ports.
        path: folders before PATH.
        seconds: the longest time that the whole session may take.
    """
    script = f"\necho '{_MARK}'\n".join(commands)
    for there, here in change:
        assert there in script, there
        script = script.replace(there, str(here))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STS_")}
    folders = [*map(str, path), str(Path(sys.executable).parent), environment["PATH"]]
    environment |= {"HOME": str(directory), "PATH": os.pathsep.join(folders)}
    output = Path(directory) / "session.log"
    with output.open("wb") as log:
        session = subprocess.Popen(
            ["bash", "-eu", "-o", "pipefail", "-c", script],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # what the page starts in the background ends with the session
        )
        try:
            status = session.wait(seconds)
        finally:
            left = _end(session.pid)
    said = output.read_text(encoding="utf-8")
    assert status == 0, said
    assert not left, "the page leaves processes running"
    return said.split(f"{_MARK}\n")


def _end(group):
    """Kill what is left of a process group; return whether there was a process that had not been stopped."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def matches(shown, printed):
    """Whether a command printed what the page shows; `…` in it is any text."""
    pattern = re.escape(shown.strip()).replace("…", ".*?")
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None
