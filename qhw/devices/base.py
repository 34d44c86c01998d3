"""Device families: their kind, resources and cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["fpga", "microcontroller"]
"""A circuit or a program: the product of a build for a board."""


@dataclass(frozen=True)
class Resource:
    """Something that a device has so much of.

    Args:
        name: its key in board files and manifests.
        title: its name in tables.
        meaning: the cells or blocks counted, with the unit.
        optional: 0 for boards that do not state it.
    """

    name: str
    title: str
    meaning: str
    optional: bool = False


@dataclass(frozen=True)
class Fabric:
    """The cells of an FPGA family, as the measured circuits and their models need them.

    Args:
        lut_inputs: inputs of one LUT.
        multiplier: the units' MULTIPLIER that is the family's own DSP slice.
        packs: whether several narrow products share a slice in the measured circuits.
        memories: values of the units' STYLE that the family has cells for.
        slice_data_bits: bits beside an address in a slice of LUT memory; 0 where memory is counted otherwise.
        measured_share: the share of a unit's designs that is measured: the first of its sample.
        yosys: the name of the family's flow in Yosys.
        vivado_part: a part that Vivado measures the family on; empty where it does not know the family.
        priced_as: a family of like cells by whose models it is priced, where its own were not measured.
    """

    lut_inputs: int
    multiplier: int
    packs: bool
    memories: tuple[int, ...]
    slice_data_bits: int
    measured_share: float
    yosys: str
    vivado_part: str = ""
    priced_as: str = ""


@dataclass(frozen=True)
class Family:
    """Devices that are built alike.

    Args:
        name: its key in board files and ``cost_models/``, e.g. ``ecp5``.
        title: its name in messages.
        vendor: the maker, whose tools are needed.
        kind: ``fpga`` or ``microcontroller``: a build for it makes a circuit or a program.
        resources: its resources, in the order of every table.
        fabric: an FPGA's cells; None for other kinds.
    """

    name: str
    title: str
    vendor: str
    kind: Kind
    resources: tuple[Resource, ...]
    fabric: Fabric | None = None


def fpga_resources(lut: str, dsp: str, bram18: str, *more: Resource) -> tuple[Resource, ...]:
    """LUT, FF, DSP and block RAM, with what each counts in a family."""
    return (
        Resource("lut", "LUT", lut),
        Resource("ff", "FF", "flip-flops"),
        Resource("dsp", "DSP", dsp),
        Resource("bram18", "BRAM18", bram18),
        *more,
    )


ULTRA_RAM = Resource("uram", "URAM", "UltraRAM blocks of 288 Kb", optional=True)
"""The same field in all of AMD's families; 0 where a device has none."""
