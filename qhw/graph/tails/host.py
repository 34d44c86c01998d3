"""What a model does to a float input before its first quantizer: float32 operations of the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qhw.errors import InputError
from qhw.graph.ir import InputStep
from qhw.graph.tails.operations import OPERATIONS, Step, Value


def carry_out(steps: Sequence[InputStep], x: Value) -> Value:
    """A batch (N, *shape) after the steps, float32, the same as ONNX Runtime's where IEEE 754 decides.

    Raises:
        InputError: a step is none that a tail may hold.
    """
    for step in steps:
        if step.op not in OPERATIONS:
            raise InputError(f"a host step is '{step.op}'", allowed=", ".join(sorted(OPERATIONS)))
        operands = [x if o is None else np.array(o, dtype=np.float32) for o in step.operands]
        if step.op == "MultiThreshold":
            x = (x[..., np.newaxis] >= operands[1]).sum(axis=-1).astype(np.float32)
            continue
        with np.errstate(all="ignore"):
            found = OPERATIONS[step.op].function(Step(step.op, (), "", dict(step.attributes)), operands)
        x = np.asarray(found, dtype=np.float32)
    return x
