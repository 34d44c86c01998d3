"""Quantised layers for what Brevitas leaves in float: batch norm, arithmetic, pools, functions, moves."""

from qhw.layers.arithmetic import (
    QuantAffine,
    QuantInterpolate,
    QuantMultiply,
    QuantPad,
    QuantPReLU,
    QuantSubtract,
    QuantTotal,
)
from qhw.layers.elementwise import Normalize, QuantActivation, QuantAdd, QuantConcat, share
from qhw.layers.functions import QuantFunction
from qhw.layers.norm import QuantBatchNorm, QuantBatchNorm1d, QuantBatchNorm2d
from qhw.layers.pool import PoolWindow, QuantAdaptiveAvgPool, QuantAvgPool, QuantAvgPool1d, QuantAvgPool2d

__all__ = [
    "Normalize",
    "PoolWindow",
    "QuantActivation",
    "QuantAdaptiveAvgPool",
    "QuantAdd",
    "QuantAffine",
    "QuantAvgPool",
    "QuantAvgPool1d",
    "QuantAvgPool2d",
    "QuantBatchNorm",
    "QuantBatchNorm1d",
    "QuantBatchNorm2d",
    "QuantConcat",
    "QuantFunction",
    "QuantInterpolate",
    "QuantMultiply",
    "QuantPReLU",
    "QuantPad",
    "QuantSubtract",
    "QuantTotal",
    "share",
]
