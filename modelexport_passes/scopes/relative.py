"""Scopes inside function bodies: relative to the function's module, and back to absolute ones at a call.

Paths lose the module's own path; a path that does not lie below the module keeps its full form behind ``^``. Call
indices count from the first call of each module inside this call of the body, so that two calls of one body agree; the
*bases* to add at a call are zero except for modules that run more than once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modelexport_passes.scopes.scope import Frame

Frames = tuple[Frame, ...]
Bases = Mapping[str, int]


def call_bases(stacks: Iterable[Frames], module: Frames) -> dict[str, int]:
    """For each path below ``module`` on these stacks, the index of its first call there; zeros left out."""
    lowest: dict[str, int] = {}
    depth = len(module)
    for stack in stacks:
        if len(stack) > depth and stack[:depth] == module:
            for frame in stack[depth:]:
                lowest[frame.path] = min(lowest.get(frame.path, frame.call), frame.call)
    return {path: call for path, call in lowest.items() if call}


def to_relative(stack: Frames, module: Frames, bases: Bases) -> Frames | None:
    """The frames below ``module``; None if the stack does not go through it."""
    if stack is module:  # an operation of the call itself
        return ()
    if stack[: len(module)] != module:
        return None
    own = module[-1].path
    return tuple(
        [
            Frame(_relative_path(frame.path, own), frame.class_name, frame.call - bases.get(frame.path, 0))
            for frame in stack[len(module) :]
        ]
    )


def to_absolute(relative: Frames, module: Frames, bases: Bases, *, inside: bool = False) -> Frames:
    """The inverse of `to_relative`. ``inside``: the call itself lies in a body, so its frames are relative too."""
    own = module[-1].path if module else ""
    frames: list[Frame] = []
    for frame in relative:
        path = frame.path if inside and frame.path.startswith("^") else _absolute_path(frame.path, own)
        frames.append(Frame(path, frame.class_name, frame.call + bases.get(path, 0)))
    return (*module, *frames)


def _relative_path(path: str, own: str) -> str:
    if path == own:
        return ""
    below = path if not own else path[len(own) + 1 :] if path.startswith(own + ".") else None
    # A name that itself begins with the mark is no path below for who reads it.
    return "^" + path if below is None or below.startswith("^") else below


def _absolute_path(path: str, own: str) -> str:
    if path.startswith("^"):
        return path[1:]
    return f"{own}.{path}" if own and path else own or path
