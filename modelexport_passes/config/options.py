"""The options of a pass class, read from its constructor, and passes built from options in a document."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from modelexport_passes.config.document import Document
from modelexport_passes.config.problems import DocumentPath, Problem, render_path
from modelexport_passes.config.schema import PassSection
from modelexport_passes.config.types import describe, is_pass
from modelexport_passes.config.validation import check_value, unknown_key, value_at
from modelexport_passes.errors import ConfigError, MissingDependencyError, ModelExportError

if TYPE_CHECKING:
    import onnx_ir as ir

    PassClass: TypeAlias = type[ir.passes.PassBase]
    Load: TypeAlias = Callable[[str], PassClass]

REQUIRED: Any = dataclasses.MISSING
"""The default of an option that has none."""


@dataclass(frozen=True)
class Option:
    """One option of a pass.

    Attributes:
        name: its name, in Python and in YAML.
        annotation: its type, or None if the type cannot be had (then it can be set from Python only).
        default: its default, or `REQUIRED`.
        doc: what the class docstring says about it.
    """

    name: str
    annotation: Any
    default: Any
    doc: str = ""

    @property
    def expected(self) -> str:
        """The values it takes, in words."""
        return "a Python object (not in YAML)" if self.annotation is None else describe(self.annotation)


def options_of(pass_class: PassClass) -> list[Option]:
    """The options of any onnx_ir pass class: the parameters of its constructor."""
    docs = _documented(inspect.getdoc(pass_class) or "")
    factories = {}
    if dataclasses.is_dataclass(pass_class):
        factories = {field.name: field.default_factory for field in dataclasses.fields(pass_class)}
    found: list[Option] = []
    for parameter in inspect.signature(pass_class).parameters.values():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        default = REQUIRED if parameter.default is inspect.Parameter.empty else parameter.default
        factory = factories.get(parameter.name, dataclasses.MISSING)
        if callable(factory):
            default = factory()
        annotation = _resolved(parameter.annotation, pass_class, parameter.name)
        found.append(Option(parameter.name, annotation, default, docs.get(parameter.name, "")))
    return found


def build_named(
    name: str, path: DocumentPath, document: Document, load: Load
) -> tuple[ir.passes.PassBase | None, list[Problem]]:
    """Make the pass that the mapping at a path names under ``pass``, with the options that it has under ``with``.

    Args:
        name: the name found there.
        path: of the mapping.
        document: the document.
        load: name -> pass class.

    Returns:
        the pass (None if there are problems), and the problems.

    Raises:
        MissingDependencyError: the pass needs a package that is not installed.
    """
    here = (*path, "pass")
    try:
        pass_class = load(name)
    except ConfigError as error:
        return None, [Problem(document.place_of(here), render_path(here), str(error))]
    except MissingDependencyError as error:
        raise MissingDependencyError(f"{document.place_of(here)}: {render_path(here)}: {error}") from error
    options = (*path, "with")
    if options in document.marks and not isinstance(value_at(document.value, options), dict | None):
        return None, []  # the check of the whole document tells it
    return build_pass(pass_class, options, document, load)


def build_pass(
    pass_class: PassClass, path: DocumentPath, document: Document, load: Load
) -> tuple[ir.passes.PassBase | None, list[Problem]]:
    """Make a pass from the mapping of options at a path of a document; paths in it are relative to the file.

    An option that is itself a pass is a mapping with the keys ``pass`` and ``with``, as a step is.

    Returns:
        the pass (None if there are problems), and the problems.
    """
    given: dict[str, Any] = value_at(document.value, path) if path in document.marks else {}
    given = given or {}
    options = {option.name: option for option in options_of(pass_class)}
    values: dict[str, Any] = {}
    passes: dict[str, Any] = {}
    problems: list[Problem] = []
    for key in given:
        here = (*path, key)
        if key not in options:
            problems.append(unknown_key(str(key), list(options), here, document))
        elif options[key].annotation is None:
            text = "can be set from Python only; remove it here"
            problems.append(Problem(document.place_of(here, key=True), render_path(here), text))
        elif is_pass(options[key].annotation):
            passes[key], found = _build_inner(here, document, load)
            problems += found
        else:
            values[key], found = check_value(options[key].annotation, here, document)
            problems += found
    for option in options.values():
        if option.default is REQUIRED and option.name not in given:
            where = render_path((*path, option.name))
            problems.append(Problem(document.place_of(path), where, f"missing; expected {option.expected}"))
    if problems:
        return None, problems
    folder = Path(document.file).parent
    try:
        return pass_class(**{key: relative_to(folder, value) for key, value in values.items()}, **passes), []
    except (TypeError, ValueError, ModelExportError) as error:  # what constructors refuse options with
        problem = Problem(document.place_of(path), render_path(path), str(error))
        return None, [problem]


def _build_inner(path: DocumentPath, document: Document, load: Load) -> tuple[ir.passes.PassBase | None, list[Problem]]:
    """Make a pass that is an option of another."""
    section, problems = check_value(PassSection, path, document)
    return build_named(section.pass_, path, document, load) if section is not None else (None, problems)


def relative_to(folder: Path, value: Any) -> Any:
    """The value with every relative path in it taken as relative to a folder."""
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, list | tuple | set | frozenset):
        items = cast("list[Any]", value)
        return type(items)(relative_to(folder, item) for item in items)
    if isinstance(value, dict):
        return {key: relative_to(folder, item) for key, item in cast("dict[Any, Any]", value).items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(value, **{name: relative_to(folder, getattr(value, name)) for name in fields})
    return value


def _resolved(annotation: Any, pass_class: PassClass, name: str) -> Any:
    """The annotation as a type; None if it names what is imported for type checkers only."""
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    for owner in pass_class.__mro__:
        if name in inspect.get_annotations(owner) or "__init__" in vars(owner):
            try:
                return eval(annotation, vars(sys.modules[owner.__module__]))  # noqa: S307 - code of the pass itself
            except (NameError, AttributeError):
                continue
    return None


_SECTION = re.compile(r"^(Attributes|Args):\s*$")
_ENTRY = re.compile(r"^    (\w+)(?: \([^)]*\))?: (.*)$")


def _documented(doc: str) -> dict[str, str]:
    """Option -> text, from the ``Attributes:`` and ``Args:`` sections of a Google docstring."""
    found: dict[str, str] = {}
    current = ""
    for line in _section_lines(doc):
        entry = _ENTRY.match(line)
        if entry:
            current = entry[1]
            found[current] = entry[2].strip()
        elif current and line.startswith("     "):
            found[current] += f" {line.strip()}"
    return found


def _section_lines(doc: str) -> Iterator[str]:
    inside = False
    for line in doc.splitlines():
        if _SECTION.match(line):
            inside = True
        elif line and not line.startswith(" "):
            inside = False
        elif inside:
            yield line
