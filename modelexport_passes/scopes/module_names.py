"""The modules of a model by the ends of their paths, which is what names of TorchScript tell of them."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence


class ModuleNames:
    """The modules that are known to be in the model: path -> qualified class.

    Attributes:
        complete: every module is known, so a name that fits none of them is not a module's.
    """

    def __init__(self, classes: Mapping[str, str], *, complete: bool) -> None:
        self.classes = dict(classes)
        self.complete = complete
        self._by_tail: dict[str, list[str]] = defaultdict(list)
        for path in self.classes:
            if path:
                self._by_tail[tail(path)].append(path)
        self._places = {path: place for place, path in enumerate(self.classes)}
        self._sorted: dict[str, list[str]] = {}
        self._ends: dict[str, tuple[tuple[str, str], ...]] = {"": ()}
        self._by_end: dict[str, dict[str, str | None]] = {"": {}}

    def ends(self, path: str) -> tuple[tuple[str, str], ...]:
        """The modules on the way to a path with their tails, outermost first: ``(tail, module)``."""
        found = self._ends.get(path)
        if found is None:
            self._ends[path] = found = (*self.ends(path.rpartition(".")[0]), (tail(path), path))
        return found

    def by_end(self, path: str) -> Mapping[str, str | None]:
        """Tail -> the module on the way to a path that has it; None for one that several have."""
        found = self._by_end.get(path)
        if found is None:
            above, end = self.by_end(path.rpartition(".")[0]), tail(path)
            self._by_end[path] = found = {**above, end: None if end in above else path}
        return found

    def with_tail(self, part: str) -> Sequence[str]:
        """Modules whose path ends in this tail, in the order of the model."""
        return self._by_tail.get(part, ())

    def below(self, parent: str, part: str) -> Sequence[str]:
        """Those of them that are below a module; a deep model has many, and few of them below one."""
        found = self.with_tail(part)
        if not parent or not found:
            return found
        if part not in self._sorted:
            self._sorted[part] = sorted(found)
        ordered = self._sorted[part]
        start = bisect_left(ordered, f"{parent}.")
        end = bisect_left(ordered, f"{parent}/", start)  # "/" follows "."
        return sorted(ordered[start:end], key=self._places.__getitem__)


def tail(path: str) -> str:
    """The end of a path from its last atom that is not a number: the part that names carry."""
    last = path.rpartition(".")[2]
    if not last.isdecimal():
        return last
    atoms = path.split(".")
    start = len(atoms) - 1
    while start > 0 and atoms[start].isdecimal():
        start -= 1
    return ".".join(atoms[start:])
