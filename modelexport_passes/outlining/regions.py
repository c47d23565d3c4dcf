"""Regions: the module calls that become functions, as a tree, and the selection that says which do."""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from modelexport_passes.scopes.scope import Frame

Frames = tuple[Frame, ...]


class Region:
    """One module call that shall become a call of a function; the root is the main graph.

    Attributes:
        frames: the stack down to this call; empty for the root.
        parent: the region it lies in; None for the root.
        children: regions that lie in it.
        depth: number of regions above it.
        part: which part of the module call it is, from 1; 0 if it is the whole call.
    """

    __slots__ = ("children", "depth", "frames", "parent", "part")

    def __init__(self, frames: Frames, parent: Region | None) -> None:
        self.frames = frames
        self.parent = parent
        self.children: dict[Region, None] = {}
        self.part = 0
        self.depth: int = 0 if parent is None else parent.depth + 1

    @property
    def frame(self) -> Frame:
        """The module call itself."""
        return self.frames[-1]

    def __str__(self) -> str:
        if not self.frames:
            return "(main graph)"
        return f"{self.frame} (part {self.part})" if self.part else str(self.frame)

    def child(self, frames: Frames) -> Region:
        """A new region of this stack, directly in this one."""
        region = Region(frames, self)
        self.children[region] = None
        return region

    def move(self, parent: Region) -> None:
        """Lie in another region."""
        assert self.parent is not None
        del self.parent.children[self]
        self.parent = parent
        parent.children[self] = None
        for region in self.descend():
            assert region.parent is not None
            region.depth = region.parent.depth + 1

    def dissolve(self) -> None:
        """Leave the tree: the regions below it go to the region above."""
        assert self.parent is not None
        del self.parent.children[self]
        for child in self.children:
            child.parent = self.parent
            self.parent.children[child] = None
        for region in self.descend():
            region.depth -= 1

    def descend(self) -> Iterator[Region]:
        """This region and all below it, parents first."""
        stack: list[Region] = [self]
        while stack:
            region = stack.pop()
            yield region
            stack.extend(region.children)


def lowest_common(a: Region, b: Region) -> Region:
    """The lowest region that holds both."""
    while a is not b:
        if a.depth >= b.depth:
            assert a.parent is not None
            a = a.parent
        else:
            assert b.parent is not None
            b = b.parent
    return a


def find_regions(stacks: Iterable[Frames], root: Region, selected: Callable[[Frames], bool]) -> dict[Frames, Region]:
    """Make a region for each selected module call on these stacks: stack -> the innermost region around it."""
    innermost: dict[Frames, Region] = {(): root}
    for stack in stacks:
        known = len(stack)
        while stack[:known] not in innermost:  # of most calls the one around is known
            known -= 1
        region = innermost[stack[:known]]
        for depth in range(known + 1, len(stack) + 1):
            prefix = stack[:depth]
            innermost[prefix] = region = region.child(prefix) if selected(prefix) else region
    return innermost


# --- selection -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """Which module calls become functions. The root of the model never does.

    Attributes:
        modules: ``"all"``, ``"auto"`` (the outermost repeated blocks), or globs over qualified class names.
        paths: globs over module paths, besides ``modules``.
        exclude: globs over class names or paths that win over both.
        depth: how many module calls below the root at the most; None for all.
    """

    modules: str | Sequence[str]
    paths: Sequence[str] = ()
    exclude: Sequence[str] = ()
    depth: int | None = None

    def predicate(self, stacks: Iterable[Frames]) -> Callable[[Frames], bool]:
        """Tells of a stack whether its innermost call is selected."""
        by_class = _globs(() if isinstance(self.modules, str) else self.modules)
        by_path = _globs(self.paths)
        excluded = _globs(self.exclude)
        blocks = repeated_blocks(stacks) if self.modules == "auto" else frozenset[Frames]()

        def selected(stack: Frames) -> bool:
            frame = stack[-1]
            if self.depth is not None and len(stack) - 1 > self.depth:
                return False
            if len(stack) == 1 or excluded(frame.class_name) or excluded(frame.path):
                return False
            return self.modules == "all" or stack in blocks or by_class(frame.class_name) or by_path(frame.path)

        return selected


def _globs(patterns: Sequence[str]) -> Callable[[str], bool]:
    if not patterns:
        return lambda _: False
    expression = re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))
    return lambda text: expression.match(text) is not None


def repeated_blocks(stacks: Iterable[Frames]) -> frozenset[Frames]:
    """The outermost module calls that have like siblings and modules of their own: decoder layers, stages, experts.

    Like siblings have one caller, one class, and one path but for its indices: items of a ModuleList, or calls again.
    """
    children: dict[Frames, dict[Frames, None]] = defaultdict(dict)
    for stack in stacks:
        for depth in range(1, len(stack)):
            children[stack[:depth]].setdefault(stack[: depth + 1])
    blocks: set[Frames] = set()
    queue: list[Frames] = [stack for stack in children if len(stack) == 1]
    while queue:
        parent = queue.pop()
        alike: dict[tuple[str, str], list[Frames]] = defaultdict(list)
        for child in children[parent]:
            alike[kind_of_call(child[-1])].append(child)
        for group in alike.values():
            if len(group) > 1 and all(children.get(child) for child in group):
                blocks.update(group)
            else:
                queue.extend(child for child in group if children.get(child))
    return frozenset(blocks)


def kind_of_call(frame: Frame) -> tuple[str, str]:
    """Equal for items of one list and for calls of one module: the class, and the path but for its indices."""
    return (frame.class_name, ".".join("#" if atom.isdecimal() else atom for atom in frame.path.split(".")))
