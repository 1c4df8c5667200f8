"""Write files and folders: ownership when root writes them, and atomic replacement.

A file that root creates for the service, for instance with a command, must belong to the user of the service. Small
files are replaced as a whole: a reader sees the old content or the new content, also when the disk is full.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def hand_over(descriptor: int, folder: Path) -> None:
    """Give a new file or folder in `folder` to the owner of `folder`, if this process is root.

    A file with a second hard link stays unchanged: the owner of the folder may have linked a file of another user to
    this name, and would become its owner.

    Args:
        descriptor: The open file or folder.
        folder: The folder in which it was created.
    """
    if os.geteuid() != 0:
        return
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode) or found.st_nlink == 1:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def replace_file(path: Path, new: Path, data: bytes, *, durable: bool = False) -> None:
    """Write `data` to the new file `new` (mode 0600) and rename it to `path`.

    Args:
        path: The file to replace; its folder exists.
        new: A name that no other process writes at the same time. A file of that name is left from a killed process.
        data: The content.
        durable: Write the content to the disk (fsync) before the rename.

    Raises:
        OSError: Writing failed; the file `new` was removed.
    """
    new.unlink(missing_ok=True)
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            hand_over(descriptor, path.parent)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(descriptor)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents with mode 0700; each belongs to the owner of its parent folder.

    An existing folder stays unchanged. Raises OSError.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if path.is_dir():  # another process created it in the meantime
            return
        raise
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        hand_over(descriptor, path.parent)
    finally:
        os.close(descriptor)
