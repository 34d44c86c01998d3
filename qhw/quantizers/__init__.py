"""How a tensor becomes numbers of a format in training, with a binary point or scale that is learned."""

import warnings

from qhw.quantizers.activation import IDENTITY, RELU, RELU6, Activation, leaky_relu
from qhw.quantizers.base import Quantizer, binary_points, first_not_finite, name_quantizers
from qhw.quantizers.fixed import FixedQuantizer
from qhw.quantizers.functional import add_quantize, affine_quantize, quantize
from qhw.quantizers.injectors import (
    activation_quantizer,
    bias_quantizer,
    plain_tensors,
    weight_quantizer,
)
from qhw.quantizers.kernels.problem import Rule
from qhw.quantizers.table import TableQuantizer, make_quantizer

__all__ = [
    "IDENTITY",
    "RELU",
    "RELU6",
    "Activation",
    "FixedQuantizer",
    "Quantizer",
    "Rule",
    "TableQuantizer",
    "activation_quantizer",
    "add_quantize",
    "affine_quantize",
    "bias_quantizer",
    "binary_points",
    "first_not_finite",
    "leaky_relu",
    "make_quantizer",
    "name_quantizers",
    "plain_tensors",
    "quantize",
    "weight_quantizer",
]

with warnings.catch_warnings():  # Brevitas's exporter warns of optional packages
    warnings.simplefilter("ignore")
    from qhw.quantizers.brevitas_export import register

    register()
