"""Patch-based inference: the first layers run patch by patch, so that their feature maps take less memory.

Lin et al.: MCUNetV2: Memory-Efficient Patch-based Inference for Tiny Deep Learning, arXiv 2110.15352. Patches
with feature maps of mixed widths: :mod:`qhw.patch.quantmcu`.
"""

from qhw.patch.execute import run_by_patches
from qhw.patch.observed import OutputErrors
from qhw.patch.plan import (
    Footprint,
    PatchPlan,
    best_plan,
    layer_by_layer,
    make_plan,
    plans,
)
from qhw.patch.quantmcu import QuantMcu, Record, Settings, quantmcu, uniform
from qhw.patch.search import bit_operations
from qhw.patch.unrolled import with_patches
from qhw.patch.widths import Width, feature_maps, narrowed

__all__ = [
    "Footprint",
    "OutputErrors",
    "PatchPlan",
    "QuantMcu",
    "Record",
    "Settings",
    "Width",
    "best_plan",
    "bit_operations",
    "feature_maps",
    "layer_by_layer",
    "make_plan",
    "narrowed",
    "plans",
    "quantmcu",
    "run_by_patches",
    "uniform",
    "with_patches",
]
