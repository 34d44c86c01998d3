"""What a circuit consists of: every instance that was emitted, with its parameters and pins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from qhw.flows.rtl.circuit import Circuit, Setting, joined_codes
from qhw.flows.rtl.emission.draft import MEMORIES
from qhw.rtl.shared.counting import Columns

_INSTANCE = re.compile(r"^    (\w+) (?:#\((.*)\) )?(\w+) \(\n        (.*)$", re.MULTILINE)
_CONNECTED = re.compile(r"\.(\w+)\(((?:[^()]|\([^()]*\))*)\)")


@dataclass(frozen=True)
class Part:
    """An instance.

    Args:
        module: a component or a measured unit.
        settings: its parameters.
        pins: what its ports are connected to, as Verilog; empty for a component of its own.
        component: the component that it lies in.
        node: the node that it belongs to; empty for streams.
    """

    module: str
    settings: Mapping[str, Setting]
    pins: Mapping[str, str]
    component: str
    node: str

    def __getitem__(self, name: str) -> int:
        """A parameter that is a number."""
        return int(self.settings[name])


def parts_of(circuit: Circuit) -> Iterator[Part]:
    """Every instance of a circuit, in order: what modules of nodes hold, and what lies between them."""
    for component in circuit.components:
        if component.module not in circuit.modules:
            yield Part(component.module, component.settings, {}, component.name, component.node)
            continue
        for module, settings, _, pins in _INSTANCE.findall(circuit.modules[component.module]):
            values = {name: _value(text) for name, text in _CONNECTED.findall(settings)}
            yield Part(module, values, dict(_CONNECTED.findall(pins)), component.name, component.node)


def _value(text: str) -> Setting:
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def columns_of(circuit: Circuit, part: Part) -> Columns:
    """The bits of a part's memory of constants, by its file."""
    name = str(part.settings["FILE"]).strip('"').removeprefix(f"{MEMORIES}/").removesuffix(".mem")
    width, codes = circuit.memories[name]
    return Columns.of(joined_codes(codes, width), width * np.atleast_2d(codes).shape[1])
