"""How a tensor becomes a fixed-point number in training, with a binary point that is learned."""

import warnings

from qhw.quantizers.activation import IDENTITY, RELU, RELU6, Activation, leaky_relu
from qhw.quantizers.fixed import FixedQuantizer, binary_points
from qhw.quantizers.functional import add_quantize, affine_quantize, quantize
from qhw.quantizers.injectors import (
    activation_quantizer,
    bias_quantizer,
    plain_tensors,
    weight_quantizer,
)
from qhw.quantizers.kernels.problem import Rule

__all__ = [
    "IDENTITY",
    "RELU",
    "RELU6",
    "Activation",
    "FixedQuantizer",
    "Rule",
    "activation_quantizer",
    "add_quantize",
    "affine_quantize",
    "bias_quantizer",
    "binary_points",
    "leaky_relu",
    "plain_tensors",
    "quantize",
    "weight_quantizer",
]

with warnings.catch_warnings():  # Brevitas's exporter warns of optional packages
    warnings.simplefilter("ignore")
    from qhw.quantizers.brevitas_export import register

    register()
