"""Known modules, found by the ends of their paths."""

from __future__ import annotations

import pytest

from modelexport_passes.scopes.module_names import ModuleNames, tail

NAMES = ModuleNames({"": "?", "a": "?", "a.net.1.0": "?", "a.net": "?", "b.a.lin": "?"}, complete=False)


@pytest.mark.parametrize(
    ("path", "end"),
    [("", ""), ("0", "0"), ("1.2", "1.2"), ("lin", "lin"), ("a.lin", "lin"), ("a.net.1.0", "net.1.0"), ("a.0.b", "b")],
)
def test_an_end_begins_at_the_last_atom_that_is_no_number(path: str, end: str) -> None:
    """All of a path is its end where it has numbers only."""
    assert tail(path) == end


def test_the_modules_on_a_way_are_told_outermost_first() -> None:
    """Those without operations and those that nothing names are on it, too."""
    assert NAMES.ends("a.net.1.0") == (("a", "a"), ("net", "a.net"), ("net.1", "a.net.1"), ("net.1.0", "a.net.1.0"))


def test_an_end_that_two_modules_on_a_way_have_tells_none() -> None:
    """The others tell theirs, also below these two."""
    assert NAMES.by_end("b.a.lin") == {"b": "b", "a": "b.a", "lin": "b.a.lin"}
    assert NAMES.by_end("a.b.a.lin") == {"a": None, "b": "a.b", "lin": "a.b.a.lin"}
    assert NAMES.by_end("a.b.a.a") == {"a": None, "b": "a.b"}
