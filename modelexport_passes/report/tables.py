"""Models and runs as tables and trees for a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from modelexport_passes.report.diff import ModelDiff, ModelFacts
from modelexport_passes.report.tree import FunctionUse, ModuleCall, ModuleTree, parameter_bytes, parameter_count

if TYPE_CHECKING:
    from modelexport_passes.pass_base import Figure
    from modelexport_passes.pipeline.report import RunReport, StepReport


_PIPED_WIDTH = 200


def console() -> Console:
    """A console on stdout; what is piped is not cut to 80 columns."""
    out = Console()
    if not out.is_terminal:
        out.width = _PIPED_WIDTH
    return out


def run_table(report: RunReport) -> Table:
    """What each step of a run did and took."""
    table = Table(title=escape(f"{report.pipeline or 'pipeline'}: {report.input.source}"), title_justify="left")
    for heading, justify in (("step", "left"), ("seconds", "right"), ("nodes", "right"), ("functions", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("changed")
    table.add_column("figures", overflow="fold")
    counts = report.input.counts
    table.add_row("input", f"{report.input.seconds:.2f}", str(counts.nodes), str(counts.functions), "", "")
    for step in report.steps:
        table.add_row(
            escape(_step_name(step)),
            f"{step.seconds:.2f}",
            _change(step.before.nodes, step.after.nodes),
            _change(step.before.functions, step.after.functions),
            "yes" if step.modified else "no",
            escape(_figures(step.figures)),
        )
    if report.output is not None:
        output = report.output
        size = f"{escape(output.path)}  {bytes_text(output.bytes)}"
        tags = [f"{escape(key)} on {number} of {output.nodes} nodes" for key, number in output.tags.items()]
        table.add_row("output", f"{output.seconds:.2f}", "", "", "", ", ".join([size, *tags]))
    table.add_section()
    table.add_row("total", f"{report.seconds:.2f}", "", "", "", "")
    return table


def _step_name(step: StepReport) -> str:
    return step.id if step.id == step.pass_name else f"{step.id} ({step.pass_name})"


def _change(before: int, after: int) -> str:
    return str(after) if before == after else f"{before} -> {after}"


def _figures(figures: dict[str, Figure]) -> str:
    shown = {name: value for name, value in figures.items() if not isinstance(value, list | dict)}
    return ", ".join(f"{name} {_figure(value)}" for name, value in shown.items())


def _figure(value: Figure) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# --- module tree -----------------------------------------------------------------------------------------------------


def module_tree_view(tree: ModuleTree, *, nodes: bool = False, depth: int | None = None) -> Tree:
    """The module tree: class, path, operations (own / with those below), parameters, function."""
    view = Tree("[dim]class  path  operations own / total  parameters  = function[/dim]")
    for root in tree.roots:
        _add_module(view, root, "", nodes=nodes, depth=depth)
    if tree.unknown:
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(tree.unknown.items()))
        view.add(f"[yellow]unknown module: {tree.unknown.total()} operations[/yellow] [dim]({escape(kinds)})[/dim]")
    return view


def _add_module(view: Tree, module: ModuleCall, above: str, *, nodes: bool, depth: int | None) -> None:
    weights = module.all_weights()
    parts = [f"[bold]{escape(module.frame.short_class)}[/bold]"]
    if module.frame.path or module.frame.call:
        parts.append(escape(_local(str(module.frame), above)))
    parts.append(f"[cyan]{module.own_operations} / {module.total_operations}[/cyan]")
    if weights:
        parts.append(f"{parameter_count(weights):,} parameters, {bytes_text(parameter_bytes(weights))}")
    if module.function:
        parts.append(f"[green]= {escape(module.function.rpartition('::')[2])}[/green]")
    branch = view.add("  ".join(parts))
    if nodes:
        for op_type, name in module.nodes:
            branch.add(f"[dim]{escape(op_type)}  {escape(name)}[/dim]")
    if depth == 0:
        return
    for child in module.children:
        _add_module(branch, child, module.frame.path, nodes=nodes, depth=None if depth is None else depth - 1)


def _local(path: str, above: str) -> str:
    return path.removeprefix(f"{above}.") if above else path


def function_table(functions: list[FunctionUse]) -> Table:
    """The functions of a model."""
    table = Table("function", title=f"{len(functions)} functions", title_justify="left")
    for heading in ("nodes", "call sites", "calls"):
        table.add_column(heading, justify="right")
    with_source = any(function.source for function in functions)
    if with_source:
        table.add_column("source", overflow="fold")
    for function in functions:
        row = [str(number) for number in (function.nodes, function.call_sites, function.calls)]
        table.add_row(escape(function.name), *row, *([escape(function.source or "")] if with_source else ()))
    return table


# --- differences -----------------------------------------------------------------------------------------------------

_ROWS: list[tuple[str, Callable[[ModelFacts], str]]] = [
    ("nodes in the main graph", lambda facts: str(facts.main_nodes)),
    ("nodes stored", lambda facts: str(facts.stored_nodes)),
    ("nodes, functions expanded", lambda facts: str(facts.expanded_nodes)),
    ("local functions", lambda facts: str(facts.functions)),
    ("call sites", lambda facts: str(facts.call_sites)),
    ("initializers", lambda facts: str(facts.initializers)),
    ("parameters", lambda facts: f"{facts.parameters:,}"),
    ("weight bytes", lambda facts: bytes_text(facts.parameter_bytes)),
    ("operation types", lambda facts: str(len(facts.op_types))),
    ("operations with a scope", lambda facts: str(facts.scoped)),
    ("nodes with tags", lambda facts: str(facts.tagged)),
]


def diff_table(diff: ModelDiff) -> Table:
    """Models side by side, and the op types in which they differ."""
    table = Table("", title_justify="left")
    for facts in diff.models:
        table.add_column(escape(facts.name), justify="right", overflow="fold")
    for heading, cell in _ROWS:
        table.add_row(heading, *(cell(facts) for facts in diff.models))
    table.add_row("main graph smaller by", *(f"{reduction:.1f} %" for reduction in diff.reductions))
    table.add_row("inputs and outputs", *("same" if same else "other" for same in diff.same_interface))
    if diff.op_types:
        table.add_section()
        for name, row in diff.op_types.items():
            table.add_row(escape(name), *map(str, row))
    return table


def bytes_text(count: int) -> str:
    """A number of bytes for people: 1.5 MB."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{int(size)} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
