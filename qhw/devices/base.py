"""What a device family is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["fpga", "microcontroller"]
"""What is built for a board: a circuit, or a program."""


@dataclass(frozen=True)
class Resource:
    """Something that a device has so much of.

    Args:
        name: as board files and manifests have it.
        title: as tables have it.
        meaning: what is counted, with its unit.
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
        lut_inputs: of a LUT.
        multiplier: the units' MULTIPLIER that is the family's own DSP slice.
        packs: whether several narrow products share a slice in the measured circuits.
        memories: values of the units' STYLE that the family has cells for.
        slice_data_bits: bits beside an address in a slice of LUT memory; 0 where memory is counted otherwise.
        measured_share: how many of a unit's designs are measured: the first of its sample.
        yosys: the name of the family's flow in Yosys.
        vivado_part: a part that Vivado measures the family on; empty where it does not know the family.
    """

    lut_inputs: int
    multiplier: int
    packs: bool
    memories: tuple[int, ...]
    slice_data_bits: int
    measured_share: float
    yosys: str
    vivado_part: str = ""


@dataclass(frozen=True)
class Family:
    """Devices that are built alike.

    Args:
        name: as board files and ``cost_models/`` have it.
        title: as messages have it.
        vendor: whose tools are needed.
        kind: what is built for it.
        resources: in the order of every table.
        fabric: of an FPGA.
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
