"""How far long work is, for whoever listens: sessions run, values proven, weights written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far one piece of work is.

    Attributes:
        what: what is counted, such as ``"module proof: stretches run"``.
        done: how many of it are done.
        total: how many there are; None where that is not known.
    """

    what: str
    done: int
    total: int | None = None

    def __str__(self) -> str:
        return f"{self.what} {self.done}" + ("" if self.total is None else f" of {self.total}")


Listener = Callable[[Progress], None]

_listener: ContextVar[Listener | None] = ContextVar("progress_listener", default=None)


def tell(what: str, done: int, total: int | None = None) -> None:
    """Say how far some work is. Costs next to nothing where nobody listens; what a listener raises ends the work."""
    listener = _listener.get()
    if listener is not None:
        listener(Progress(what, done, total))


@contextlib.contextmanager
def told_to(listener: Listener) -> Generator[None]:
    """Hand what is told inside of this context to a listener, and to no other."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
