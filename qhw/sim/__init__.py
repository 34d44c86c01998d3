"""The interpreter, the fast executor and the comparison of two executions."""
