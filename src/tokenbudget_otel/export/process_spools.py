"""The spools of this process: one for each folder, whoever asks for it."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Final

from opentelemetry.metrics import get_meter_provider

from tokenbudget_otel.export.place import VARIABLE, default_folder, is_off
from tokenbudget_otel.export.spool import Spool
from tokenbudget_otel.export.spool_error import SpoolError
from tokenbudget_otel.forks import renew_after_fork

logger: Final = logging.getLogger("tokenbudget_otel.export")


class _Spools:
    def __init__(self) -> None:
        self._made: dict[Path, Spool] = {}
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def at(self, folder: Path) -> Spool:
        key = folder.expanduser().absolute()
        with self._lock:
            found = self._made.get(key)
            if found is None:
                # The global provider may be set later, and is then used.
                found = self._made[key] = Spool(key, meter_provider=get_meter_provider())
            return found


_spools: Final = _Spools()


def spool_for(asked: Spool | str | os.PathLike[str] | bool | None = None) -> Spool | None:
    """The spool that is asked for: itself, one in a folder, none (``False``), or as the environment says.

    A folder that somebody has named has to be one that can be used. The default one, which nobody has asked for, is
    done without where it cannot be: in a container without a disk, say. That is logged.

    Raises:
        SpoolError: if the folder that is named cannot be used; it says what to do.
    """
    if isinstance(asked, Spool):
        return asked
    if asked is not None and not isinstance(asked, bool):
        return _spools.at(Path(asked))
    if asked is False or is_off():
        return None
    try:
        return _spools.at(default_folder())
    except SpoolError as error:
        if os.environ.get(VARIABLE, "").strip():
            raise
        logger.warning(
            "spans are sent without a spool, and lost where they cannot be sent: %s. %s=none says that this is meant",
            error,
            VARIABLE,
        )
        return None
