"""What protobuf writes, as texts in which each character is one byte (latin-1).

Python formats texts faster than it joins bytes. A field is its number, then the length of what it holds, then that
(https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any


class _Lengths(dict[int, str]):
    """Number -> its form in protobuf, seven bits in a byte; made when it is first asked for."""

    def __missing__(self, number: int) -> str:
        groups: list[int] = []
        rest = number
        while rest > 127:
            groups.append(rest & 127 | 128)
            rest >>= 7
        text = "".join(map(chr, [*groups, rest]))
        if len(text) <= 2:  # nearly all that there are, and not too many to keep
            self[number] = text
        return text


LENGTHS = _Lengths()


def start_of(field_number: int) -> str:
    """What stands before a field with a text, bytes or a message: its number, and that a length follows."""
    return LENGTHS[field_number << 3 | 2]


_KEY, _VALUE = start_of(1), start_of(2)


class Metadata:
    """Writes metadata.

    Args:
        start: of the field of a node or of a value that an entry is.
    """

    def __init__(self, start: str) -> None:
        self._start = start
        self._kinds: dict[tuple[str, ...], _Kind] = {}
        self._texts: dict[str, dict[str, str]] = {}

    def fields(self, metadata: Mapping[str, str]) -> str:
        """The fields of all entries, in the order of their keys."""
        keys, texts = tuple(metadata), tuple(metadata.values())
        kind = self._kinds.get(keys)
        if kind is None:
            entries = [
                (at, f"{text_field(_KEY, key)}{_VALUE}", self._texts.setdefault(key, {}))
                for at, key in sorted(enumerate(keys), key=itemgetter(1))
            ]
            kind = self._kinds[keys] = ({}, entries)
        written, entries = kind
        found = written.get(texts)
        if found is None:
            found = written[texts] = "".join(
                [known.get(texts[at]) or self._entry(before, texts[at], known) for at, before, known in entries]
            )
        return found

    def _entry(self, before: str, text: str, known: dict[str, str]) -> str:
        fields = f"{before}{sized(text)}"
        entry = known[text] = f"{self._start}{LENGTHS[len(fields)]}{fields}"
        return entry


_Kind = tuple[dict[tuple[str, ...], str], list[tuple[int, str, dict[str, str]]]]
"""For metadata of certain keys: texts -> fields; and sorted by key: the number of the text, what stands before it,
text -> field."""


class Names(dict[str, str]):
    """Name -> what stands for it behind the start of a field."""

    def __missing__(self, name: str) -> str:
        text = self[name] = sized(name)
        return text


def sized(text: str) -> str:
    """A text behind its length."""
    if not text.isascii():
        text = _utf8(text)
    return f"{LENGTHS[len(text)]}{text}"


def text_field(start: str, text: str) -> str:
    """A field that holds a text."""
    return f"{start}{sized(text)}"


def _utf8(text: str) -> str:
    """One character for each byte of a text."""
    return text.encode().decode("latin-1")


def as_bytes(texts: list[str]) -> bytes:
    """The bytes that these texts are."""
    return "".join(texts).encode("latin-1")


def characters(proto: Any) -> str:
    """What protobuf writes of a message, as a text."""
    return to_bytes(proto).decode("latin-1")


def to_bytes(proto: Any) -> bytes:
    """What protobuf writes of a message: entries of a map in one order."""
    return proto.SerializeToString(deterministic=True)
