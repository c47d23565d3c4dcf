"""The garbage collector, held while many objects are made that all stay alive."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Generator[None]:
    """No cyclic garbage collection inside: it would only walk a growing model again and again (half of the time)."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            _count_as_old()
            gc.enable()


def _count_as_old() -> None:
    """Let what was made count as long-lived, as it is: else it is walked once for each generation that it grows into.

    Freezing and thawing moves every object into the oldest generation without looking at it. What others have frozen
    (a server before it forks) stays frozen.
    """
    if not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()
