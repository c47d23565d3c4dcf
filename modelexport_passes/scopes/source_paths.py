"""Paths of Python files as they may stand in a model: relative, so that they do not tell whose machine made it."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

_LIBRARY = re.compile(r".*/(?:site-packages|dist-packages|lib(?:64)?/python3(?:\.\d+)?)/(?=.)", re.DOTALL)
"""What precedes an installed package, or a module of the standard library."""

_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")

_PROJECT_FILES = (".git", "pyproject.toml", "setup.py")


def relative_path(path: str) -> str:
    """The path without what is particular to a machine. Decided by the text alone: nothing is looked up on disk.

    ==============================================  ======================
    ``/home/ann/lib/site-packages/torch/nn/a.py``   ``torch/nn/a.py``
    ``/usr/lib/python3.11/contextlib.py``           ``contextlib.py``
    ``nets/block.py``, ``<string>``                 as it is
    ``<working directory>/nets/block.py``           ``nets/block.py``
    ``/home/ann/elsewhere/nets/block.py``           ``block.py``
    ==============================================  ======================
    """
    text = path.replace("\\", "/")
    installed = _LIBRARY.sub("", text, count=1)
    if installed != text:
        return installed
    if not _ABSOLUTE.match(text) and ".." not in text.split("/"):
        return path
    try:
        return PurePosixPath(text).relative_to(Path.cwd().as_posix()).as_posix()
    except ValueError:
        return text.rpartition("/")[2]


def relative_path_of_code(path: str) -> str:
    """`relative_path` of a file of this machine.

    The path is relative to the directory that holds the file's outermost package; for a file in no package, to its
    project (the nearest directory with a ``.git`` or a ``pyproject.toml``). So it does not depend on the working
    directory. Not for paths that a stranger's file names: their directories are looked at.
    """
    file = Path(path)
    if not file.is_absolute() or _LIBRARY.match(path.replace("\\", "/")):
        return relative_path(path)
    packages = [folder for folder in file.parents if (folder / "__init__.py").is_file()]
    top = _outermost(file, packages) or next((folder for folder in file.parents if _is_project(folder)), None)
    return relative_path(path) if top is None else file.relative_to(top).as_posix()


def _outermost(file: Path, packages: list[Path]) -> Path | None:
    """The directory that holds the outermost of the packages which enclose the file without a gap."""
    top: Path | None = None
    for folder in file.parents:
        if folder not in packages:
            break
        top = folder.parent
    return top


def _is_project(folder: Path) -> bool:
    return any((folder / name).exists() for name in _PROJECT_FILES)
