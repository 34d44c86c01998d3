"""Microcontrollers with an Arm Cortex-M4."""

from qhw.devices.base import Family, Resource

FAMILY = Family(
    "cortex-m4",
    "Arm Cortex-M4",
    "Arm",
    "microcontroller",
    (
        Resource("sram", "SRAM", "bytes of RAM, in all its regions"),
        Resource("contiguous_sram", "contiguous", "bytes of its largest region"),
        Resource("flash", "flash", "bytes of flash memory"),
    ),
)
