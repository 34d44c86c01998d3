"""QONNX in, the exact graph, its lowering, passes and value ranges."""
