"""What a circuit takes of a device family, measured: Yosys or Vivado, one process per design."""
