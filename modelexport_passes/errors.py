"""What can go wrong, and the exit code of each: 1 a step failed, 2 usage or configuration, 3 proof, 4 missing part."""

from __future__ import annotations

from typing import ClassVar


class ModelExportError(Exception):
    """The base of all errors raised on purpose. The text says what, where, what was expected, what to do next."""

    exit_code: ClassVar[int] = 1


class ConfigError(ModelExportError):
    """The pipeline file, an option or an argument is wrong."""

    exit_code: ClassVar[int] = 2


class VerificationError(ModelExportError):
    """A model is not valid, or not the same model as its reference."""

    exit_code: ClassVar[int] = 3


class MissingDependencyError(ModelExportError):
    """A package or plug-in that this needs is not installed."""

    exit_code: ClassVar[int] = 4
