"""Directories for files in the making, and the lock under which they get their names.

A staging directory holds a locked file for as long as its maker lives, so that what a killed process left can be told
from what is being written, and is removed by the next save in that directory. Locks are those of ``flock``: between
threads and processes of one machine, and over network file systems that pass them on. Where there are none (Windows),
nothing is swept and savers do not wait for each other; names are claimed exclusively all the same.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO

from modelexport_passes.exporting.data_files import clear_away, staging_prefix

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NAME = re.compile(r"\..+\.mx-\w{8}\.tmp", re.DOTALL)
_LOCK = "lock"


@contextlib.contextmanager
def staging_directory(target: Path) -> Generator[Path]:
    """A hidden directory beside a target, removed in the end. Directories of dead processes are removed first."""
    path: Path | None = None
    alive: IO[bytes] | None = None
    try:
        with directory_locked(target.parent):
            _sweep(target.parent)
            path = Path(tempfile.mkdtemp(prefix=staging_prefix(target), suffix=".tmp", dir=target.parent))
            alive = (path / _LOCK).open("wb")
            _lock(alive, wait=True)
        yield path
    finally:
        if path is not None:
            with directory_locked(target.parent):
                clear_away(path)
        if alive is not None:
            alive.close()
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def directory_locked(folder: Path) -> Generator[None]:
    """Let no other saver settle names in a directory meanwhile."""
    if fcntl is None:
        yield
        return
    # A directory takes a lock as a file does, and nothing has to be left in it.
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sync_directory(folder: Path) -> None:
    """Have the names in a directory on disk before going on. Does nothing where directories cannot be opened."""
    if fcntl is None:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system that does not sync directories
            os.fsync(handle)
    finally:
        os.close(handle)


def _lock(file: IO[bytes], *, wait: bool) -> bool:
    """Whether the lock was had."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by its maker, or a file system without locks
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove the staging directories whose makers are dead. Under the directory's lock none is half made."""
    if fcntl is None:
        return
    with os.scandir(folder) as entries:
        found = [
            Path(entry) for entry in entries if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]
    for path in found:
        try:
            with (path / _LOCK).open("rb") as file:
                dead = _lock(file, wait=False)
        except FileNotFoundError:
            dead = True
        except OSError:  # somebody else's
            dead = False
        if dead:
            clear_away(path)
            shutil.rmtree(path, ignore_errors=True)
