"""What a circuit takes, counted from what was emitted: each instance by the closed forms of its unit.

Measured units have their calibrated forms (``cost_models``), components their counts (``rtl/components/``).
What a flat synthesis makes of the whole is taken into account where it is known: operands and delays that
dot products share, constant and equal bits of memories, constant thresholds, shift registers of three edges
or more (Xilinx), flags that nothing reads.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

from qhw.cost.pricing.calibrated import CostModel, cost_model
from qhw.cost.pricing.usage import Usage
from qhw.flows.rtl.circuit import Circuit, Component, Loaded, Wire, loaded_widths, numbers_of
from qhw.flows.rtl.inventory import Part, columns_of, parts_of
from qhw.flows.rtl.nets import Bit, Module, varying
from qhw.flows.rtl.unrolling import usage_of
from qhw.rtl import UNITS
from qhw.rtl.components import COMPONENTS
from qhw.rtl.shared import lut4
from qhw.rtl.shared.counting import Columns, Counting, Taken
from qhw.rtl.shared.memories import BLOCK_RAM, multiplexer
from qhw.rtl.shared.structure import comparison

DOTS = ("integer_dot", "minifloat_dot", "mixed_mac", "khot_mac", "khot_minifloat_mac")
"""Units that accumulate products."""

_SMALLEST_WITHOUT_RESET = 8
"""Words of a memory of constants from which on the registers of its bits have no reset (seen)."""

_CHAIN = 3
"""Edges from which on a delay is a shift register of LUTs (``xilinx_srl -minlen``)."""


def taken(circuit: Circuit, family: str) -> dict[str, Usage]:
    """What each component of a circuit takes on a family of devices, by its name; ``""`` is the top itself.

    Raises InputError for a family without a cost model.
    """
    by_component: dict[str, list[Part]] = {"": []}
    for part in parts_of(circuit):
        by_component.setdefault(part.component, []).append(part)
    prices = _Prices(circuit, cost_model(family))
    found = {name: prices.of(name, parts) for name, parts in by_component.items()}
    found[""] += _ends(prices, circuit)
    for component in circuit.components:
        found[component.name] += prices.unread(component)
        if component.module in circuit.sums:
            found[component.name] += usage_of(circuit.sums[component.module], prices.is_xilinx)
    return found


def by_node(circuit: Circuit, family: str, last: str) -> dict[str, Usage]:
    """What each node takes: a stream belongs to the node that reads it, or to the ``last`` one.

    Raises InputError for a family without a cost model.
    """
    reads = {wire.name: component for component in circuit.components for wire in component.inputs}
    found: dict[str, Usage] = {}
    for name, usage in taken(circuit, family).items():
        component = next((c for c in circuit.components if c.name == name), None)
        while component is not None and not component.node:
            component = reads.get(component.outputs[0].name)
        node = component.node if component is not None else last
        found[node] = found.get(node, Usage()) + usage
    return found


def _ends(prices: _Prices, circuit: Circuit) -> Usage:
    """The register of the reset, the gates of both ends, and the counters of the last words."""
    total = Usage(ff=1.0, lut=float(2 * len(circuit.inputs) + 2 * len(circuit.outputs)))
    for wire in circuit.outputs:
        total += _usage(prices.counting.counter(wire.words))
    return total + (_loader(prices, circuit) if circuit.loaded else Usage())


def _loader(prices: _Prices, circuit: Circuit) -> Usage:
    """``weights_loader``: a word and its address, its counters, and one of images for each output."""
    memories, (most, address) = list(circuit.weights.values()), loaded_widths(circuit)
    flags, images = 3.0, 16.0 * len(circuit.outputs)
    counters = Usage()
    for count in (len(memories), most, max(each.words for each in memories), circuit.inputs[0].words):
        counters += _usage(prices.counting.counter(count)) if count > 1 else Usage()
    held = 8.0 * most + address + len(memories) + images + flags
    # Of each memory the size and the words are compared with, by its place.
    chosen = sum(len({bit(each) for each in memories}) > 1 for bit in _sizes(most, address))
    lut = 2 * images + len(memories) + chosen * multiplexer(len(memories), prices.model.family)
    return counters + Usage(lut=lut + 2.0 * address, ff=held)


def _sizes(most: int, address: int) -> list[Callable[[Loaded], int]]:
    """The bits of a memory's size and of its words."""
    return [
        *(lambda each, i=i: each.word_bytes >> i & 1 for i in range(most.bit_length())),
        *(lambda each, i=i: each.words >> i & 1 for i in range(address + 1)),
    ]


@dataclass(frozen=True)
class _Emitted:
    """An emitted module with its instances; ``zeros`` are the bits of its input ports that are always 0."""

    circuit: Circuit
    text: str
    parts: list[Part]
    zeros: Mapping[str, frozenset[int]]

    @cached_property
    def nets(self) -> Module:
        words: dict[str, Columns] = {}
        for part in self.parts:
            if part.module in ("constants", "lookup"):
                words[part.pins["y"]] = columns_of(self.circuit, part)

        def known(name: str, place: int) -> Bit:
            if name not in words:
                return False if place in self.zeros.get(name, ()) else (name, place)
            column = words[name].bits[place]
            if column in (0, (1 << words[name].words) - 1):
                return column != 0
            return f"{name} {column}", 0

        return Module(self.text, known)

    def is_made(self, source: str) -> int:
        """Registers in a row in the unit of the module that a bit comes from; 0 where it comes from none.

        A product in LUTs that nothing is added to has two. Registers of very small memories have resets,
        which shift registers have not.
        """
        name = source.split(" ")[0]
        for part in self.parts:
            if part.pins.get("sum") == name:
                alone = part.pins["first"] == "1'b1" and part.module == "integer_dot"
                return 2 if alone and part["L"] == 1 and not part["MULTIPLIER"] else 1
            if part.pins.get("y") == name:
                return int(part.module != "constants" or part["D"] >= _SMALLEST_WITHOUT_RESET)
        return 0

    def edges(self, delay: Part, source: str) -> int:
        """Registers in a row: those of a delay, of the unit in front of it, and of a sum behind it."""
        made = self.is_made(source)
        behind = any(
            part.module == "adder_tree" and (delay.pins["y"], 0) in varying(self.nets.bits(part.pins["x"]))
            for part in self.parts
        )
        return delay["D"] + made + behind

    def through(self, bit: Bit) -> Bit:
        """What a bit is, where a delay gives a constant, or the same bit twice."""
        if isinstance(bit, bool):
            return bit
        delay = next((p for p in self.parts if p.module == "delay" and p.pins["y"] == bit[0]), None)
        if delay is None:
            return bit
        given = self.nets.bits(delay.pins["x"])
        source = given[bit[1]]
        return source if isinstance(source, bool) else (bit[0], given.index(source))

    def chain(self, bit: tuple[str, int]) -> int:
        """Registers in a row of a bit that a sum takes, its own among them."""
        delay = next((p for p in self.parts if p.module == "delay" and p.pins["y"] == bit[0]), None)
        if delay is None:
            return 1 + self.is_made(bit[0])
        source = self.nets.bits(delay.pins["x"])[bit[1]]
        return 0 if isinstance(source, bool) else self.edges(delay, source[0])

    @cached_property
    def used(self) -> set[tuple[str, int]]:
        """Every bit that an instance or the result reads."""
        read: set[tuple[str, int]] = set(varying(self.nets.bits("y")))
        for part in self.parts:
            for pin, text in part.pins.items():
                if pin not in _OUTPUTS and text:
                    read.update(varying(self.nets.bits(_EXPRESSION.sub("", text))))
        return read


_PASSING = ("fifo", "gearbox", "fork_stream", "pad_stream", "crop_stream")
"""Components whose elements are those that they are given, or 0."""

_WIDTH_OF = {"fifo": True, "gearbox": False, "pad_stream": True, "sliding_window": True}
"""Components whose width is that of a word (else of an element)."""

_ULTRA_RAM = 3


def _zeros_of(emitted: _Emitted, wire: Wire) -> frozenset[int]:
    bits, width = emitted.nets.bits("y"), wire.element.width
    return frozenset(
        place
        for place in range(width)
        if all(bits[lane * width + place] is False for lane in range(wire.lanes))
    )


_OUTPUTS = ("y", "sum", "enable", "y_valid", "x_ready", "first", "address", "y_last", "clk", "reset", "step")
_EXPRESSION = re.compile(r"^.*&.*$")


@dataclass(frozen=True)
class _Prices:
    """The forms of a family."""

    circuit: Circuit
    model: CostModel

    @cached_property
    def counting(self) -> Counting:
        return Counting(self.model.family)

    @property
    def is_xilinx(self) -> bool:
        return self.counting.is_xilinx

    def of(self, name: str, parts: Iterable[Part]) -> Usage:
        """One component, whose instances lie side by side."""
        own = list(parts)
        total = Usage() if not self._modules else self._unsigned(name, [p for p in own if p.module in DOTS])
        for part in own:
            total += self._one(self._narrower(name, part))
            if part.module in _BITWISE and name in self._modules:
                total += _BITWISE[part.module](self, part, self._modules[name])
        pairs = [part for part in own if part.module == "adder_tree" and part["N"] == 2]
        if pairs and name in self._modules and not any(part.module in DOTS[2:] for part in own):
            total += _adders(self, pairs, self._modules[name])
        return total + self._shared([part for part in own if part.module in DOTS], own)

    @cached_property
    def _modules(self) -> dict[str, _Emitted]:
        """What was emitted for each component that is no circuit of the library."""
        found = {}
        by_component: dict[str, list[Part]] = {}
        for part in parts_of(self.circuit):
            by_component.setdefault(part.component, []).append(part)
        for component in self.circuit.components:
            if component.module in self.circuit.modules:
                parts = by_component.get(component.name, [])
                text = self.circuit.modules[component.module]
                ports = ("x",) if len(component.inputs) == 1 else ("a", "b")
                zeros = {
                    port: frozenset(
                        lane * wire.element.width + place
                        for lane in range(wire.lanes)
                        for place in self._zeros.get(wire.name, ())
                    )
                    for port, wire in zip(ports, component.inputs, strict=False)
                }
                emitted = found[component.name] = _Emitted(self.circuit, text, parts, zeros)
                for wire in component.outputs:
                    self._zeros[wire.name] = _zeros_of(emitted, wire)
            elif component.module in _PASSING:
                for wire in component.outputs:
                    self._zeros[wire.name] = self._zeros.get(component.inputs[0].name, frozenset())
        return found

    @cached_property
    def _zeros(self) -> dict[str, frozenset[int]]:
        """The bits that are 0 in all elements of a stream, as a sign behind a ReLU is; by its name."""
        return {}

    def _narrower(self, name: str, part: Part) -> Part:
        """A component without the registers of bits that are always 0; a block RAM is as wide as before."""
        component = self._components.get(name)
        if component is None or len(component.inputs) != 1 or part.module not in _WIDTH_OF:
            return part
        wire = component.inputs[0]
        zeros = len(self._zeros.get(wire.name, ()))
        if not zeros or part.settings.get("STYLE") in (BLOCK_RAM, _ULTRA_RAM):
            return part
        lanes = wire.lanes if _WIDTH_OF[part.module] else 1
        return replace(part, settings={**part.settings, "W": max(part["W"] - zeros * lanes, 1)})

    @cached_property
    def _components(self) -> dict[str, Component]:
        return {component.name: component for component in self.circuit.components}

    def _unsigned(self, name: str, dots: Sequence[Part]) -> Usage:
        """Registers of operands a that are always 0, each once."""
        if name not in self._modules or not dots or dots[0].module != "minifloat_dot":
            return Usage()
        wire = self._components[name].inputs[0]
        operands = {part.pins["a"]: part["L"] for part in dots}
        return Usage(ff=-float(sum(operands.values()) * len(self._zeros.get(wire.name, ()))))

    def unread(self, component: Component) -> Usage:
        """The highest bits of sums that nothing reads, where a module of its own follows at once."""
        if component.name not in self._modules or len(component.outputs) != 1:
            return Usage()
        wire = component.outputs[0]
        readers = [c for c in self.circuit.components if wire in c.inputs]
        if len(readers) != 1 or readers[0].name not in self._modules or wire in self.circuit.outputs:
            return Usage()
        if readers[0].module in self.circuit.sums:  # what these read is no instance's
            return Usage()
        port = "x" if len(readers[0].inputs) == 1 else "ab"[readers[0].inputs.index(wire)]
        read = {place for name, place in self._modules[readers[0].name].used if name == port}
        width = wire.element.width
        above = sum(
            width - 1 - max((p % width for p in read if p // width == lane), default=-1)
            for lane in range(wire.lanes)
        )
        return Usage(lut=-float(above), ff=-float(above))

    def _one(self, part: Part) -> Usage:
        rule = _RULES.get(part.module)
        if rule is not None:
            return rule(self, part)
        if part.module in COMPONENTS:
            columns = columns_of(self.circuit, part) if "FILE" in part.settings else None
            counting = replace(self.counting, columns=columns)
            return _usage(COMPONENTS[part.module].counted(numbers_of(part.settings), counting))
        return self.model.usage(part.module, **_values(part))

    # --- what dot products have in common ------------------------------------------------------------

    def _shared(self, dots: list[Part], own: list[Part]) -> Usage:
        """What is there less often than added up: equal operands, the delays of what starts a sum."""
        total = self._starts(dots, own)
        same = Counter((part.module, part.pins["a"]) for part in dots)
        for part in dots:
            often = same[part.module, part.pins["a"]]
            if often > 1:
                total += self._operand(part).times(-(often - 1) / often)
        return total + self._weights(dots, own)

    def _starts(self, dots: list[Part], own: list[Part]) -> Usage:
        """One register and one delay for all sums, a shift register of LUTs on Xilinx devices.

        A product alone starts a sum with every word: nothing is delayed, and nothing added up.
        """
        running = [part for part in own if part.module in ("running_sum", "running_max")]
        if running:
            return Usage(ff=float(2 - len(running)))
        edges = [UNITS[part.module].latency(_values(part)) - 1 for part in dots]
        total = Usage(ff=-float(sum(edges)))
        for part in dots:
            if part.pins["first"] != "first_1":
                bits = part["A"]
                total += Usage(lut=-float(bits if self.is_xilinx else lut4.accumulator(bits)))
        sums = [count for count, part in zip(edges, dots, strict=True) if part.pins["first"] == "first_1"]
        if not sums:
            return total
        kept = max(sums) + 1
        return total + (Usage(lut=1.0) if self.is_xilinx and kept >= _CHAIN else Usage(ff=float(kept)))

    def _operand(self, part: Part) -> Usage:
        """The registers of operand a, and what takes an exponent apart."""
        values = _values(part)
        lanes = values.get("L", 1)
        if part.module == "integer_dot":
            return Usage(ff=float(lanes * values["WA"])) if not values["MULTIPLIER"] else Usage()
        if "EA" in values:
            exponent = values["EA"] + 1 if values["EA"] > 2 else 0
            bits = 1 + values["EA"] + values["MA"]
            return Usage(lut=float(lanes * exponent), ff=float(lanes * bits))
        return Usage(ff=float(values["WA"]))

    def _weights(self, dots: list[Part], own: list[Part]) -> Usage:
        """Registers behind bits of the weights' memory that are constant, or equal to others."""
        memory = next((part for part in own if part.module == "rom"), None)
        if memory is None or not dots or memory["D"] < 2:
            return Usage()
        columns = columns_of(self.circuit, memory)
        held = [p for p in dots if p.module != "integer_dot" or not p["MULTIPLIER"]]
        if not held:
            return Usage()
        block = memory["STYLE"] == BLOCK_RAM
        kept = sum(bit not in (0, (1 << columns.words) - 1) for bit in columns.bits)
        kept = kept if block else len(columns.varying)
        return Usage(ff=float(kept - len(columns.bits)))


def _usage(taken: Taken) -> Usage:
    return Usage(lut=taken.lut, ff=taken.ff, bram18=taken.bram18)


def _values(part: Part) -> dict[str, int]:
    names = {parameter.name for parameter in UNITS[part.module].ranges}
    return {name: int(value) for name, value in part.settings.items() if name in names}


def _loaded_memory(prices: _Prices, part: Part) -> Usage:
    if part["D"] == 1:
        return Usage(ff=float(part["W"]))
    return prices.model.usage("weight_memory", D=part["D"], W=part["W"], STYLE=part["STYLE"])


def _loaded_constants(prices: _Prices, part: Part) -> Usage:
    return _loaded_memory(prices, part) + (
        _usage(prices.counting.counter(part["D"])) if part["D"] > 1 else Usage()
    )


def _layer_control(prices: _Prices, part: Part) -> Usage:
    """Without the flag of an image's last word, which nothing reads, and its counter."""
    words = part["F"] * part["I"]
    counters = [words, part["I"] if part["F"] > 1 else 1]
    total = Usage(lut=3.0, ff=float(part["D"] + (part["I"] > 1)))
    for count in counters:
        total += _usage(prices.counting.counter(count))
    return total


def _threshold(prices: _Prices, part: Part) -> Usage:
    """Constant thresholds: equal comparisons of two bits are there once."""
    one = prices.model.usage("threshold", **_values(part))
    text = part.pins["thresholds"]
    if "'b" not in text:
        return one
    bits, count, word = part["A"], part["T"], text.split("'b")[1]
    numbers = [int(word[i : i + bits], 2) for i in range(0, len(word), bits)]
    flip = 1 << bits - 1 if part["S"] else 0
    pairs = [{(number ^ flip) >> 2 * i & 3 for number in numbers} for i in range(ceil(bits / 2))]
    if prices.is_xilinx:
        compared = sum(len(used) - (2 in used and 3 in used) for used in pairs)
        saved = count * comparison(bits) - compared
    else:
        gates = sum(bool(used & {0, 1}) + bool(used & {2, 3}) for used in pairs)
        saved = count * 2 * ceil(bits / 2) - gates if bits > 6 else 0
    return one + Usage(lut=-float(max(saved, 0)))


def _requantize(prices: _Prices, part: Part) -> Usage:
    values = _values(part)
    one = prices.model.usage("requantize", **values)
    if not prices.is_xilinx:
        return one
    floor = 5
    kept = values["WI"] - values["S"]
    rounds = values["S"] > 0 and values["ROUNDING"] != floor
    rounded = kept + rounds
    low = min(values["WO"] - values["SO"], rounded)
    above = rounded + (not values["SI"]) - low
    fits = above <= (1 if values["SI"] and values["SO"] else 0) or rounded <= low
    # Bits that nothing is done to are shift registers, from the register behind the last operation on.
    if fits and not (values["SI"] and not values["SO"]):
        bits, edges = min(rounded, low + 1), (3 if rounds else 5)
        return one + Usage(lut=float(bits), ff=-float(edges * bits))
    if rounds:
        return one
    return one + Usage(lut=float(kept), ff=-float(4 * low + 3 * (kept - low)))


def _adders(prices: _Prices, parts: Sequence[Part], emitted: _Emitted) -> Usage:
    """Sums of two numbers side by side, bit by bit, less their forms.

    Constant and unread bits take nothing, and equal ones are there once. A bit that nothing is added to is
    copied, and on Xilinx devices a shift register with the registers in front of it.
    """
    total = Usage()
    operands = {
        part.pins["y"]: [emitted.through(bit) for bit in emitted.nets.bits(part.pins["x"])] for part in parts
    }
    uses = Counter(bit for x in operands.values() for bit in x if not isinstance(bit, bool))
    copies: set[Bit] = set()
    for part in parts:
        width, x = part["W"], operands[part.pins["y"]]
        form = prices.model.usage("adder_tree", **_values(part))
        a, b = x[:width], x[width:]
        read = [place for name, place in emitted.used if name == part.pins["y"]]
        bits = min(max(read, default=-1) + 1, width + 1)
        copied = 0
        while copied < min(bits, width) and (a[copied] is False or b[copied] is False):
            copied += 1
        registers, chained = bits - copied, 0
        for one in (a[i] if b[i] is False else b[i] for i in range(copied)):
            if isinstance(one, bool) or one in copies:
                continue
            copies.add(one)
            edges = emitted.chain(one) if prices.is_xilinx and uses[one] == 1 else 0
            if edges >= _CHAIN:
                continue
            if edges + 1 >= _CHAIN:
                chained += 1
                registers -= edges
            else:
                registers += 1
        if prices.is_xilinx:
            lut = sum(a[i] is not False and b[i] is not False for i in range(copied, min(bits, width)))
            lut += bits > width > copied
        else:
            lut = lut4.adder(bits - copied)
        total += Usage(lut=float(lut) + chained - form.lut, ff=float(registers) - form.ff)
    # A product in LUTs, its sum and the operand of this one are a shift register, too.
    moved = sum(
        prices.is_xilinx and not isinstance(bit, bool) and uses[bit] == 1 and emitted.is_made(bit[0]) == 2
        for bit in uses
    )
    return total + Usage(lut=float(moved), ff=float(len(uses) - 3 * moved))


def _delayed(prices: _Prices, part: Part, emitted: _Emitted) -> Usage:
    """Bits that are there once; on Xilinx devices, shift registers with the registers around them."""
    bits = list(varying(emitted.nets.bits(part.pins["x"])))
    unused = part["W"] - len(bits)
    found = Usage(ff=-float(unused * part["D"]))
    if not prices.is_xilinx:
        return found
    edges = emitted.edges(part, bits[0][0]) if bits else 0
    if edges < _CHAIN:
        return found
    return found + Usage(lut=float(len(bits)), ff=-float(edges * len(bits)))


def _rounded(prices: _Prices, part: Part, emitted: _Emitted) -> Usage:
    """Copies of the sign in front of a number, and zeros behind it, have no registers of their own."""
    x = emitted.nets.bits(part.pins["x"])
    return Usage(ff=-2.0 * (len(x) - len(list(varying(x)))))


_BITWISE: Mapping[str, Callable[[_Prices, Part, _Emitted], Usage]] = {
    "delay": _delayed,
    "requantize": _rounded,
}
"""What is known of instances by their bits, to be added to their forms."""

_Rule = Callable[[_Prices, Part], Usage]

_RULES: Mapping[str, _Rule] = {
    "layer_control": _layer_control,
    "loaded_constants": _loaded_constants,
    "loaded_memory": _loaded_memory,
    "requantize": _requantize,
    "threshold": _threshold,
}
"""What is known of measured units in a design, in place of their forms alone."""
