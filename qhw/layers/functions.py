"""Element-wise functions: torch's in training, and one meaning to the last bit behind it.

Torch, ONNX Runtime and NumPy differ in the last bit of an exponential, and a quantizer makes a whole code
of that. In evaluation a function is therefore what the exported file's nodes are defined as (operation by
operation in float32, transcendental ones in float64 and rounded once), which is what the exact graph's
table is filled by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from qhw.formats import Format
from qhw.graph.tails.operations import OPERATIONS, Step
from qhw.layers.elementwise import result_quantizer
from qhw.quantizers.base import Quantizer

INPUT = "x"
"""What the steps of a function call its argument."""

OPSETS = {"HardSwish": 14, "Mish": 18, "Gelu": 20}
"""The first ONNX opset with an operation, where that is later than what qhw writes otherwise."""


@dataclass(frozen=True)
class ElementFunction:
    """A function of one number.

    Args:
        name: for messages and tensor names.
        torch: the function as torch computes it, differentiable.
        steps: the same in ONNX operations, in order; the last one's output is the result.
        non_negative: whether no result is below zero.
    """

    name: str
    torch: Callable[[Tensor], Tensor]
    steps: tuple[Step, ...]
    non_negative: bool = False

    def exactly(self, x: Tensor) -> Tensor:
        """The function as its steps define it, of numbers rounded to float32; in the type of ``x``."""
        numbers, places = np.unique(x.detach().cpu().numpy().astype(np.float32), return_inverse=True)
        values = {INPUT: numbers}
        with np.errstate(all="ignore"):
            for step in self.steps:
                operands = [values[name] for name in step.inputs]
                values[step.output] = OPERATIONS[step.op].function(step, operands).astype(np.float32)
        result = values[self.steps[-1].output][places.reshape(x.shape)]
        return torch.from_numpy(np.ascontiguousarray(result).reshape(x.shape)).to(x)


class Function(nn.Module):
    """An element-wise function, as torch computes it."""

    def __init__(self, function: ElementFunction) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.torch(x)

    def extra_repr(self) -> str:
        return self.function.name


class QuantFunction(nn.Module):
    """An element-wise function of quantised numbers, and its result's format.

    In training torch's own, with its gradient; in evaluation what the exported nodes are defined as.

    Args:
        function: which one.
        result: the result's format, or a shared quantizer.
    """

    def __init__(self, function: ElementFunction, result: Format | Quantizer) -> None:
        super().__init__()
        self.function = function
        self.result = result_quantizer(result)

    def forward(self, x: Tensor) -> Tensor:
        value = self.function.torch(x) if self.training else self.function.exactly(x)
        return self.result.quantize(value)

    def extra_repr(self) -> str:
        return self.function.name


def _one(op: str, function: Callable[[Tensor], Tensor], **settings: bool) -> ElementFunction:
    """A function that is one ONNX operation without attributes."""
    return ElementFunction(op.lower(), function, (Step(op, (INPUT,), "y"),), **settings)


def _gate(op: str) -> tuple[Step, ...]:
    """``x * op(x)``."""
    return Step(op, (INPUT,), "gate"), Step("Mul", (INPUT, "gate"), "y")


def _single(number: float) -> float:
    """As an ONNX attribute stores it."""
    return float(np.float32(number))


SIGMOID = _one("Sigmoid", torch.sigmoid, non_negative=True)
TANH = _one("Tanh", torch.tanh)
HARD_SWISH = _one("HardSwish", F.hardswish)
MISH = _one("Mish", F.mish)
SELU = _one("Selu", F.selu)
SOFTSIGN = _one("Softsign", F.softsign)
SOFTPLUS = _one("Softplus", F.softplus, non_negative=True)
EXP = _one("Exp", torch.exp, non_negative=True)
ABS = _one("Abs", torch.abs, non_negative=True)
ERF = _one("Erf", torch.erf)
SILU = ElementFunction("silu", F.silu, _gate("Sigmoid"))
SQUARE = ElementFunction("square", torch.square, (Step("Mul", (INPUT, INPUT), "y"),), non_negative=True)
LOG_SIGMOID = ElementFunction(
    "logsigmoid",
    F.logsigmoid,
    (Step("Neg", (INPUT,), "minus"), Step("Softplus", ("minus",), "plus"), Step("Neg", ("plus",), "y")),
)
TANH_SHRINK = ElementFunction(
    "tanhshrink", F.tanhshrink, (Step("Tanh", (INPUT,), "tanh"), Step("Sub", (INPUT, "tanh"), "y"))
)
HARD_SIGMOID = ElementFunction(
    "hardsigmoid",
    F.hardsigmoid,
    (Step("HardSigmoid", (INPUT,), "y", {"alpha": _single(1 / 6), "beta": 0.5}),),
    non_negative=True,
)


def gelu(approximate: str = "none") -> ElementFunction:
    """GELU, by the error function or by tanh."""
    attributes = {} if approximate == "none" else {"approximate": approximate}
    function = partial(F.gelu, approximate=approximate)
    return ElementFunction("gelu", function, (Step("Gelu", (INPUT,), "y", attributes),))


def elu(alpha: float = 1.0) -> ElementFunction:
    """``x``, or ``alpha * (exp(x) - 1)`` below zero."""
    alpha = _single(alpha)
    return ElementFunction(
        "elu", partial(F.elu, alpha=alpha), (Step("Elu", (INPUT,), "y", {"alpha": alpha}),)
    )


def celu(alpha: float = 1.0) -> ElementFunction:
    """``x``, or ``alpha * (exp(x / alpha) - 1)`` below zero."""
    alpha = _single(alpha)
    steps = (Step("Celu", (INPUT,), "y", {"alpha": alpha}),)
    return ElementFunction("celu", partial(F.celu, alpha=alpha), steps)


def clip(low: float, high: float) -> ElementFunction:
    """``x`` between two bounds, either of which may be infinite."""
    low, high = _single(low), _single(high)
    steps = (Step("Clip", (INPUT,), "y", {"min": low, "max": high}),)
    return ElementFunction("clip", partial(torch.clamp, min=low, max=high), steps, non_negative=low >= 0)


def thresholded(threshold: float) -> ElementFunction:
    """``x`` above a threshold, else zero."""
    threshold = _single(threshold)
    steps = (Step("ThresholdedRelu", (INPUT,), "y", {"alpha": threshold}),)
    function = partial(F.threshold, threshold=threshold, value=0.0)
    return ElementFunction("threshold", function, steps, non_negative=threshold >= 0)
