"""Tags: a scope as the string that a consumer reads, and back.

The default form has one segment per frame, ``Class.attribute_path``, ``@k`` behind call k > 0::

    /TestTransformer/TransformerBlock.layers.0/AttentionHead.attention/Linear.query

A path that does not extend the frame before it keeps its full form behind ``^`` (``Rotary.^rotary``), so that two
module calls never share a tag. Inside a function body a tag is relative (``AttentionHead.attention/Linear.query``,
``.`` for the module's own operations): joined to the tag of the call with ``/`` it is the tag of the operation. There
``^`` is before a path that does not lie in the module, ``^.`` before one that does and does not extend the one before.

Other readers want other forms: a template over `TEMPLATE_FIELDS`, or one of `PRESETS`.

Which keys a model carries is remembered in the model's own metadata, so that a pass that moves an operation to another
place renders its tags anew.
"""

from __future__ import annotations

import functools
import json
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import onnx_ir as ir

from modelexport_passes.errors import ConfigError, ModelExportError
from modelexport_passes.scopes.compact import as_text
from modelexport_passes.scopes.scope import SCOPE_KEY, UNKNOWN_CLASS, Frame, Scope, escape, parse_scope, unescape

TAGS_KEY = "pkg.modelexport_passes.tags"
"""Metadata key on the model: JSON, tag key -> template, of the tags that its nodes carry."""

METADATA_IR_VERSION = 10
"""The first IR version with metadata on nodes (onnx.proto)."""

DEFAULT_KEY = "hierarchy_tag"
DEFAULT_TEMPLATE = "{tag}"
TEMPLATE_FIELDS = {
    "tag": "the default tag",
    "path": "dotted path of the innermost module, empty for the root",
    "class": "its class",
    "qualified_class": "its class with the Python module",
    "classes": "the classes of all modules from the root, with / between",
    "depth": "number of modules from the root",
    "call": "which call of the module it is, 0 for the first",
    "source": "how the scope is known",
    "htp": "classes from the root, those of torch.nn left out, with the index in a list: /Bert/Layer.0/Attention",
    "htp_depth": "number of classes in {htp}",
    "namespace": "class and path of each module from the root, as torch writes them",
    "node": "name of the node",
    "op": "its operator",
}
"""Field of a template -> what it is."""

_NODE_FIELDS = ("{node}", "{op}")
_INFRASTRUCTURE = "torch.nn."

PRESETS: Mapping[str, Mapping[str, str]] = {
    "default": {DEFAULT_KEY: DEFAULT_TEMPLATE},
    "htp": {DEFAULT_KEY: "{htp}"},
    "winml": {"winml.hierarchy.tag": "{htp}", "winml.hierarchy.depth": "{htp_depth}"},
    "layer_ann": {"layer_ann": "{path}"},
    "namespace": {"namespace": "{namespace}/{node}: {op}"},
}
"""Name of a reader -> metadata key -> template.

- ``default``: the form that parses back (`parse_tag`).
- ``htp``: hierarchy-preserving tags.
- ``winml``: winml-cli.
- ``layer_ann``: onnxruntime's layer assignment, which matches prefixes.
- ``namespace``: Model Explorer, in the form of torch's exporter.
"""


def render_tag(scope: Scope) -> str:
    """The default tag of a scope.

    Example:
        >>> from modelexport_passes.scopes.scope import Frame
        >>> render_tag(Scope((Frame("", "m.Net"), Frame("layers.0", "m.Block", 1))))
        '/Net/Block.layers.0@1'
    """
    segments: list[str] = []
    before = ""
    for frame in scope.frames:
        segments.append(_segment(frame, before, scope.relative))
        before = frame.path
    if scope.relative:
        return "/".join(segments) or "."
    return "/" + "/".join(segments)


@functools.lru_cache(maxsize=16384)
def _segment(frame: Frame, before: str, relative: bool) -> str:
    attribute = _attribute(frame.path, before, relative=relative)
    name = escape(frame.short_class)
    text = f"{name}.{attribute}" if attribute else name
    return f"{text}@{frame.call}" if frame.call else text


def _attribute(path: str, before: str, *, relative: bool) -> str:
    """A path as seen from the one before it: what it adds to that, or the whole of it behind a mark."""
    if path == before:
        return ""
    if before and path.startswith(f"{before}."):
        return escape(path[len(before) + 1 :])
    if relative and path.startswith("^"):
        return "^" + escape(path[1:])
    if not before:
        return escape(path)
    return ("^." if relative else "^") + escape(path)


def parse_tag(tag: str) -> Scope:
    """Read a default tag. Classes come back short: a tag holds no Python module.

    Raises:
        ValueError: the text is not a default tag.
    """
    relative = not tag.startswith("/")
    frames: list[Frame] = []
    before = ""
    for segment in [] if tag == "." else tag.removeprefix("/").split("/"):
        head, _, call = segment.partition("@")
        name, _, attribute = head.partition(".")
        if not name or (call and not call.isdecimal()):
            raise ValueError(f"not a tag: {tag!r} (segment {segment!r}; expected Class.attribute_path@call)")
        before = _path(attribute, before, relative=relative)
        frames.append(Frame(before, unescape(name), int(call or 0)))
    return Scope(tuple(frames), relative=relative)


def _path(attribute: str, before: str, *, relative: bool) -> str:
    """The inverse of `_attribute`."""
    if not attribute:
        return before
    if relative and attribute.startswith("^."):
        return unescape(attribute[2:])
    if attribute.startswith("^"):
        return ("^" if relative else "") + unescape(attribute[1:])
    return f"{before}.{unescape(attribute)}" if before else unescape(attribute)


def check_template(template: str) -> None:
    """Refuse a template that names a field we do not have.

    Raises:
        ConfigError: naming the field and those there are.
    """
    try:
        fields = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ConfigError(f"tag template {template!r}: {error}") from error
    for field, width, conversion in fields:
        if width or conversion:  # nothing of Python's, and no width that fills the memory
            raise ConfigError(f"tag template {template!r}: field {field!r} takes no format or conversion behind it")
        if field not in TEMPLATE_FIELDS:
            raise ConfigError(f"tag template {template!r}: no field {field!r}; there are {', '.join(TEMPLATE_FIELDS)}")


def tag_of(node: ir.Node, template: str) -> str | None:
    """What a node's tag should be; None if its scope is unknown, or if the template gives nothing for it."""
    scope_text = node.metadata_props.get(SCOPE_KEY)
    if scope_text is None:
        return None
    if names_nodes(template):
        return render(scope_text, template, node.name or "", node.op_type) or None
    return render(scope_text, template) or None


def names_nodes(template: str) -> bool:
    """Whether a template tells the operation, and not its scope alone."""
    return any(field in template for field in _NODE_FIELDS)


def tags_of_scope(scope: Scope, templates: Mapping[str, str]) -> dict[str, str]:
    """Tag key -> tag of all operations of a scope; ``templates`` tell no operation (`names_nodes`)."""
    tags = {key: _rendered(scope, template) for key, template in templates.items()}
    return {key: tag for key, tag in tags.items() if tag}


@functools.lru_cache(maxsize=65536)
def render(scope_text: str, template: str = DEFAULT_TEMPLATE, node: str = "", op: str = "") -> str:
    """A scope's text form through a template (`TEMPLATE_FIELDS`)."""
    return _rendered(parse_scope(scope_text), template, node, op)


def _rendered(scope: Scope, template: str, node: str = "", op: str = "") -> str:
    if template == DEFAULT_TEMPLATE:
        return render_tag(scope)
    htp = _htp_segments(scope)
    return template.format_map(
        {
            "tag": render_tag(scope),
            "path": scope.path,
            "class": scope.frames[-1].short_class if scope.frames else UNKNOWN_CLASS,
            "qualified_class": scope.class_name,
            "classes": "/".join(frame.short_class for frame in scope.frames),
            "depth": len(scope.frames),
            "call": scope.call,
            "source": scope.source.value,
            "htp": ("" if scope.relative else "/") + "/".join(htp),
            "htp_depth": len(htp),
            "namespace": "/".join(f"{frame.path}: {frame.class_name}" for frame in scope.frames),
            "node": node,
            "op": op,
        }
    )


def _htp_segments(scope: Scope) -> list[str]:
    """The root is always there; of the others, what torch itself ships is no module of the model."""
    segments: list[str] = []
    for depth, frame in enumerate(scope.frames):
        if frame.class_name.startswith(_INFRASTRUCTURE) and (depth or scope.relative):
            continue
        index = frame.path.rpartition(".")[2]
        segments.append(f"{frame.short_class}.{index}" if index.isdecimal() else frame.short_class)
    return segments


# --- which tags a model carries --------------------------------------------------------------------------------------


def tag_templates(model: ir.Model) -> dict[str, str]:
    """Tag key -> template of the tags that this model's nodes carry.

    Raises:
        ModelExportError: the entry of the model's metadata is not what `remember_template` writes.
    """
    text = model.metadata_props.get(TAGS_KEY)
    return dict(_read_templates(text)) if text else {}


@functools.lru_cache(maxsize=64)
def _read_templates(text: str) -> Mapping[str, str]:
    expected = f"model metadata {TAGS_KEY!r}: expected JSON, tag key -> template"
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelExportError(f"{expected}; got {text[:80]!r}") from error
    if not isinstance(found, dict):
        raise ModelExportError(f"{expected}; got {text[:80]!r}")
    entries = cast("dict[str, object]", found)
    for key, template in entries.items():
        if not isinstance(template, str):
            raise ModelExportError(f"{expected}; got {template!r:.80} for {key!r:.80}")
        try:
            check_template(template)
        except ConfigError as error:
            raise ModelExportError(f"model metadata {TAGS_KEY!r}: {str(error)[:200]}") from error
    return cast("dict[str, str]", found)


def remember_template(model: ir.Model, key: str, template: str) -> None:
    """Note that the model's nodes carry a tag under ``key``."""
    model.metadata_props[TAGS_KEY] = as_text({**tag_templates(model), key: template})


class Retagged(NamedTuple):
    """What `retag_counted` did.

    Attributes:
        changed: how many nodes have other tags now.
        scoped: how many have a scope.
        tagged: tag key -> how many have that tag.
    """

    changed: int
    scoped: int
    tagged: dict[str, int]


def retag(nodes: Iterable[ir.Node], templates: Mapping[str, str]) -> int:
    """Render the tags of these nodes from their scopes; an unknown scope has no tag. Returns how many nodes changed."""
    return retag_counted(list(nodes), templates).changed if templates else 0


def retag_counted(nodes: Sequence[ir.Node], templates: Mapping[str, str]) -> Retagged:
    """As `retag`, counting on the way: to look at all nodes once more would cost as much again."""
    changed = bytearray(len(nodes))
    scoped = 0
    tagged: dict[str, int] = {}
    for key, template in templates.items():
        each = names_nodes(template)
        known: dict[str | None, str | None] = {None: None}
        unscoped = untagged = 0
        for at, node in enumerate(nodes):
            props = node.metadata_props
            text = props.get(SCOPE_KEY)
            if each:
                tag = tag_of(node, template)
            elif text in known:
                tag = known[text]
            else:
                tag = known[text] = tag_of(node, template)
            if tag is None:
                untagged += 1
                unscoped += text is None
            if props.get(key) != tag:
                changed[at] = 1
                if tag is None:
                    del props[key]
                else:
                    props[key] = tag
        tagged[key] = len(nodes) - untagged
        scoped = len(nodes) - unscoped
    return Retagged(sum(changed), scoped, tagged)
