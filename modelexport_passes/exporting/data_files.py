"""Data files of saved models: their names, which are superseded, and what a killed save leaves of them.

The first data file of ``model.onnx`` is ``model.onnx.data``; one with other content gets a number higher than any that
the directory or the model at the target knows (``model.onnx.1.data``, ...). A name comes back only when neither knows
it any more. A model in memory does not rely on names: see `modelexport_passes.exporting.held_tensor`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import filecmp
import json
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA_SUFFIX = ".data"


_INTENT = "intent.json"
_LONGEST = 100

Identity = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True)
class Intent:
    """What a save will leave behind if it stops anywhere: written down so that it, or the next save, can clear it away.

    Attributes:
        target: name of the model file.
        files: the data files in question, the new one and those that it supersedes.
    """

    target: str
    files: tuple[Identity, ...]

    def write(self, staging: Path) -> None:
        """Keep it in a staging directory, in place of an earlier one."""
        temporary = staging / f"{_INTENT}.new"
        temporary.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")
        temporary.replace(staging / _INTENT)


def clear_away(staging: Path) -> None:
    """Remove those of the intended data files that no model mentions: the new one or the old, by how far the save came.

    Call it under the lock of the directory around. A staging directory that says anything else is left as it is.
    """
    try:
        found: Any = json.loads((staging / _INTENT).read_text(encoding="utf-8"))
        target = staging.with_name(found["target"])
        files = {tuple(identity) for identity in found["files"]}
    except (OSError, ValueError, KeyError, TypeError):  # none, or none of ours
        return
    if not staging.name.startswith(staging_prefix(target)):
        return
    for number in sorted(_numbered(target)):
        path = _path(target, number)
        if identity_of(path) in files and not _is_mentioned(path, target):
            path.unlink(missing_ok=True)


def staging_prefix(target: Path) -> str:
    """How the names of a target's staging directories begin."""
    return f".{target.name[:_LONGEST]}.mx-"


def _is_mentioned(data: Path, target: Path) -> bool:
    models = {target, *target.parent.glob("*.onnx")}
    return any(_mentions(model, data.name) for model in models if model.is_file())


def identity_of(path: Path) -> Identity | None:
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
