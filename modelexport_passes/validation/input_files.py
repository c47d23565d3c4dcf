"""Inputs from an .npz file."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from modelexport_passes.errors import ConfigError
from modelexport_passes.validation.session import Array


def read_inputs(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read graph input name -> array, as ``numpy.savez`` writes it.

    Raises:
        ConfigError: there is no such file, or it is not an .npz file of plain arrays.
    """
    source = Path(path)
    try:
        with np.load(source, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise ConfigError(
            f"inputs {source}: there is no such file; write it with numpy.savez(path, name=array)"
        ) from error
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"inputs {source}: not an .npz file of plain arrays: {error}") from error
