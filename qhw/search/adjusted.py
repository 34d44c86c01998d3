"""Layers that methods without training have adjusted, at every point, each made once for what it depends on.

A method that goes from layer to layer (:class:`qhw.ptq.methods.base.LayerMethod`) changes a layer by its own
formats and by what the layers in front of it give. So the layer is the same at all points that agree in those
variables, as its result is, and what lies in front of a changed layer is not adjusted again.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, fx, nn

from qhw.ptq.methods import methods_named
from qhw.ptq.methods.base import LayerMethod, takes_part
from qhw.ptq.observation import unquantised
from qhw.search.network import PrefixCache, Variants, dependencies, first_calls
from qhw.search.space import Point

KEPT = 4096
"""Adjusted layers that are kept; the least used are dropped."""

LARGEST_INPUTS = 1 << 29
"""Bytes that the float network's results may take; of a network with more, fewer samples are looked at."""


def adjusts_layers(methods: Sequence[str]) -> bool:
    """Whether methods go from layer to layer."""
    return all(isinstance(method, LayerMethod) for method in methods_named(methods))


class AdjustedLayers:
    """The layers of points, adjusted by methods.

    Args:
        variants: the network in all formats.
        methods: names of methods that go from layer to layer.
        samples: what they look at, (N, ...).
    """

    def __init__(self, variants: Variants, methods: Sequence[str], samples: Tensor, seed: int = 0) -> None:
        self.variants, self._seed = variants, seed
        self._methods = methods_named(methods)
        each = sum(x.nbytes for x in _float_inputs(variants, samples[:2]).values()) / 2
        samples = samples[: max(2, int(LARGEST_INPUTS / max(each, 1)))]
        self._inputs = PrefixCache(variants, samples, layer=self.layer)
        self._depends, self._firsts = dependencies(variants), first_calls(variants)
        self._exact = _float_inputs(variants, samples)
        self._known: OrderedDict[Hashable, nn.Module] = OrderedDict()
        self.adjusted = 0
        """Layers that were adjusted so far."""

    def layer(self, node: fx.Node, point: Point) -> nn.Module:
        """The layer of a node at a point."""
        plain, first = self.variants.layer(node, point), self._firsts[node]
        if not takes_part(plain):
            return plain
        key = (first.name, tuple(point[index] for index in self._depends[first]))
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        rounded = self._inputs.value(first.all_input_nodes[0], point)
        layer = copy.deepcopy(plain)
        with torch.no_grad():
            for method in self._methods:
                assert isinstance(method, LayerMethod)
                # A tensor of inference mode takes no part in what learns.
                method.adjust_layer(layer, self._exact[first], rounded.clone(), self._seed)
        self.adjusted += 1
        self._known[key] = layer.eval()
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return layer

    def network(self, point: Point) -> fx.GraphModule:
        """The quantised network of a point, a copy."""
        return self.variants.module(point, self.layer)


def _float_inputs(variants: Variants, samples: Tensor) -> dict[fx.Node, Tensor]:
    """What goes into each layer that is adjusted, in the float network."""
    found: dict[fx.Node, Tensor] = {}
    base = copy.deepcopy(variants.base)
    nodes = dict(zip(base.graph.nodes, variants.nodes, strict=True))

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            if n.op == "call_module" and takes_part(base.get_submodule(str(n.target))):
                arguments, _ = self.fetch_args_kwargs_from_env(n)
                found[nodes[n]] = arguments[0]
            return super().run_node(n)

    with torch.no_grad(), unquantised(base):
        Recorder(base).run(samples)
    return found
