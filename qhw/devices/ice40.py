"""Lattice iCE40 UltraPlus: LUTs of four inputs, memories of 4 Kb, placed and routed by open tools."""

from qhw.devices.base import Fabric, Family, fpga_resources

FAMILY = Family(
    "ice40",
    "Lattice iCE40 UltraPlus",
    "Lattice",
    "fpga",
    fpga_resources(
        "LUTs of 4 inputs", "multipliers of 16x16 (SB_MAC16)", "EBR blocks, here of 4 Kb (SB_RAM40_4K)"
    ),
    Fabric(
        lut_inputs=4,
        multiplier=3,
        packs=False,
        memories=(2,),
        slice_data_bits=0,
        measured_share=0.0,
        yosys="ice40",
        priced_as="ecp5",
    ),
)
