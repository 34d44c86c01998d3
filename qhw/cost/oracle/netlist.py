"""Counts of a mapped netlist, as Yosys writes it in JSON: LUT by three definitions, FF, DSP, memories, depth.

On Xilinx devices a LUT site (LUT6_2) holds one function of six inputs or two functions of five inputs
together, and one carry position takes both its operands from one site (UG474, UG574). ``raw`` counts
functions. ``carry``, which is what this project calls LUT, lets the two functions of one carry position
share their site where they fit. ``legal`` further pairs the other functions of up to five inputs that
share one, by greedy matching of least degree: a bound on what a vendor's packer finds.

On ECP5 a LUT4 is one function and a CCU2C two positions of a carry chain in two LUT4 sites; nothing shares a
site, and the three counts are equal. So it is on Gowin, where an ALU is a position of a chain in the site of
a LUT, and on iCE40, whose SB_CARRY lies beside a LUT.
"""

from __future__ import annotations

import graphlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qhw.errors import CheckFailedError

SHARED_INPUTS = 5
"""Inputs that two functions in one LUT6_2 have together at most (UG574)."""

_WIDELY_SHARED = 400
"""A net that feeds more functions than this (a select line, a reset) does not make them neighbours."""

_FUNCTIONS = frozenset({"LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "INV", "SB_LUT4"})

CARRY = {"CARRY4": 0, "CARRY8": 0, "CCU2C": 2, "ALU": 1, "SB_CARRY": 0}
"""Carry cells, and the LUT sites that are part of the cell itself."""

MEMORY_LUTS = {
    "SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1,
    "RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "RAM512X1S": 8,
    "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8,
    "TRELLIS_DPR16X4": 6,
    "RAM16SDP1": 1, "RAM16SDP2": 2, "RAM16SDP4": 6,
}  # fmt: skip
"""LUT sites of each memory made of LUTs (UG474, UG574); of a slice of ECP5 or Gowin, with its address."""

_SLICE_MEMORIES = {"RAM32M": "DOD", "RAM64M": "DOD", "RAM32M16": "DOH", "RAM64M8": "DOH"}
"""Slices of memory, and the output of the LUT of the write address; others count if read (UG474, UG574)."""

_GOWIN_FF = frozenset({f"DFF{kind}" for kind in ("", "E", "S", "SE", "R", "RE", "P", "PE", "C", "CE")})
_ICE40_FF = frozenset({f"SB_DFF{e}{kind}" for e in ("", "E") for kind in ("", "SR", "R", "SS", "S")})
_FLIP_FLOPS = frozenset({"FDRE", "FDSE", "FDCE", "FDPE", "TRELLIS_FF"}) | _GOWIN_FF | _ICE40_FF
_DSP = dict.fromkeys(("DSP48E1", "DSP48E2", "MULT18X18D", "MULT18X18", "SB_MAC16"), 1)
_HALF_DSP = "MULT9X9"
_BRAM18 = {
    "RAMB18E1": 1, "RAMB18E2": 1, "RAMB36E1": 2, "RAMB36E2": 2, "DP16KD": 1,
    "SDPB": 1, "SDPX9B": 1, "SP": 1, "SPX9": 1, "pROM": 1, "pROMX9": 1, "DPB": 1, "DPX9B": 1,
    "SB_RAM40_4K": 1,
}  # fmt: skip
_URAM = frozenset({"URAM288"})
_GOWIN_MULTIPLEXERS = frozenset(f"MUX2_LUT{inputs}" for inputs in (5, 6, 7, 8))
_MULTIPLEXERS = frozenset({"MUXF7", "MUXF8", "PFUMX", "L6MUX21"}) | _GOWIN_MULTIPLEXERS
_FREE = frozenset({"$scopeinfo", "VCC", "GND", "IBUF", "OBUF"})
_OUTPUTS = frozenset({"O", "Z", "CO", "COUT", "S0", "S1", "F", "SUM"})
_UNSHARED = frozenset({"TRELLIS_FF", "CCU2C", "ALU", "SB_LUT4"}) | _GOWIN_FF | _ICE40_FF
"""Cells of families whose LUT sites hold one function each."""

_GROUPS = (
    _FUNCTIONS,
    CARRY,
    MEMORY_LUTS,
    _SLICE_MEMORIES,
    _FLIP_FLOPS,
    _DSP,
    {_HALF_DSP},
    _BRAM18,
    _URAM,
    _MULTIPLEXERS,
    _FREE,
)

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Counts:
    """Cells that a netlist uses.

    ``lut`` is the ``carry`` count; ``lutram`` are those of its LUTs that are memory or shift registers;
    ``depth`` is the largest number of LUTs and whole carry chains between two registers or ports.
    """

    lut: int
    lut_raw: int
    lut_legal: int
    lutram: int
    ff: int
    dsp: int
    bram18: int
    uram: int
    depth: int


def count(netlist: Mapping[str, Any], statistics: Mapping[str, Any]) -> Counts:
    """Count the top module of a flat netlist.

    Args:
        netlist: the output of ``write_json``.
        statistics: the output of ``stat -json`` for the same design; both must agree on every cell.

    Raises:
        CheckFailedError: there is no top module or no statistics block, they disagree, or a cell is unknown.
    """
    cells: list[Cell] = list(_top(netlist)["cells"].values())
    types = Counter(str(cell["type"]) for cell in cells)
    _check(types, statistics)
    functions = {_outputs(cell)[0]: frozenset(_inputs(cell)) for cell in cells if cell["type"] in _FUNCTIONS}
    chains = [cell["connections"] for cell in cells if "S" in cell["connections"] and cell["type"] in CARRY]
    shared = _sharing_carry_positions(chains, functions)
    memory = _total(types, MEMORY_LUTS) + _slice_memory_luts(netlist, cells)
    raw = len(functions) + memory + _total(types, CARRY)
    lut = raw - len(shared) // 2
    # A position of a carry chain keeps its own site: two positions cannot be in one.
    placed = shared | {net for pins in chains for net in pins["S"]}
    movable = {net: ins for net, ins in functions.items() if net not in placed and len(ins) <= SHARED_INPUTS}
    return Counts(
        lut=lut,
        lut_raw=raw,
        lut_legal=lut if types.keys() & _UNSHARED else lut - _matching(movable),
        lutram=memory,
        ff=sum(types[kind] for kind in _FLIP_FLOPS),
        dsp=_total(types, _DSP) + -(-types[_HALF_DSP] // 2),
        bram18=_total(types, _BRAM18),
        uram=sum(types[kind] for kind in _URAM),
        depth=_depth(cells),
    )


def _top(netlist: Mapping[str, Any]) -> Mapping[str, Any]:
    modules = netlist.get("modules", {}).values()
    tops = [module for module in modules if int(module.get("attributes", {}).get("top", "0"), 2)]
    if len(tops) != 1:
        raise CheckFailedError(f"a netlist has {len(tops)} top modules", allowed="exactly 1")
    return dict(tops[0])


def _check(types: Mapping[str, int], statistics: Mapping[str, Any]) -> None:
    stated = statistics.get("design", {}).get("num_cells_by_type")
    if stated is None:
        raise CheckFailedError(
            "the synthesis wrote no statistics block", hint="see its log: it did not finish"
        )
    if dict(types) != stated:
        raise CheckFailedError(f"the netlist has {dict(types)}, but its statistics say {stated}")
    unknown = sorted(kind for kind in types if not any(kind in group for group in _GROUPS))
    if unknown:
        raise CheckFailedError(
            f"cells that have no cost are left after mapping: {', '.join(unknown)}",
            hint="a latch, an operation that was not mapped, or a cell to add to qhw/cost/oracle/netlist.py",
        )


def _total(types: Mapping[str, int], sizes: Mapping[str, int]) -> int:
    return sum(size * types.get(kind, 0) for kind, size in sizes.items())


def _slice_memory_luts(netlist: Mapping[str, Any], cells: Sequence[Cell]) -> int:
    slices = [cell for cell in cells if cell["type"] in _SLICE_MEMORIES]
    if not slices:
        return 0
    pins = [bits for cell in cells for bits in cell["connections"].values()]
    ports = [port["bits"] for port in _top(netlist).get("ports", {}).values()]
    uses = Counter(net for bits in (*pins, *ports) for net in bits)
    return sum(len({_SLICE_MEMORIES[cell["type"]], *_read_outputs(cell, uses)}) for cell in slices)


def _read_outputs(cell: Cell, uses: Mapping[int, int]) -> list[str]:
    outputs = [(pin, bits) for pin, bits in cell["connections"].items() if pin.startswith("DO")]
    return [pin for pin, bits in outputs if any(uses[net] > 1 for net in bits)]


def _nets(cell: Cell, of_outputs: bool) -> list[int]:
    """Net numbers at a cell's pins; constants are texts, and left out."""
    return [
        net
        for pin, bits in cell["connections"].items()
        if (pin in _OUTPUTS) == of_outputs
        for net in bits
        if isinstance(net, int)
    ]


def _inputs(cell: Cell) -> list[int]:
    return _nets(cell, of_outputs=False)


def _outputs(cell: Cell) -> list[int]:
    return _nets(cell, of_outputs=True)


def _sharing_carry_positions(
    chains: Sequence[Mapping[str, Sequence[Any]]], functions: Mapping[int, frozenset[int]]
) -> set[int]:
    """The functions behind S and DI of one carry position that fit one site, by their output nets."""
    shared: set[int] = set()
    for pins in chains:
        for s, di in zip(pins["S"], pins["DI"], strict=True):
            both = {s, di} & functions.keys()
            if len(both) == 2 and not both & shared and len(functions[s] | functions[di]) <= SHARED_INPUTS:
                shared |= both
    return shared


def _matching(functions: Mapping[int, frozenset[int]]) -> int:
    """Pairs of functions that share an input and fit one site: greedy, fewest possible partners first."""
    partners = _partners(functions)
    queue = [(len(others), net) for net, others in partners.items() if others]
    heapq.heapify(queue)
    done: set[int] = set()
    pairs = 0
    while queue:
        degree, net = heapq.heappop(queue)
        if net in done:
            continue
        left = partners[net] - done
        if left and len(left) < degree:
            heapq.heappush(queue, (len(left), net))
        elif left:
            partner = min(left, key=lambda other: (len(partners[other] - done), other))
            done |= {net, partner}
            pairs += 1
    return pairs


def _partners(functions: Mapping[int, frozenset[int]]) -> dict[int, set[int]]:
    readers: dict[int, list[int]] = defaultdict(list)
    for function, inputs in functions.items():
        for net in inputs:
            readers[net].append(function)

    def fitting(function: int) -> Iterator[int]:
        inputs = functions[function]
        for net in inputs:
            if len(readers[net]) < _WIDELY_SHARED:
                yield from (
                    o for o in readers[net] if o != function and len(inputs | functions[o]) <= SHARED_INPUTS
                )

    return {function: set(fitting(function)) for function in functions}


def _depth(cells: Sequence[Cell]) -> int:
    """The longest path in LUTs and carry chains; a chain counts once however long it is."""
    inside = [cell for cell in cells if cell["type"] in _FUNCTIONS or cell["type"] in CARRY]
    driver = {net: index for index, cell in enumerate(inside) for net in _outputs(cell)}
    carry_out = {
        net: index
        for index, cell in enumerate(inside)
        for pin in ("CO", "COUT")
        for net in cell["connections"].get(pin, ())
    }
    graph = {
        index: {driver[net] for net in _inputs(cell) if net in driver} for index, cell in enumerate(inside)
    }
    level: dict[int, int] = {}
    for index in graphlib.TopologicalSorter(graph).static_order():
        pins = inside[index]["connections"]
        chained = {carry_out.get(net) for pin in ("CI", "CIN") for net in pins.get(pin, ())} - {None}
        level[index] = max((level[d] + (d not in chained) for d in graph[index]), default=1)
    return max(level.values(), default=0)
