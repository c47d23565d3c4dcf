"""Where each running module stood in its Python code, from the stack traces that dynamo writes on operations.

A trace lists the Python frames that were running, outermost first. Those of ``forward`` are the modules of the stack,
one each; between them stand methods that a module calls on itself. Where their number is that of the modules, a trace
says for each module from which line it was called, and in which of its own lines the operation was made. Two lines of a
caller are two calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

STACK_TRACE = "pkg.torch.onnx.stack_trace"

_FRAME = re.compile(r'File "([^"\n]*)", line (\d+), in (\S+)')
_REGION = "<eval_with_key>"


class PythonFrame(NamedTuple):
    """One line of a trace.

    Attributes:
        file: path of the code.
        line: in the file.
        function: name of the function it is in.
    """

    file: str
    line: int
    function: str

    @property
    def is_forward(self) -> bool:
        """The code of a module that was running."""
        return self.function == "forward"


def python_frames(text: str) -> list[PythonFrame]:
    """The frames of a trace, outermost first."""
    return [PythonFrame(file, int(line), function) for file, line, function in _FRAME.findall(text)]


class Place(NamedTuple):
    """Where one module of the stack stood.

    Attributes:
        caller: all frames above its forward, up to the line that called it; None where a trace does not tell.
        line: the line of its forward.
    """

    caller: tuple[PythonFrame, ...] | None
    line: int


class Traces:
    """Reads traces; each text once, for a model has few and many operations with the same."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, int], Sequence[Place | None]] = {}

    def places(self, text: str | None, depth: int) -> Sequence[Place | None]:
        """A place for each of ``depth`` modules, the root first; empty where the trace does not fit the modules."""
        if not text:
            return ()
        key = text, depth
        found = self._read.get(key)
        if found is None:
            found = self._read[key] = _places(text, depth)
        return found


def _places(text: str, depth: int) -> Sequence[Place | None]:
    frames = python_frames(text)
    forwards = [at for at, frame in enumerate(frames) if frame.is_forward]
    if len(forwards) == depth:
        return tuple(Place(tuple(frames[:at]), frames[at].line) for at in forwards)
    if len(frames) == 1 and frames[0].file.startswith(_REGION):
        # A part of a forward that torch traced by itself (without gradients): its lines are those of that part.
        return (*[None] * (depth - 1), Place(None, frames[0].line))
    return ()
