"""What can go wrong, and the exit code of each: 1 a step failed, 2 usage or configuration, 3 proof, 4 missing part.

And what the errors of others came from: libraries wrap them, and say the reason last.
"""

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


def innermost(error: BaseException) -> BaseException:
    """What an error came from: the last of those behind it that says something, or the first of ours."""
    seen: set[int] = set()
    while id(error) not in seen and not isinstance(error, ModelExportError):
        seen.add(id(error))
        inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if inner is None or not str(inner):
            break
        error = inner
    return error


def first_line(error: BaseException) -> str:
    """The line of its text that matters; all of it of one of ours, which are written to be read as a whole."""
    if isinstance(error, ModelExportError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A line that ends in a colon announces what matters.
    count = next((at for at, line in enumerate(lines, 1) if not line.endswith(":")), len(lines))
    return " ".join(lines[:count]) or "(no text)"


def in_a_line(error: BaseException) -> str:
    """Class and first line; the text alone of one of ours."""
    return str(error) if isinstance(error, ModelExportError) else f"{type(error).__name__}: {first_line(error)}"


def root_cause(error: BaseException) -> str:
    """The innermost error in a line."""
    return in_a_line(innermost(error))
