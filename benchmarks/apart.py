"""Measuring in a process of its own: with a time limit, and nothing that it does comes back but its result."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def apart(measure: Callable[[], Any], limit: int) -> Any:
    """The JSON-able result of ``measure``, run in a fork.

    Raises:
        RuntimeError: it failed, with its last line and place; or it took longer than ``limit`` seconds.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        signal.alarm(limit)
        with os.fdopen(writing, "w") as pipe:
            json.dump(_outcome(measure), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        raise RuntimeError(f"more than {limit} s")
    if not text:
        raise RuntimeError(f"the process ended without a result: status {status}")
    outcome = json.loads(text)
    if "error" in outcome:
        raise RuntimeError(outcome["error"])
    return outcome["result"]


def _outcome(measure: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"result": measure()}
    except Exception as error:  # noqa: BLE001 - of any class; it is a row of a table
        place = traceback.extract_tb(error.__traceback__)[-1]
        line = (str(error).splitlines() or [""])[0]
        return {"error": f"{type(error).__name__}: {line} ({Path(place.filename).name}:{place.lineno})"}
