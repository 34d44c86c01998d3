"""Lattice ECP5: LUTs of four inputs, placed and routed by open tools."""

from qhw.devices.base import Fabric, Family, fpga_resources

FAMILY = Family(
    "ecp5",
    "Lattice ECP5",
    "Lattice",
    "fpga",
    fpga_resources("LUTs of 4 inputs", "MULT18X18D multipliers", "DP16KD block RAMs of 18 Kb"),
    Fabric(
        lut_inputs=4,
        multiplier=3,
        packs=False,
        memories=(1, 2),
        slice_data_bits=0,
        measured_share=0.36,
        yosys="ecp5",
    ),
)
