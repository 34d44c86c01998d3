"""Designs on Zynq boards: AXI DMA around a network's streams, Vivado's block design, a driver for PYNQ."""
