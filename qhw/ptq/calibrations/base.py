"""How the range of a tensor of activations becomes the scale of its quantizer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from qhw.quantizers.kernels.problem import LARGEST_FRACTION, Rule


class Calibration(ABC):
    """A choice of the scale from what a float network gave.

    Attributes:
        title: one line, with its source.
    """

    title: ClassVar[str]

    @abstractmethod
    def fraction(self, values: Tensor, rule: Rule) -> float:
        """The fraction bits of a mantissa; whole, unless the rule's scale is free.

        Args:
            values: float32 (n,), behind the activation; the largest and the smallest number seen are among
                them.
            rule: the format, as its kernel sees it.
        """


def fraction_of(threshold: float, rule: Rule) -> float:
    """The fraction bits at which a magnitude is the largest that still fits.

    Of a power of two the next that holds it, as Brevitas's and TensorRT's scales do. Numbers that are all
    zero say nothing: they get the range [-1, 1).
    """
    high = float(max(rule.mantissas[1], 1))
    if not 0.0 < threshold < math.inf:
        return float(rule.mantissas[1].bit_length())
    exact = math.log2(high / threshold)
    return min(max(exact if rule.free else math.floor(exact), -LARGEST_FRACTION), LARGEST_FRACTION)
