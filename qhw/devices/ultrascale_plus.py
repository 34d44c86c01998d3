"""AMD UltraScale+: Zynq MPSoC, Kintex, Virtex, Alveo."""

from qhw.devices.base import ULTRA_RAM, Fabric, Family, fpga_resources

FAMILY = Family(
    "ultrascale-plus",
    "AMD UltraScale+",
    "AMD",
    "fpga",
    fpga_resources("LUTs of 6 inputs", "DSP48E2 slices", "block RAMs of 18 Kb", ULTRA_RAM),
    Fabric(
        lut_inputs=6,
        multiplier=1,
        packs=True,
        memories=(0, 1, 2, 3),
        slice_data_bits=7,
        measured_share=1.0,
        yosys="xcup",
        vivado_part="xczu3eg-sbva484-1-e",
    ),
)
