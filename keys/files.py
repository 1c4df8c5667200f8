"""Files and folders that root makes in place of the service, for instance by a command, belong to its user.

Small files are replaced as a whole: a reader sees the former content or the new one, on a full disk too.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def hand_over(descriptor: int, folder: Path) -> None:
    """Give what is open at `descriptor`, and was made in `folder`, to the owner of the folder; only root can, and must.

    A file with a second name is left alone: the folder's owner may have linked a file of another user to this name.
    """
    if os.geteuid() != 0:
        return
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode) or found.st_nlink == 1:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def replace_file(path: Path, new: Path, data: bytes, *, durable: bool = False) -> None:
    """Write `data` to the new file `new` (mode 0600) and rename it to `path`, whose folder is there already.

    `new` is a name that no other process writes at the same time: a file of that name is left over from one that was
    killed. `durable`: the content is on the disk before the rename. Raises OSError, and leaves nothing behind then.
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
    """Make a folder, and those above it that are missing, mode 0700; each for the owner of the folder that it is in.

    One that is there already stays as it is. Raises OSError.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if path.is_dir():  # another process made it meanwhile
            return
        raise
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        hand_over(descriptor, path.parent)
    finally:
        os.close(descriptor)
