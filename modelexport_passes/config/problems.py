"""What is wrong with a configuration: each problem at its place, all of them in one error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelexport_passes.errors import ConfigError

DocumentPath = tuple[str | int, ...]
"""Keys and indices from the top of a document down to a value."""


@dataclass(frozen=True, order=True)
class Place:
    """Where something stands: ``file:line:column``, or an override by its address.

    Attributes:
        file: the path as the user gave it, or ``override ADDRESS``.
        line: from 1; 0 where there are no lines.
        column: from 1.
    """

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong, said in one line.

    Attributes:
        place: where it stands.
        where: the path in the document (``steps[1].with.modules``); empty for the file itself.
        text: what is wrong, what was expected, what to do next.
    """

    place: Place
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.where}: {self.text}" if self.where else f"{self.place}: {self.text}"


class ConfigFileError(ConfigError):
    """All problems of one configuration, one line each, in the order of the file.

    Attributes:
        problems: the problems, sorted by place.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(map(str, self.problems)))


def render_path(path: DocumentPath) -> str:
    """``("steps", 1, "with")`` as ``steps[1].with``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """``; did you mean 'key'?`` when a known word is near, else nothing."""
    close = difflib.get_close_matches(
        wrong.lower(), by_folded := {word.lower(): word for word in known}, n=1, cutoff=0.6
    )
    return f"; did you mean {by_folded[close[0]]!r}?" if close else ""


def one_of(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}" if words else "nothing"
