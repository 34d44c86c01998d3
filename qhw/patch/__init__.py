"""Patch-based inference: the first layers run patch by patch, so that their feature maps take less memory.

Lin et al.: MCUNetV2: Memory-Efficient Patch-based Inference for Tiny Deep Learning, arXiv 2110.15352.
"""

from qhw.patch.execute import run_by_patches
from qhw.patch.plan import PatchPlan, best_plan, layer_by_layer, make_plan, plans
from qhw.patch.unrolled import with_patches

__all__ = [
    "PatchPlan",
    "best_plan",
    "layer_by_layer",
    "make_plan",
    "plans",
    "run_by_patches",
    "with_patches",
]
