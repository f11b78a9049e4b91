"""Where a spool may be kept: a folder that this user alone can enter."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from tokenbudget_otel.export.spool_error import SpoolError

VARIABLE: Final = "TOKENBUDGET_SPOOL"
MAX_BYTES_VARIABLE: Final = "TOKENBUDGET_SPOOL_MAX_BYTES"
NO_SPOOL: Final = ("none", "off", "false", "no", "0")
"""What the variable says where exporters keep nothing on disk."""

DEFAULT_MAX_BYTES: Final = 256 * 1024 * 1024

_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def is_off() -> bool:
    """Whether the environment says that exporters keep nothing on disk."""
    return os.environ.get(VARIABLE, "").strip().lower() in NO_SPOOL


def default_folder() -> Path:
    """The folder that the environment names, else the one of this user."""
    named = os.environ.get(VARIABLE, "").strip()
    if named and not is_off():
        return Path(named).expanduser()
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state and Path(state).is_absolute() else Path("~/.local/state").expanduser()) / (
        "tokenbudget/spool"
    )


def checked_max_bytes(value: object = None) -> int:
    """How many bytes a spool may hold; None reads the environment.

    Raises:
        SpoolError: for what is no such number.

    >>> checked_max_bytes("64MiB"), checked_max_bytes(1_000_000)
    (67108864, 1000000)
    """
    name = "max_bytes"
    if value is None:
        value = os.environ.get(MAX_BYTES_VARIABLE) or DEFAULT_MAX_BYTES
        name = MAX_BYTES_VARIABLE
    found = _size(value)
    if found is None or found <= 0:
        raise SpoolError(f"{name}: {value!r} is no size: give a number of bytes above 0, such as 268435456 or 256MiB")
    return found


def _size(value: object) -> int | None:
    if isinstance(value, int):
        return None if isinstance(value, bool) else value
    text = str(value).strip().lower().removesuffix("b")
    digits = text.rstrip("kmgi")
    unit = _UNITS.get(text[len(digits) :])
    return int(digits) * unit if unit is not None and digits.strip().isdecimal() else None


def made_ready(folder: Path) -> Path:
    """The absolute path of a folder for a spool, made if it is missing.

    Raises:
        SpoolError: if it cannot be one; it says what to do.

    >>> made_ready(Path("/dev/null"))
    Traceback (most recent call last):
    ...
    tokenbudget_otel.export.spool_error.SpoolError: the spool '/dev/null' is not a folder: give the path of one ...
    """
    folder = folder.expanduser().absolute()
    instead = f"or give another folder (folder=…, {VARIABLE})"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise SpoolError(f"the spool {str(folder)!r} is not a folder: give the path of one ({VARIABLE})") from None
    except OSError as error:
        raise SpoolError(
            f"the spool {str(folder)!r} cannot be made: {error.strerror}. Make it for this user alone "
            f"(mkdir -p -m 700 {folder}), {instead}"
        ) from None
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise SpoolError(
            f"the spool {str(folder)!r} belongs to another user (uid {found.st_uid}), who could read and change what is"
            f" in it: change its owner (chown -R {os.geteuid()} {folder}), {instead}"
        )
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SpoolError(
            f"the spool {str(folder)!r} is open to other users (mode {stat.S_IMODE(found.st_mode):04o}), and prompts or"
            f" names of customers may be in it: close it (chmod 700 {folder}), {instead}"
        )
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise SpoolError(
            f"the spool {str(folder)!r} cannot be written to: change its permissions (chmod 700 {folder}), {instead}"
        )
    return folder
