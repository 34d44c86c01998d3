"""Gowin GW1N and GW2A: LUTs of four inputs, placed and routed by open tools."""

from qhw.devices.base import Fabric, Family, fpga_resources

FAMILY = Family(
    "gowin",
    "Gowin GW1N or GW2A",
    "Gowin",
    "fpga",
    fpga_resources("LUTs of 4 inputs", "multipliers of 18x18 (MULT18X18)", "BSRAM blocks of 18 Kb"),
    Fabric(
        lut_inputs=4,
        multiplier=3,
        packs=False,
        memories=(1, 2),
        slice_data_bits=0,
        measured_share=0.0,
        yosys="gowin",
        priced_as="ecp5",
    ),
)
