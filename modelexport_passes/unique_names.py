"""Names that are given once."""

from __future__ import annotations

from collections.abc import Iterable


class Names:
    """Hands out each name once; a name that is taken gets ``_1``, ``_2``, ..."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def take(self, name: str) -> str:
        """This name, or the next free one like it."""
        candidate = name
        while candidate in self._taken:
            self._next[name] = self._next.get(name, 0) + 1
            candidate = f"{name}_{self._next[name]}"
        self._taken.add(candidate)
        return candidate

    def take_or(self, name: str, other: str) -> str:
        """This name if it is free, else the other one, or the next free one like it."""
        taken = self._taken
        if name in taken:
            if other in taken:
                return self.take(other)
            name = other
        taken.add(name)
        return name

    def are_free(self, names: Iterable[str]) -> bool:
        """Whether none of these is taken."""
        return self._taken.isdisjoint(names)

    def add(self, names: Iterable[str]) -> None:
        """Take these, which are free."""
        self._taken.update(names)
