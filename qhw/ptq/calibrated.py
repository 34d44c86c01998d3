"""A float network that is traced, prepared and observed once, and quantised in any formats from there."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from qhw.convert import convert_traced, paths_of
from qhw.ptq.calibrations import calibration_named
from qhw.ptq.methods import Subject, methods_named
from qhw.ptq.observation import lockstep, observe, results
from qhw.ptq.settings import PtqSettings
from qhw.quant_config import QuantConfig
from qhw.quantizers import Quantizer
from qhw.tracing import trace
from qhw.train import quant_of_samples

REPORTED = 128
"""Samples that the errors of layers are measured on."""


@dataclass(frozen=True)
class LayerError:
    """How far a layer's result is from the float network's.

    Args:
        path: the layer.
        format: of its result; of a sum that nothing rounds, "".
        sqnr: signal to quantisation noise in dB; infinite where nothing differs.
    """

    path: str
    format: str
    sqnr: float


class Calibrated:
    """A network and what its quantisation needs to know of it, whatever the formats.

    The network is traced, and what the methods do to it in float is done (folding, equalization), once. What
    its layers give is kept as samples of their numbers, and each scale that was found is kept too.
    :meth:`quantised` then only puts layers and scales in place, and lets methods adjust the quantised layers.

    Args:
        model: a trained float module; it is left as it is.
        samples: (N, ...), as the network takes them, of the training split.
        settings: methods and calibration.
        pixels: whether samples are whole pixels of 0..255 by their type.

    Attributes:
        network: the traced float network, prepared.
        changed: by method, how many places of the float network it changed.

    Raises:
        InputError, UnsupportedError: the model cannot be traced or converted.

    Example::

        calibrated = Calibrated(net, samples, PtqSettings(methods=("equalize",)), pixels=True)
        for weights in ("int4", "e2m1", "khot<4,2>"):
            quantised = calibrated.quantised(QuantConfig(weights=weights))
    """

    def __init__(
        self, model: nn.Module, samples: Tensor, settings: PtqSettings | None = None, *, pixels: bool = False
    ) -> None:
        self.settings = settings or PtqSettings()
        self.samples, self.pixels = samples.float(), pixels
        self._complete = partial(quant_of_samples, pixels=pixels, model=model)
        self._methods = methods_named(self.settings.methods)
        self._calibration = calibration_named(self.settings.calibration)
        self.network, self.changed = _prepared(model, self.samples, self._methods, self.samples)
        self._paths = paths_of(trace(model, self.samples[:2]))
        self._seen: dict[str, Tensor] = {}
        self._found: dict[tuple[Any, ...], float] = {}

    def quantised(self, config: QuantConfig) -> fx.GraphModule:
        """The network in these formats, in eval mode, ready for export or evaluation.

        Raises:
            InputError: an override matches no layer.
            UnsupportedError: a layer that cannot be converted in these formats.
        """
        config.check_patterns(self._paths)
        network = self._converted(config)
        float_side = copy.deepcopy(network)
        subject = Subject(network, float_side, self.samples, self.settings.seed)
        for method in self._methods:
            method.adjust(subject)
        return network.eval()

    def errors(self, quantised: fx.GraphModule, config: QuantConfig, samples: Tensor) -> list[LayerError]:
        """The error of each layer's result against the float network, on samples (N, ...).

        Args:
            quantised: what :meth:`quantised` gave for this configuration.
        """
        return layer_errors(self._converted(config), quantised, samples[:REPORTED].float())

    def _converted(self, config: QuantConfig) -> fx.GraphModule:
        """The network in these formats with every scale set, before methods adjust it."""
        network = convert_traced(copy.deepcopy(self.network), self._complete(config)).eval()
        self._set_scales(network)
        with torch.no_grad():
            network(self.samples[:2])  # constants of batch norms find their scales
        return network

    def _set_scales(self, network: fx.GraphModule) -> None:
        groups: dict[int, list[str]] = {}
        quantizers = {path: q for path, q in results(network).items() if q.is_open}
        for path, quantizer in quantizers.items():
            groups.setdefault(id(quantizer.theta), []).append(path)
        missing = [path for path in quantizers if path not in self._seen]
        if missing:
            self._seen |= observe(network, self.samples, quantizers, self.settings.seed)
        for paths in groups.values():
            self._set_scale(quantizers[paths[0]], tuple(paths))

    def _set_scale(self, quantizer: Quantizer, paths: tuple[str, ...]) -> None:
        key = (paths, quantizer.rule)
        if key not in self._found:
            values = torch.cat([self._seen[path] for path in paths if path in self._seen])
            self._found[key] = self._calibration.fraction(values, quantizer.rule)
        quantizer.set_fraction(torch.tensor(self._found[key]))


def skeleton(
    model: nn.Module, config: QuantConfig, settings: PtqSettings, example: Tensor, *, pixels: bool
) -> fx.GraphModule:
    """What :meth:`Calibrated.quantised` gives, but for its numbers: their state dict fits.

    Args:
        example: two samples, as those that were quantised with.
    """
    network = trace(model, example)
    for method in methods_named(settings.methods):
        method.restructure(network)
    return convert_traced(network, quant_of_samples(config, pixels, model)).eval()


def layer_errors(float_side: fx.GraphModule, quantised: fx.GraphModule, samples: Tensor) -> list[LayerError]:
    """The error of each layer's result, on samples (N, ...).

    Args:
        float_side: a conversion to the same formats that no method has adjusted.
    """
    found = []
    formats = {path: quantizer.spec for path, quantizer in results(quantised).items()}

    def measure(node: fx.Node, exact: Tensor, rounded: Tensor) -> None:
        if node.op != "placeholder":
            format = formats.get(str(node.target))
            found.append(LayerError(node.meta["path"], str(format or ""), sqnr(exact, rounded)))

    lockstep(float_side, quantised, samples, behind=measure)
    return found


def sqnr(exact: Tensor, rounded: Tensor) -> float:
    """The ratio of signal to quantisation noise, in dB."""
    noise = float((exact - rounded).double().square().sum())
    signal = float(exact.double().square().sum())
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _prepared(
    model: nn.Module, example: Tensor, methods: list[Any], samples: Tensor
) -> tuple[fx.GraphModule, Mapping[str, int]]:
    """The traced network with what methods do in float; and how many places each of them changed."""
    network = trace(model, example[:2])
    changed = {}
    for method in methods:
        name = type(method).__module__.rpartition(".")[2].replace("_", "-")
        changed[name] = method.restructure(network) + method.prepare(network, samples)
    return network, changed
