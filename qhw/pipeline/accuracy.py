"""How far a build's accuracy falls below the float model's, and what is the likely cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qhw.formats import Fixed
from qhw.formats.modes import Overflow

if TYPE_CHECKING:
    from qhw.quant_config import QuantConfig
    from qhw.tasks import Metric

LARGEST_FALL = 0.03
"""Points (of 1), or share of a figure that is none, from which on a fall is reported as one."""

FEW_BITS = 3


def warning_of_fall(
    metric: Metric, in_float: float, quantised: float, config: QuantConfig, quantised_epochs: int | None
) -> str | None:
    """One message where quantisation costs more than a few points, with the likely cause and the remedy.

    Args:
        in_float, quantised: the metric of the float model and of the exact graph, on the same samples.
        config: the formats that were asked for.
        quantised_epochs: epochs of training with quantizers in place; None: quantised without training.
    """
    if metric.loss_against(in_float, quantised) <= LARGEST_FALL:
        return None
    return (
        f"quantised, the {metric.name} is {metric.written(quantised)}; in float it was "
        f"{metric.written(in_float)}: {_cause(config, quantised_epochs)}"
    )


def _cause(config: QuantConfig, quantised_epochs: int | None) -> str:
    """The likely cause with its remedy: a format that suits no trained network, else training, else bits."""
    for setting, format in config.formats():
        if isinstance(format, Fixed) and format.overflow in (Overflow.WRAP, Overflow.WRAP_SM):
            return f"{setting} in {format} wrap around where they leave its range; SAT saturates"
    for setting, format in config.formats():
        if isinstance(format, Fixed) and format.integer is not None:
            step = 2.0**format.exponent
            return (
                f"{setting} have a stated binary point, {format} ({format.mantissa_low * step:g} to "
                f"{format.mantissa_high * step:g} in steps of {step:g}); 'fixed<{format.width}>' learns it"
            )
    if quantised_epochs is None:
        return "it was quantised without training; give it more bits, other --methods, or --quantise training"
    if not quantised_epochs:
        return "the quantised network was not trained; give it --quantised-epochs"
    narrow = [f"{setting} ({format})" for setting, format in config.formats() if format.width <= FEW_BITS]
    if narrow:
        return f"few bits: {', '.join(narrow)}; give some layers more (--layer), or more --quantised-epochs"
    return "train longer (--quantised-epochs), or give the first and last layers more bits (--layer)"
