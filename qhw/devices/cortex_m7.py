"""Microcontrollers with an Arm Cortex-M7."""

from qhw.devices.base import Family, Resource

FAMILY = Family(
    "cortex-m7",
    "Arm Cortex-M7",
    "Arm",
    "microcontroller",
    (
        Resource("sram", "SRAM", "bytes of RAM, in all its regions"),
        Resource("contiguous_sram", "contiguous", "bytes of its largest region"),
        Resource("flash", "flash", "bytes of flash memory"),
    ),
)
