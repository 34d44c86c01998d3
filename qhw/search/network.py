"""A trained network in every format of a space at once; a point mixes its variants, layer by layer.

The network is converted once for each place of an option: variant ``k`` gives every variable its option ``k``
(of fewer options, modulo their number). All quantizers are started on what the float network gives, so each
depends on its own format alone, and a point's network consists of layers that are there already: no tracing,
no conversion and no calibration per point.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from qhw.convert import convert
from qhw.layers import Normalize, QuantActivation, QuantAdd, QuantConcat
from qhw.layers.moves import Concat
from qhw.ptq.calibrated import Calibrated
from qhw.ptq.settings import PtqSettings
from qhw.quant_config import QuantConfig
from qhw.quantizers.base import Quantizer
from qhw.search.space import Kind, Point, Site, Space
from qhw.tracing import set_layer

CALIBRATION = 256
"""Samples that quantizers are started on."""


def sites_of(model: nn.Module, base: QuantConfig, example: Tensor) -> list[Site]:
    """The layers of a plain network whose formats can be chosen, in order."""
    module = convert(model, base, example)
    meets = _groups(module, (QuantAdd, QuantConcat, Concat))
    joins = _groups(module, (QuantConcat, Concat))
    found = []
    for node in module.graph.nodes:
        layer = _layer(module, node)
        if layer is None:
            continue
        if _has_weights(layer):
            found.append(Site(str(node.target), "weights"))
        if isinstance(getattr(layer, "result", None), Quantizer) and not _is_door(module, node):
            path = _site_path(node, layer)
            found.append(Site(path, "activations", meets.get(node), joins.get(node), _is_last(node)))
    return list(dict.fromkeys(found))


class Variants:
    """A trained network in all formats of a space.

    Args:
        model: the float network, trained; left as it was.
        space: the formats.
        samples: what quantizers are started on, (N, ...), as the network takes them.

    Raises:
        UnsupportedError: a layer that cannot be converted, or not to one of the formats.
    """

    def __init__(self, model: nn.Module, space: Space, samples: Tensor) -> None:
        self.model, self.space, self.samples = model.eval(), space, samples
        calibrated = self._calibrated(())
        self.modules = [calibrated.quantised(space.config(point)) for point in self.points]
        self.base = self.modules[0]
        self._choices = self._variables_of_nodes()

    @cached_property
    def points(self) -> list[Point]:
        """The point of each variant."""
        counts = self.space.counts
        return [tuple(int(k % count) for count in counts) for k in range(int(counts.max()))]

    @property
    def nodes(self) -> list[fx.Node]:
        """The calls of the network, in order."""
        return list(self.base.graph.nodes)

    def module(
        self, point: Point, layer: Callable[[fx.Node, Point], nn.Module] | None = None
    ) -> fx.GraphModule:
        """The quantised network of a point, a copy: to be exported or trained.

        Args:
            layer: the layer of a node at a point, if it is not the variant's own.
        """
        mixed, layer = copy.deepcopy(self.base), layer or self.layer
        for node in self.base.graph.nodes:
            if node.op == "call_module" and (found := layer(node, point)) is not self.base.get_submodule(
                str(node.target)
            ):
                set_layer(mixed, str(node.target), copy.deepcopy(found))
        return fx.GraphModule(mixed, mixed.graph, type(self.base).__name__)  # a copy has lost its name

    def quantised(self, point: Point, methods: Sequence[str]) -> fx.GraphModule:
        """The network of a point, quantised by methods of :mod:`qhw.ptq`, which see the whole of it."""
        return self._calibrated(methods).quantised(self.space.config(point))

    def _calibrated(self, methods: Sequence[str]) -> Calibrated:
        # The space's configuration says how samples come in.
        return Calibrated(self.model, self.samples, PtqSettings(methods), pixels=True)

    def variant(self, node: fx.Node, point: Point) -> int:
        """The variant whose layer a node has at a point."""
        return next((point[index] for index in self._choices[node]), 0)

    def layer(self, node: fx.Node, point: Point) -> nn.Module:
        """The layer of a node at a point."""
        return self.modules[self.variant(node, point)].get_submodule(str(node.target))

    def variables(self, node: fx.Node) -> tuple[int, ...]:
        """The places of the variables that choose a node's own layer: one, or none."""
        return self._choices[node]

    def sources(self) -> dict[tuple[str, Kind], int]:
        """The variable of each layer of the exported file, by its name there and the kind of its format."""
        found: dict[tuple[str, Kind], int] = {}
        for node, places in self._choices.items():
            for place in places:
                kind = self.space.variables[place].kind
                name = str(node.target) if kind == "weights" else str(node.meta["path"])
                found[name, kind] = place
        return found

    def _variables_of_nodes(self) -> dict[fx.Node, tuple[int, ...]]:
        owners: dict[tuple[str, Kind], int] = {
            (path, variable.kind): index
            for index, variable in enumerate(self.space.variables)
            for path in variable.layers
        }
        choices: dict[fx.Node, tuple[int, ...]] = {}
        for node in self.base.graph.nodes:
            layer, found = _layer(self.base, node), []
            if layer is not None and _has_weights(layer):
                found.append(owners.get((str(node.target), "weights")))
            if layer is not None and isinstance(getattr(layer, "result", None), Quantizer):
                found.append(owners.get((_site_path(node, layer), "activations")))
            choices[node] = tuple(index for index in found if index is not None)
        return choices


class PrefixCache:
    """The results of layers on one batch, by the formats that they depend on; the least used are dropped.

    Changing the formats of layer k runs nothing in front of it.

    Args:
        samples: the batch, (N, ...).
        limit_bytes: of all results that are kept.
        layer: the layer of a node at a point, if it is not the variant's own: one that depends on the node's
            ``dependencies`` alone.
    """

    def __init__(
        self,
        variants: Variants,
        samples: Tensor,
        limit_bytes: int = 1 << 30,
        layer: Callable[[fx.Node, Point], nn.Module] | None = None,
    ) -> None:
        self.variants, self.samples, self.limit = variants, samples, limit_bytes
        self._layer = layer or variants.layer
        self.depends = dependencies(variants)
        self._known: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._bytes = 0
        self.computed = 0
        """Layers that were run so far."""

    def outputs(self, point: Point) -> NDArray[np.float32]:
        """The network's outputs at a point, (N, ...)."""
        output = next(node for node in self.variants.nodes if node.op == "output")
        return np.asarray(self.value(output.all_input_nodes[0], point).numpy())

    def value(self, node: fx.Node, point: Point) -> Tensor:
        """A node's result at a point, (N, ...)."""
        with torch.inference_mode():
            return self._value(node, point, {})

    def _value(self, node: fx.Node, point: Point, here: dict[fx.Node, Tensor]) -> Tensor:
        """The value of a node; only what is not known is run, without recursion into long chains twice."""
        if node.op == "placeholder":
            return self.samples
        if node in here:
            return here[node]
        key = (node.name, tuple(point[index] for index in self.depends[node]))
        if key in self._known:
            self._known.move_to_end(key)
            here[node] = self._known[key]
            return here[node]
        arguments = fx.node.map_arg(node.args, lambda source: self._value(source, point, here))
        named = fx.node.map_arg(node.kwargs, lambda source: self._value(source, point, here))
        value: Tensor = self._run(node, point, arguments, named)
        self.computed += 1
        here[node] = value
        self._keep(key, value)
        return value

    def _run(self, node: fx.Node, point: Point, arguments: Any, named: Any) -> Any:
        if node.op == "call_module":
            return self._layer(node, point)(*arguments, **named)
        if node.op == "call_method":
            first, *rest = arguments
            return getattr(first, str(node.target))(*rest, **named)
        return node.target(*arguments, **named)  # type: ignore[operator]

    def _keep(self, key: Hashable, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            return
        self._known[key] = value
        self._bytes += value.nbytes
        while self._bytes > self.limit and len(self._known) > 1:
            _, dropped = self._known.popitem(last=False)
            self._bytes -= dropped.nbytes


def dependencies(variants: Variants) -> dict[fx.Node, tuple[int, ...]]:
    """The variables that each node's value depends on, of a layer's first call included."""
    found: dict[fx.Node, tuple[int, ...]] = {}
    for node, first in first_calls(variants).items():
        own = {*variants.variables(node)} if node.op == "call_module" else set()
        sources = [*node.all_input_nodes, *([first] if first is not node else [])]
        found[node] = tuple(sorted(own.union(*(found[source] for source in sources))))
    return found


def first_calls(variants: Variants) -> dict[fx.Node, fx.Node]:
    """For each node, the first one that calls the same layer; others stand for themselves."""
    firsts: dict[object, fx.Node] = {}
    return {
        node: firsts.setdefault(node.target if node.op == "call_module" else node, node)
        for node in variants.nodes
    }


def _site_path(node: fx.Node, layer: nn.Module) -> str:
    """The path by which a configuration names the format of a node's result."""
    path = str(node.meta["path"])
    inserted = isinstance(layer, QuantActivation) and path.endswith("_result")
    return str(node.all_input_nodes[0].meta["path"]) if inserted else path


def _layer(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _has_weights(layer: nn.Module) -> bool:
    return getattr(layer, "weight_quant", None) is not None


def _is_door(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a quantizer is that of the network's input."""
    source = node.all_input_nodes[0]
    layer = _layer(module, source)
    return source.op == "placeholder" or isinstance(layer, Normalize)


def _is_last(node: fx.Node) -> bool:
    return all(user.op == "output" for user in node.users)


def _groups(module: fx.GraphModule, kinds: tuple[type[nn.Module], ...]) -> dict[fx.Node, int]:
    """The number of the group of results that meet in layers of some kinds, by their nodes."""
    groups: list[set[fx.Node]] = []
    for node in module.graph.nodes:
        layer = _layer(module, node)
        if not isinstance(layer, kinds):
            continue
        members = {_quantised(module, source) for source in node.all_input_nodes}
        touched = [group for group in groups if group & members]
        groups = [group for group in groups if group not in touched] + [members.union(*touched)]
    return {node: number for number, group in enumerate(groups) for node in group}


def _quantised(module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The node whose quantizer gave a tensor its format: moves between are passed."""
    layer = _layer(module, node)
    while (
        layer is not None
        and not isinstance(getattr(layer, "result", None), Quantizer)
        and node.all_input_nodes
    ):
        node = node.all_input_nodes[0]
        layer = _layer(module, node)
    return node
