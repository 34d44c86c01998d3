"""What a circuit consists of: every instance that was emitted, with its parameters and pins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from qhw.flows.rtl.circuit import Circuit, Setting, joined_codes
from qhw.flows.rtl.emission.draft import MEMORIES

_INSTANCE = re.compile(r"^    (\w+) (?:#\((.*)\) )?(\w+) \(\n        (.*)$", re.MULTILINE)
_CONNECTED = re.compile(r"\.(\w+)\(((?:[^()]|\([^()]*\))*)\)")


@dataclass(frozen=True)
class Part:
    """An instance.

    Args:
        module: of the library or of the measured units.
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
    """Every instance of a circuit, in order: what modules of nodes hold, and components of the library."""
    for component in circuit.components:
        if component.module not in circuit.modules:
            settings = dict(component.settings) | {"BRANCHES": len(component.outputs)}
            yield Part(component.module, settings, {}, component.name, component.node)
            continue
        for module, settings, _, pins in _INSTANCE.findall(circuit.modules[component.module]):
            values = {name: _value(text) for name, text in _CONNECTED.findall(settings)}
            yield Part(module, values, dict(_CONNECTED.findall(pins)), component.name, component.node)


def _value(text: str) -> Setting:
    return int(text) if re.fullmatch(r"-?\d+", text) else text


@dataclass(frozen=True)
class Columns:
    """The bits of a memory of constants, each as a number over the words.

    Args:
        words: how many.
        bits: of each bit of a word, its value in every word.
    """

    words: int
    bits: tuple[int, ...]

    @property
    def varying(self) -> set[int]:
        """Those that are not the same in all words; equal ones are there once."""
        return {bit for bit in self.bits if bit not in (0, (1 << self.words) - 1)}

    @property
    def addresses(self) -> set[int]:
        """The bits of the address, likewise."""
        count = max(self.words - 1, 1).bit_length()
        return {sum(1 << word for word in range(self.words) if word >> place & 1) for place in range(count)}


def columns_of(circuit: Circuit, part: Part) -> Columns:
    """The bits of a part's memory of constants, by its file."""
    name = str(part.settings["FILE"]).strip('"').removeprefix(f"{MEMORIES}/").removesuffix(".mem")
    width, codes = circuit.memories[name]
    words = joined_codes(codes, width)
    count = width * np.atleast_2d(codes).shape[1]
    text = [f"{word:0{count}b}" for word in reversed(words)]
    return Columns(len(words), tuple(int("".join(bits), 2) for bits in zip(*text, strict=True))[::-1])
