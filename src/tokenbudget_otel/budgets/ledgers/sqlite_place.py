"""Where a ledger file may be kept: a folder of this machine that can be written to."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
"""What Linux has mounted where. Other systems have no such file, and are taken at their word."""

_REMOTE: Final = frozenset(
    {
        "9p",
        "acfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "drvfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "prl_fs",
        "smb2",
        "smb3",
        "smbfs",
        "vboxsf",
        "vmhgfs",
    }
)
"""File systems of other machines, by their names in mountinfo; ``fuse.*`` (sshfs, s3fs, rclone …) as well."""

_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


def file_system(path: Path, mounts: str) -> str:
    r"""The type of the file system that ``path`` is on, given the text of mountinfo; ``""`` if it does not say.

    >>> file_system(Path("/home/a b/x.db"), "36 25 0:32 / /home/a\\040b rw - nfs4 server:/export rw")
    'nfs4'
    """
    deepest, found = -1, ""
    for line in mounts.splitlines():
        fields, _, described = line.partition(" - ")
        if len(place := fields.split(" ")) < 5:
            continue
        point = Path(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), place[4]))
        # Of two at the same place the later one hides the other.
        if len(point.parts) >= deepest and path.is_relative_to(point):
            deepest, found = len(point.parts), described.split(" ")[0]
    return found


def usable(path: str | os.PathLike[str]) -> Path:
    """The absolute path of a ledger file that can be kept there.

    Raises:
        ValueError: if it cannot; it names the path and what to do.

    >>> usable("/no/such/folder/budgets.db")
    Traceback (most recent call last):
    ...
    ValueError: there is no folder '/no/such/folder' for the ledger file 'budgets.db': create it or give another path
    """
    name = os.fspath(path)
    if not name or name == ":memory:":
        raise ValueError(f"{name!r} is not a file: give the path of one, or use a MemoryLedger")
    file = Path(name).expanduser().resolve()
    folder = file.parent
    if file.is_dir():
        raise ValueError(f"{str(file)!r} is a folder: give the path of a file, such as {str(file / 'budgets.db')!r}")
    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {str(folder)!r} for the ledger file {file.name!r}: create it or give another path"
        )
    kind = file_system(file, MOUNTS.read_text(errors="replace")) if MOUNTS.exists() else ""
    if kind in _REMOTE or kind.startswith("fuse."):
        raise ValueError(
            f"the ledger file {str(file)!r} would be on a network file system ({kind}), where neither locks nor shared"
            " memory hold between processes, and budgets would not: give a path on a local disk, or use Redis to share"
            " budgets between machines"
        )
    # Beside the file SQLite keeps others (…-wal, …-shm), in the same folder.
    for what, place in (("file", file), ("folder", folder)):
        if place.exists() and not os.access(place, os.R_OK | os.W_OK):
            raise ValueError(
                f"the {what} {str(place)!r} cannot be written to by this user: change its permissions or give another"
                " path for the ledger"
            )
    return file
