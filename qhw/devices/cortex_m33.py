"""Microcontrollers with an Arm Cortex-M33."""

from qhw.devices.base import Family, Resource

FAMILY = Family(
    "cortex-m33",
    "Arm Cortex-M33",
    "Arm",
    "microcontroller",
    (
        Resource("sram", "SRAM", "bytes of RAM, in all its regions"),
        Resource("contiguous_sram", "contiguous", "bytes of its largest region"),
        Resource("flash", "flash", "bytes of flash memory"),
    ),
)
