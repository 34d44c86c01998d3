"""Products with a constant matrix: da4ml finds the additions and writes their Verilog; registers are ours.

da4ml (Sun et al., arXiv 2507.04535) recodes the weights in signed digits and shares what several outputs add.
Its licence is the LGPL: it is called, and its files are read from where it is installed. There is a register
behind every level of additions: what a level takes then follows from the additions alone, not from how a
tool restructures several in a row.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qhw.errors import InputError, ToolMissingError
from qhw.formats import Integer
from qhw.formats.modes import IntArray
from qhw.rtl.base import (
    Axis,
    ClosedForms,
    Features,
    MeasuredUnit,
    Parameter,
    Port,
    Ports,
    Space,
    Streams,
    Values,
)
from qhw.rtl.shared.arithmetic import mantissas
from qhw.rtl.shared.axes import FLAG
from qhw.rtl.shared.carry_chains import CarryChains, Number, distinct
from qhw.rtl.shared.cells import Cells, cells_of
from qhw.rtl.shared.structure import levels


def matrix(values: Values) -> IntArray:
    """The weights, of shape (N, M): any integers of WB bits, drawn by SEED."""
    low, high = -(1 << values["WB"] - 1), 1 << values["WB"] - 1
    return np.random.default_rng(values["SEED"]).integers(low, high, (values["N"], values["M"]))


@dataclass(frozen=True)
class AdderGraph:
    """The additions that da4ml found for a matrix, cut behind every level.

    Args:
        stages: da4ml's ``CombLogic``, in order; the fields that one puts out are what the next takes in.
        outputs: each column's field of the last stage, and the zeros that go below it.
    """

    stages: tuple[Any, ...]
    outputs: tuple[tuple[int, int], ...]


def adder_graph(values: Values) -> AdderGraph:
    """The additions of the product with these parameters; the same parameters give the same ones.

    Raises:
        ToolMissingError: da4ml is not installed.
    """
    kind = Integer(values["WA"], bool(values["SA"]))
    rows = tuple(tuple(row) for row in matrix(values).tolist())
    return _planned(rows, kind.mantissa_low, kind.mantissa_high)


@cache
def _planned(rows: tuple[tuple[int, ...], ...], low: int, high: int) -> AdderGraph:
    with _interpreted():
        try:
            from da4ml.cmvm import solve
            from da4ml.cmvm.types import QInterval
            from da4ml.trace import FixedVariable, HWConfig, comb_trace, to_pipeline
        except ImportError:
            raise ToolMissingError(
                "A constant matrix needs da4ml, which is not installed", hint="pip install 'qhw[synth]'"
            ) from None
    lane, settings = QInterval(float(low), float(high), 1.0), HWConfig(1, -1, -1)
    found = solve(np.array(rows, dtype=np.float32), qintervals=[lane] * len(rows), adder_size=1)
    # Traced: the solver leaves the shifts between its two factors out of its intervals.
    given = [FixedVariable(*lane, hwconf=settings) for _ in rows]
    traced = comb_trace(given, list(found(given)))
    *first, last = to_pipeline(traced, 1, retiming=False).solutions
    ends = list(zip(last.out_idxs, map(bool, last.out_negs), strict=True))
    fields = {end: place for place, end in enumerate(dict.fromkeys(ends))}
    zeros = (_zeros_below(interval) for interval in last.out_qint)
    outputs = tuple((fields[end], shift) for end, shift in zip(ends, zeros, strict=True))
    return AdderGraph((*first, *_signed(last, list(fields))), outputs)


def _signed(last: Any, fields: Sequence[tuple[int, bool]]) -> Iterator[Any]:
    """The last stage with these outputs; their signs, which are additions too, have a stage of their own."""
    if not any(negative for _, negative in fields):
        yield _putting_out(last, fields)
        return
    numbers = list(dict.fromkeys(number for number, _ in fields))
    yield _putting_out(last, [(number, False) for number in numbers])
    copies = [last.ops[number]._replace(id0=place, id1=-1, opcode=-1) for place, number in enumerate(numbers)]
    negated = [(numbers.index(number), negative) for number, negative in fields]
    yield _putting_out(last._replace(shape=(len(numbers), 0), ops=copies), negated)


def _putting_out(stage: Any, fields: Sequence[tuple[int, bool]]) -> Any:
    numbers, signs = map(list, zip(*fields, strict=True))
    shape, shifts = (stage.shape[0], len(fields)), [0 for _ in fields]
    return stage._replace(shape=shape, out_idxs=numbers, out_shifts=shifts, out_negs=signs)


@contextmanager
def _interpreted() -> Iterator[None]:
    """Import without compiling: compilation takes da4ml minutes, a matrix without it a second."""
    try:
        config: Any = importlib.import_module("numba").config
    except ImportError:
        yield
        return
    # Modules of da4ml that this process has imported already stay as they are for their other users.
    others = {name: module for name, module in sys.modules.items() if module and _is_python(name)}
    before, config.DISABLE_JIT = config.DISABLE_JIT, True
    for name in others:
        del sys.modules[name]
    try:
        yield
    finally:
        config.DISABLE_JIT = before
        sys.modules.update(others)


def _is_python(module: str) -> bool:
    """Whether it is one of da4ml's own that can be imported a second time."""
    return module.split(".")[0] == "da4ml" and not module.startswith("da4ml._binary")


def field_bits(interval: Any) -> int:
    """Bits of a number in da4ml's Verilog: no more than its interval and step need; 0 for a constant 0."""
    from da4ml.cmvm.types import Precision

    return sum(Precision.from_qint(interval))


def _zeros_below(interval: Any) -> int:
    """A field holds multiples of its interval's step, a power of two from 1 on."""
    return int(interval.step).bit_length() - 1 if field_bits(interval) else 0


def _module(values: Values) -> str:
    made = adder_graph(values)
    from da4ml.codegen.rtl.verilog.comb import comb_logic_gen

    name = "_".join(["constant_matrix", *(str(value) for value in values.values())])
    parts = [comb_logic_gen(stage, f"{name}_stage{i}") for i, stage in enumerate(made.stages)]
    return "\n".join([*_library(), *parts, _registered(values, name, made)])


def _library() -> Iterator[str]:
    """da4ml's own modules, as installed."""
    from da4ml.codegen.rtl import verilog

    for module in ("shift_adder", "negative"):
        yield (Path(verilog.__file__).parent / "source" / f"{module}.v").read_text()


def _registered(values: Values, name: str, made: AdderGraph) -> str:
    """The stages with a register before each of them, and one behind the last."""
    bits, used = values["WA"], [field_bits(interval) > 0 for interval in made.stages[0].inp_qint]
    inputs = [f"a[{lane * bits}+:{bits}]" for lane in reversed(range(values["N"])) if used[lane]]
    widths = [sum(map(field_bits, stage.out_qint)) for stage in made.stages]
    lines = [
        "module constant_matrix (",
        "    input clk, enable,",
        f"    input [{values['N'] * bits - 1}:0] a,",
        f"    output [{values['M'] * _lane_bits(values) - 1}:0] y",
        ");",
        *(f"    reg [{width - 1}:0] x{i};" for i, width in enumerate([bits * sum(used), *widths])),
        *(f"    wire [{width - 1}:0] y{i};" for i, width in enumerate(widths)),
        *(
            f"    {name}_stage{i} stage{i} (.model_inp(x{i}), .model_out(y{i}));"
            for i, _ in enumerate(widths)
        ),
        "    always @(posedge clk) if (enable) begin",
        f"        x0 <= {{{', '.join(inputs)}}};",
        *(f"        x{i + 1} <= y{i};" for i, _ in enumerate(widths)),
        "    end",
        *(f"    {assignment}" for assignment in _lanes(values, made)),
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def _lanes(values: Values, made: AdderGraph) -> Iterator[str]:
    """Each output: its field with the sign above and zeros below."""
    width, register, fields = _lane_bits(values), f"x{len(made.stages)}", made.stages[-1].out_qint
    first = [0, *accumulate(map(field_bits, fields))]
    for lane, (place, shift) in enumerate(made.outputs):
        bits, low = field_bits(fields[place]), first[place]
        sign = f"{register}[{low + bits - 1}]" if fields[place].min < 0 else "1'b0"
        above, below = f"{{{width - shift - bits}{{{sign}}}}}", f", {shift}'b0" if shift else ""
        number = f"{{{above}, {register}[{low}+:{bits}]{below}}}" if bits else "0"
        yield f"assign y[{lane * width}+:{width}] = {number};"


def _lane_bits(values: Values) -> int:
    """Bits of an output: any sum fits, and every field, some of which da4ml bounds more widely."""
    made = adder_graph(values)
    fields = made.stages[-1].out_qint
    needed = (shift + field_bits(fields[place]) + 1 for place, shift in made.outputs)
    return max(values["WA"] + values["WB"] + levels(values["N"]), *needed)


def _ports(values: Values) -> Ports:
    lanes = Port("a", values["WA"], values["N"])
    return Ports((lanes,), (Port("y", _lane_bits(values), values["M"], signed=True),))


def _reference(values: Values, inputs: Streams) -> Streams:
    kind = Integer(values["WA"], bool(values["SA"]))
    return {"y": mantissas(kind, inputs["a"], _lane_bits(values)) @ matrix(values)}


def _rule(values: Values) -> None:
    if not matrix(values).any():
        raise InputError(
            f"SEED of constant_matrix is {values['SEED']}: every weight that it draws is 0",
            hint="take another seed",
        )


class _Counted(NamedTuple):
    luts: int
    lut4s: int
    registers: int


def _counted(values: Values) -> _Counted:
    return _counted_once(tuple(values.items()))


@cache
def _counted_once(parameters: tuple[tuple[str, int], ...]) -> _Counted:
    stages, count, registers = adder_graph(dict(parameters)).stages, CarryChains(), 0
    held = [
        Number(tuple((-lane, bit) for bit in range(field_bits(interval))), interval.min < 0)
        for lane, interval in enumerate(stages[0].inp_qint)
    ]
    for stage in stages:
        before, count.read = distinct(held), set()
        held = _stage(stage, held, count)
        registers += len(before & count.read)
    return _Counted(count.luts, count.lut4s, registers + len(distinct(held)))


def _stage(stage: Any, held: Sequence[Number], count: CarryChains) -> list[Number]:
    """The circuit's outputs."""
    numbers: list[Number] = []
    for op in stage.ops:
        numbers.append(_operation(op, stage.ops, numbers, held, count))
    return [
        _output(numbers[place], interval, bool(negated), count)
        for place, interval, negated in zip(stage.out_idxs, stage.out_qint, stage.out_negs, strict=True)
    ]


_INPUT, _ADD, _SUBTRACT, _CONSTANT = -1, 0, 1, 5
"""da4ml's codes of the operations that a product with a matrix is made of."""


def _operation(
    op: Any, ops: Sequence[Any], numbers: Sequence[Number], held: Sequence[Number], count: CarryChains
) -> Number:
    width, signed = field_bits(op.qint), op.qint.min < 0
    if op.opcode in (_INPUT, _CONSTANT):
        return held[op.id0] if op.opcode == _INPUT else Number((), False)
    # A step is that of the lowest bit of a field.
    ratio = 2.0 ** int(op.data) * ops[op.id1].qint.step / ops[op.id0].qint.step
    left_shift, right_shift = (max(0, _log2(end)) for end in (1 / ratio, ratio))
    left = numbers[op.id0].placed(left_shift, width)
    right = numbers[op.id1].placed(right_shift, width)
    return Number(count.added(left, right, op.opcode == _SUBTRACT), signed)


def _log2(power: float) -> int:
    return int(power).bit_length() - 1 if power >= 1 else 0


def _output(number: Number, interval: Any, negated: bool, count: CarryChains) -> Number:
    width = field_bits(interval)
    if negated:
        return Number(count.added((None,) * width, number.placed(0, width), True), interval.min < 0)
    count.read |= set(number.bits)
    return number


def _features(cells: Cells, values: Values) -> Features:
    counted = _counted(values)
    return {"carry bits": counted.luts} if cells.inputs == 6 else {"adder LUTs": counted.lut4s}


def _registers(values: Values) -> int:
    return _counted(values).registers


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(_features, cells_of(family)), _registers)


UNIT = MeasuredUnit(
    name="constant_matrix",
    summary="y <= a W, integers and a constant matrix of integers",
    ranges=(
        Parameter("N", 1, 64, "inputs"),
        Parameter("M", 1, 64, "outputs"),
        Parameter("WA", 2, 16, "bits of an input"),
        Parameter("SA", 0, 1, "whether inputs are signed"),
        Parameter("WB", 2, 16, "bits of a weight"),
        Parameter("SEED", 0, 2**31 - 1, "draws the weights"),
    ),
    sources=(),
    ports=_ports,
    latency=lambda values: 1 + len(adder_graph(values).stages),
    reference=_reference,
    rule=_rule,
    emit=_module,
    space=Space(
        place=21,
        points=30,
        axes=(
            *(Axis("N", 2, 8), Axis("M", 2, 8), Axis("WA", 2, 8), Axis("SA", choices=FLAG)),
            *(Axis("WB", 2, 8), Axis("SEED", 0, 999)),
        ),
    ),
    closed_forms=_closed_forms,
)
