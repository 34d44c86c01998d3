"""Quantised layers for what Brevitas leaves in float: batch norm, add, concat, pools, activations."""

from qhw.layers.elementwise import Normalize, QuantActivation, QuantAdd, QuantConcat, share
from qhw.layers.norm import QuantBatchNorm, QuantBatchNorm1d, QuantBatchNorm2d
from qhw.layers.pool import PoolWindow, QuantAdaptiveAvgPool, QuantAvgPool, QuantAvgPool1d, QuantAvgPool2d

__all__ = [
    "Normalize",
    "PoolWindow",
    "QuantActivation",
    "QuantAdaptiveAvgPool",
    "QuantAdd",
    "QuantAvgPool",
    "QuantAvgPool1d",
    "QuantAvgPool2d",
    "QuantBatchNorm",
    "QuantBatchNorm1d",
    "QuantBatchNorm2d",
    "QuantConcat",
    "share",
]
