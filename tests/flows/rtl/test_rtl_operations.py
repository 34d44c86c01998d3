"""Every operation of the exact graph is written of the circuits that docs/rtl.md says, or refused by name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import op_zoo
import pytest
from rtl_designs import chain, coded, design_of, products, residual, without
from test_rtl_projects import requants

from qhw.errors import UnsupportedError
from qhw.flows.rtl.emission import WRITERS, emit
from qhw.flows.rtl.inventory import parts_of
from qhw.graph.ir import ExactGraph
from qhw.graph.ops.base import OPERATIONS
from qhw.rtl import UNITS
from qhw.rtl.components import COMPONENTS

PAGE = Path(__file__).parents[3] / "docs" / "rtl.md"
PRODUCTS = {"integer_dot", "minifloat_dot", "mixed_mac", "khot_mac", "khot_minifloat_mac"}
BETWEEN = "between modules"


def reach() -> ExactGraph:
    """What is written of it."""
    return without(op_zoo.reach(), set(REFUSED))


REFUSED = {"scores": "MatMul", "stacked": "MatMul", "mixer": "MatMul", "by_row": "MatMul", "framed": "Concat"}
"""Nodes of the zoo that are not written: products of computed matrices or stacked ones, a constant joined."""

DESIGNS: Mapping[str, Callable[[], ExactGraph]] = {
    "chain": chain,
    "coded": coded,
    "convolutions": op_zoo.convolutions,
    "elementwise": op_zoo.elementwise,
    "moves": op_zoo.moves,
    "products": products,
    "reach": reach,
    "requants": requants,
    "residual": residual,
}


@cache
def rows() -> dict[str, tuple[set[str], list[str]]]:
    """The circuits and the designs of each operation, by the page."""
    found = {}
    for line in PAGE.read_text().split("## What each operation is made of")[1].split("\n## ")[0].splitlines():
        cells = line.strip("| ").split(" | ")
        if len(cells) == 3 and cells[0] not in ("operation", "---|---|---"):
            made = set(re.findall(r"`(\w+)`", cells[1])) | (PRODUCTS if "products" in cells[1] else set())
            found[cells[0]] = made, re.findall(r"`(\w+)`", cells[2])
    return found


@cache
def used() -> dict[str, set[str]]:
    """The circuits of each operation in the designs, at two foldings of each."""
    found: dict[str, set[str]] = defaultdict(set)
    for make in DESIGNS.values():
        for seed in (1, 2):
            design = design_of(make(), seed)
            ops = {node.name: node.op for node in design.graph.nodes}
            for part in parts_of(emit(design)):
                found[ops.get(part.node, BETWEEN)].add(part.module)
    return dict(found)


def test_every_operation_is_written_and_stands_in_the_page() -> None:
    operations = {name for name, kind in OPERATIONS.items() if kind.__module__.startswith("qhw.")}
    assert set(WRITERS) == operations
    assert set(rows()) == {*operations, BETWEEN}


@pytest.mark.parametrize("op", [*sorted(WRITERS), BETWEEN])
def test_an_operation_is_made_of_what_the_page_says(op: str) -> None:
    made, designs = rows()[op]
    assert made <= {*UNITS, *COMPONENTS}
    # Copies of an upsample come from a component between modules.
    of_streams = {"gather_stream"} if op == "Upsample" else set()
    assert used().get(op, set()) | of_streams | (made & PRODUCTS) == made
    for name in designs:
        assert op in {node.op for node in DESIGNS[name]().nodes}


def refusals(graph: ExactGraph) -> Iterator[tuple[str, str]]:
    """What is refused of a graph: the node and its operation, by the message."""
    while True:
        try:
            emit(design_of(graph))
        except UnsupportedError as error:
            told = re.match(r"(\w+) '([^']+)'.* cannot be written in Verilog yet: .", error.message)
            assert told is not None
            yield told[2], told[1]
            graph = without(graph, {told[2]})
        else:
            return


def test_what_is_not_written_is_refused_by_name() -> None:
    assert dict(refusals(op_zoo.reach())) == REFUSED


@pytest.mark.parametrize("op", sorted(WRITERS))
def test_an_operation_without_a_writer_is_refused_by_name(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(WRITERS, op)
    graph = DESIGNS[rows()[op][1][0]]()
    node = next(node for node in graph.nodes if node.op == op)
    said = rf"{op} '{re.escape(node.name)}'.* cannot be written in Verilog yet: the operation is not carried"
    with pytest.raises(UnsupportedError, match=said):
        emit(design_of(graph))
