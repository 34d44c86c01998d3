"""What lies between two integer operations: element-wise, in float32 operations of stored order."""
