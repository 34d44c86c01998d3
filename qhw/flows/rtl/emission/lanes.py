"""Pipelines of measured units, as many lanes side by side as a word has elements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from qhw.flows.rtl.circuit import Element, Setting, Wire, instance, numbers_of
from qhw.flows.rtl.emission.draft import Draft, memory_style
from qhw.formats.modes import IntArray
from qhw.rtl import UNITS
from qhw.rtl.components import LANE_COMPONENTS
from qhw.rtl.components.pipeline_control import Pipeline


@dataclass(frozen=True)
class Net:
    """A number in every lane: ``name`` and the lane; and the clock edges behind the word that it is of."""

    name: str
    element: Element
    edges: int = 0

    def bits(self, lane: int, width: int) -> str:
        """The number in more bits, or its lowest ones."""
        name, own = f"{self.name}{lane}", self.element.width
        if width <= own:
            return f"{name}[{width - 1}:0]" if width < own else name
        sign = f"{name}[{own - 1}]" if self.element.signed else "1'b0"
        return f"{{{{{width - own}{{{sign}}}}}, {name}}}"


@dataclass(frozen=True, eq=False)
class Loads:
    """How constants of a tensor are loaded.

    Args:
        element: what holds any of them.
        sources: whose constant each element has, flat and row-major.
    """

    element: Element
    sources: IntArray


def holding(low: int, high: int) -> Element:
    """The fewest bits that hold a range of integers."""
    signed = low < 0
    return Element(
        max(int(high).bit_length(), (-int(low) - 1).bit_length() if signed else 1) + signed, signed
    )


def of_integers(numbers: IntArray) -> Element:
    """The fewest bits that hold some integers."""
    return holding(int(numbers.min()), int(numbers.max()))


def round_of(rows: IntArray) -> IntArray:
    """The first rows, of which all rows are repetitions."""
    count = len(rows)
    for length in range(1, count + 1):
        if count % length == 0 and np.array_equal(np.tile(rows[:length], (count // length, 1)), rows):
            return rows[:length]
    return rows


@dataclass
class Lanes:
    """A module that is being written: a pipeline for every lane, all of one length.

    Args:
        name: the module's.
        inputs: the streams that it takes a word of at a time.
        order: the place in the tensor of every element of an image, as they pass.
    """

    draft: Draft
    name: str
    inputs: tuple[Wire, ...]
    order: IntArray
    lines: list[str] = field(default_factory=list)
    made: int = 0

    @property
    def lanes(self) -> int:
        """Elements of a word."""
        return self.inputs[0].lanes

    def given(self, index: int = 0) -> Net:
        """The elements of an input."""
        wire = self.inputs[index]
        port = "x" if len(self.inputs) == 1 else "ab"[index]
        width = wire.element.width
        net = self._net(wire.element, 0)
        for lane in range(self.lanes):
            self.lines.append(f"    assign {net.name}{lane} = {port}[{lane * width}+:{width}];")
        return net

    def constants(self, numbers: IntArray, element: Element, what: str, loads: Loads | None = None) -> Net:
        """A constant for each element of the tensor, flat and row-major: there one edge behind its word.

        It is loaded, or there from the start.
        """
        if loads is not None:
            return self._word(self._loaded_constants(numbers, what, loads), loads.element)
        return self.constants_of(numbers[:, None], element, what)

    def constants_of(self, rows: IntArray, element: Element, what: str) -> Net:
        """Several constants for each element, shape (elements, count): a number of all their bits."""
        count = rows.shape[1]
        own = element if count == 1 else Element(element.width * count, False)
        return self._word(self.wide_constants(rows, element, what), own)

    def _word(self, word: str, element: Element) -> Net:
        """The parts of a word of constants, one edge behind the word that they are of."""
        net, width = self._net(element, 1), element.width
        for lane in range(self.lanes):
            self.lines.append(f"    assign {net.name}{lane} = {word}[{lane * width}+:{width}];")
        return net

    def _loaded_constants(self, numbers: IntArray, what: str, loads: Loads) -> str:
        """Loaded constants of each element: the word of all lanes, in Verilog."""
        # In rounds by whose they are, not by what they are.
        count = len(round_of(loads.sources[self.order].reshape(-1, self.lanes)))
        words = numbers[self.order].reshape(-1, self.lanes)[:count].astype(object)
        bits = self.lanes * loads.element.width
        self.lines.append(f"    wire [{bits - 1}:0] {what}_word;")
        settings: dict[str, Setting] = {"D": count, "W": bits, "STYLE": memory_style(count)}
        pins = {pin: pin for pin in ("clk", "reset", "enable")}
        pins |= {"x_valid": self._valid(), "y": f"{what}_word"}
        pins |= self.draft.loaded_memory(self.name, f"{self.name}_{what}", words, loads.element.width)
        self.lines.append(instance("loaded_constants", what, settings, pins))
        return f"{what}_word"

    def wide_constants(self, rows: IntArray, element: Element, what: str) -> str:
        """Several constants for each element, shape (elements, count): the word of all lanes, in Verilog."""
        words = round_of(rows[self.order].reshape(-1, self.lanes * rows.shape[1]))
        file = self.draft.memory(f"{self.name}_{what}", words, element.width)
        bits = words.shape[1] * element.width
        self.lines.append(f"    wire [{bits - 1}:0] {what}_word;")
        settings: dict[str, Setting] = {
            "D": len(words),
            "W": bits,
            "STYLE": memory_style(len(words)),
            "FILE": file,
        }
        pins = {pin: pin for pin in ("clk", "reset", "enable")}
        pins |= {"x_valid": self._valid(), "y": f"{what}_word"}
        self.lines.append(instance("constants", what, settings, pins))
        return f"{what}_word"

    def together(self, first: Net, second: Net) -> Net:
        """Two numbers side by side, the first in the lower bits."""
        edges = max(first.edges, second.edges)
        first, second = self.delayed(first, edges), self.delayed(second, edges)
        net = self._net(Element(first.element.width + second.element.width, False), edges)
        for lane in range(self.lanes):
            self.lines.append(f"    assign {net.name}{lane} = {{{second.name}{lane}, {first.name}{lane}}};")
        return net

    def delayed(self, net: Net, edges: int) -> Net:
        """The number that many edges behind its word."""
        if net.edges == edges:
            return net
        assert net.edges < edges
        settings = {"W": net.element.width, "D": edges - net.edges}
        return self.unit("delay", settings, {"x": net}, net.element, "y")

    def unit(
        self,
        module: str,
        settings: Mapping[str, Setting],
        pins: Mapping[str, Net | str],
        element: Element,
        output: str,
    ) -> Net:
        """A unit or component in every lane; pins are numbers, or Verilog with ``{lane}``."""
        nets = [pin for pin in pins.values() if isinstance(pin, Net)]
        edges = max(net.edges for net in nets)
        aligned = {
            port: self.delayed(pin, edges) if isinstance(pin, Net) else pin for port, pin in pins.items()
        }
        latency = (UNITS.get(module) or LANE_COMPONENTS[module]).latency(numbers_of(settings))
        out = self._net(element, edges + latency)
        for lane in range(self.lanes):
            connected = {"clk": "clk", "enable": "enable"}
            for port, pin in aligned.items():
                connected[port] = f"{pin.name}{lane}" if isinstance(pin, Net) else pin.format(lane=lane)
            connected[output] = f"{out.name}{lane}"
            self.lines.append(instance(module, f"{out.name}{lane}_unit", settings, connected))
        return out

    def measured(
        self,
        unit: str,
        values: Mapping[str, int],
        pins: Mapping[str, Net | str],
        element: Element,
        output: str,
    ) -> Net:
        """A measured unit in every lane, its parameters checked."""
        checked = UNITS[unit].checked(values)
        return self.unit(unit, checked, pins, element, output)

    def moved(self, net: Net, element: Element, shift: int = 0) -> Net:
        """The number times a power of two, in other bits; wires."""
        out = self._net(element, net.edges)
        width = element.width
        for lane in range(self.lanes):
            if shift == 0:
                text = net.bits(lane, width)
            elif shift >= width:
                text = f"{width}'b0"
            else:
                text = f"{{{net.bits(lane, width - shift)}, {shift}'b0}}"
            self.lines.append(f"    assign {out.name}{lane} = {text};")
        return out

    def _net(self, element: Element, edges: int) -> Net:
        net = Net(f"n{self.made}_", element, edges)
        self.made += 1
        for lane in range(self.lanes):
            self.lines.append(f"    wire [{element.width - 1}:0] {net.name}{lane};")
        return net

    def _valid(self) -> str:
        return "x_valid" if len(self.inputs) == 1 else "a_valid & b_valid"

    def finish(self, net: Net, tensor: str, node: str) -> Wire:
        """Close the module: the number is the result, in the bits of its element."""
        out = self.draft.wire(tensor, self.lanes, net.element, self.order)
        depth = max(net.edges, 1)
        net = self.delayed(net, depth)
        self.draft.circuit.modules[self.name] = self._text(net, out, depth)
        return self.draft.add(
            self.name, self.inputs, out, Pipeline(depth), name=f"{self.name}_instance", node=node
        )

    def _text(self, net: Net, out: Wire, depth: int) -> str:
        ports = ["    input  clk, reset, y_ready", "    output y_valid", f"    output [{out.bits - 1}:0] y"]
        for port, wire in zip("x" if len(self.inputs) == 1 else "ab", self.inputs, strict=True):
            ports += [f"    input  {port}_valid", f"    output {port}_ready"]
            ports.append(f"    input  [{wire.bits - 1}:0] {port}")
        ports += self.draft.load_ports(self.name)
        body = ["    wire enable;", *self.lines]
        if len(self.inputs) == 1:
            pins = {"x_valid": "x_valid", "x_ready": "x_ready"}
        else:
            body += [
                "    wire both = a_valid & b_valid;",
                "    assign a_ready = enable & both;",
                "    assign b_ready = enable & both;",
            ]
            pins = {"x_valid": "both", "x_ready": ""}
        pins = {"clk": "clk", "reset": "reset"} | pins
        pins |= {pin: pin for pin in ("y_valid", "y_ready", "enable")}
        body.append(instance("pipeline_control", "control", {"D": depth}, pins))
        lanes = ", ".join(f"{net.name}{lane}" for lane in reversed(range(self.lanes)))
        body.append(f"    assign y = {{{lanes}}};")
        return "\n".join([f"module {self.name} (", ",\n".join(ports), ");", *body, "endmodule\n"])
