"""Data files of saved models: their names, which are never used again for other content, and which are superseded.

The first data file of ``model.onnx`` is ``model.onnx.data``; one with other content gets a number higher than any that
the directory or the model at the target knows (``model.onnx.1.data``, ...). So a model in memory that was read from an
earlier file never reads another's weights.
"""

from __future__ import annotations

import contextlib
import filecmp
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

DATA_SUFFIX = ".data"


def identity_of(path: Path) -> tuple[int, int] | None:
    """Device and inode; None if there is no such file."""
    try:
        stat = path.lstat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def settle_data(staged: Path, target: Path) -> Path:
    """Give a data file its final name: that of a file with the same content if there is one, else a new one.

    Call it under the lock of the directory.
    """
    known = _numbered(target)
    for number in sorted(known):
        path = _path(target, number)
        if path.is_file() and path.stat().st_nlink == 1 and filecmp.cmp(staged, path, shallow=False):
            return path
    number = max(known | _mentioned(target), default=-1) + 1
    while not _claim(staged, _path(target, number)):
        number += 1
    return _path(target, number)


def remove_placed(target: Path, made: tuple[int, int]) -> None:
    """Remove the data file that was placed for a target, whatever its name, by what the disk says."""
    for number in _numbered(target):
        path = _path(target, number)
        if identity_of(path) == made:
            path.unlink(missing_ok=True)


def superseded(target: Path, needed: set[str]) -> Iterator[Path]:
    """Data files that a save once wrote for the old model at ``target`` and that nothing will need any more.

    Args:
        target: the model that will be replaced.
        needed: real paths of data files that stay.
    """
    candidates = [
        path
        for path in (_path(target, number) for number in sorted(_numbered(target)))
        if path.is_file() and os.path.realpath(path) not in needed
    ]
    if not candidates or not target.is_file():
        return
    others = [path for path in sorted(target.parent.glob("*.onnx")) if path.is_file() and path.name != target.name]
    for path in candidates:
        if _mentions(target, path.name) and not any(_mentions(other, path.name) for other in others):
            yield path


def _path(target: Path, number: int) -> Path:
    middle = f".{number}" if number else ""
    return target.with_name(f"{target.name}{middle}{DATA_SUFFIX}")


def _numbered(target: Path) -> set[int]:
    """Numbers of the names that are taken in the directory."""
    pattern = re.compile(rf"{re.escape(target.name)}(?:\.([1-9]\d{{0,17}}))?{re.escape(DATA_SUFFIX)}")
    found = (pattern.fullmatch(name) for name in os.listdir(target.parent))
    return {int(match[1] or 0) for match in found if match}


def _mentioned(target: Path) -> set[int]:
    """Numbers of the names that the model at the target mentions."""
    if not target.is_file() or target.stat().st_size == 0:
        return set()
    name, suffix = re.escape(target.name.encode()), re.escape(DATA_SUFFIX.encode())
    pattern = re.compile(rb"%b(?:\.([1-9]\d{0,17}))?%b" % (name, suffix))
    with target.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return {int(match[1] or 0) for match in pattern.finditer(text)}


def _claim(staged: Path, path: Path) -> bool:
    """Give a file a name that nothing has; False if something has it."""
    try:
        os.link(staged, path)  # unlike a rename, it never replaces
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            return False
        staged.rename(path)
        return True
    with contextlib.suppress(FileNotFoundError):
        staged.unlink()
    return True


def _mentions(model_file: Path, data_name: str) -> bool:
    """Whether the name stands anywhere in the file: cheap, and errs on the side of keeping the data."""
    if model_file.stat().st_size == 0:
        return False
    with model_file.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(data_name.encode()) >= 0
