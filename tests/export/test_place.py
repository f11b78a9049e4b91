"""Folders that cannot hold a spool are refused at once, with what to do."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tokenbudget_otel.export import Spool, SpoolError


def test_a_new_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    Spool(tmp_path / "a" / "spool")
    assert stat.S_IMODE((tmp_path / "a" / "spool").stat().st_mode) == 0o700


def test_the_environment_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENBUDGET_SPOOL", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert Spool().folder == tmp_path / "state" / "tokenbudget" / "spool"
    monkeypatch.setenv("TOKENBUDGET_SPOOL", str(tmp_path / "other"))
    assert Spool().folder == tmp_path / "other"
    monkeypatch.setenv("TOKENBUDGET_SPOOL", "none")  # which is for exporters, and no folder
    assert Spool().folder == tmp_path / "state" / "tokenbudget" / "spool"
    monkeypatch.setenv("TOKENBUDGET_SPOOL_MAX_BYTES", "2 MiB")
    assert Spool()._folder.max_bytes == 2 * 1024 * 1024


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o704, 0o777])
def test_a_folder_open_to_others(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(SpoolError, match=rf"open to other users \(mode {mode:04o}\).*chmod 700 {tmp_path}"):
        Spool(tmp_path)


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")
    with pytest.raises(SpoolError, match="is not a folder"):
        Spool(tmp_path / "spool")
    with pytest.raises(SpoolError, match="cannot be made: Not a directory"):
        Spool(tmp_path / "spool" / "below")


def test_a_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(SpoolError, match=r"belongs to another user.*chown -R 4711"):
        Spool(tmp_path)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    if os.geteuid() == 0:  # who may write everywhere; a file system that is mounted read-only says no to root, too
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SpoolError, match=r"cannot be written to: .*chmod 700"):
        Spool(tmp_path)


@pytest.mark.parametrize("size", [0, -1, "", "much", "12 parsecs", 1.5, True])
def test_sizes_that_are_none(tmp_path: Path, size: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpoolError, match=r"max_bytes: .* give a number of bytes above 0"):
        Spool(tmp_path / "spool", size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: Spool(folder, first_wait=0), "first_wait"),
        (lambda folder: Spool(folder, first_wait=5, longest_wait=1), "longest_wait"),
        (lambda folder: Spool(folder, close_timeout=-1), "close_timeout"),
    ],
)
def test_times_that_are_none(tmp_path: Path, make: Callable[[Path], Spool], message: str) -> None:
    with pytest.raises(SpoolError, match=message):
        make(tmp_path / "spool")
