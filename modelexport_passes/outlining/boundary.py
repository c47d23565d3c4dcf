"""Boundaries: what leaves each region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelexport_passes.outlining.flow import Op, Wire
from modelexport_passes.outlining.layout import Item
from modelexport_passes.outlining.regions import Region, lowest_common


def find_results(layout: Mapping[Region, Sequence[Item]], root: Region) -> dict[Region, list[Wire]]:
    """For each region but the root: wires made inside that are read outside or leave the graph, in order of making."""
    results: dict[Region, list[Wire]] = {region: [] for region in layout if region is not root}
    for op in _in_order(layout, root):
        for wire in op.outs:
            top = root if wire.is_output else op.region
            for reader in wire.readers:
                if top is root:
                    break
                if reader.region is not top:
                    top = lowest_common(top, reader.region)
            region = op.region
            while region is not top:
                results[region].append(wire)
                assert region.parent is not None
                region = region.parent
    return results


def _in_order(layout: Mapping[Region, Sequence[Item]], root: Region) -> list[Op]:
    """Every operation in the order in which it will run."""
    ordered: list[Op] = []
    stack: list[Item] = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, Op):
            ordered.append(item)
        else:
            stack.extend(reversed(layout[item]))
    return ordered
