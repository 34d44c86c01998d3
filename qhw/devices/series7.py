"""AMD 7 series: Zynq-7000, Artix-7, Kintex-7, Virtex-7."""

from qhw.devices.base import ULTRA_RAM, Fabric, Family, fpga_resources

FAMILY = Family(
    "7series",
    "AMD 7 series",
    "AMD",
    "fpga",
    fpga_resources("LUTs of 6 inputs", "DSP48E1 slices", "block RAMs of 18 Kb", ULTRA_RAM),
    Fabric(
        lut_inputs=6,
        multiplier=2,
        packs=True,
        memories=(0, 1, 2),
        slice_data_bits=3,
        measured_share=0.36,
        yosys="xc7",
        vivado_part="xc7z020clg400-1",
    ),
)
