"""A plain ``nn.Module`` becomes a quantised one, layer by layer; nobody rewrites a model.

Every tensor that a layer reads is in a format. A convolution or linear layer that only feeds a
batch norm or an activation keeps its exact sum; every other result is brought into a format of its own,
together with the activation that follows. Branches that meet in a concatenation share one quantizer, and
those that meet in an addition one scale, where it is free.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from brevitas import nn as qnn
from torch import fx, nn

from qhw.errors import UnsupportedError
from qhw.formats import Fixed, Format
from qhw.graph.tails.tail import TABLE_ENTRIES
from qhw.layers import (
    Normalize,
    QuantActivation,
    QuantAdaptiveAvgPool,
    QuantAdd,
    QuantAffine,
    QuantAvgPool1d,
    QuantAvgPool2d,
    QuantBatchNorm1d,
    QuantBatchNorm2d,
    QuantConcat,
    QuantFunction,
    QuantInterpolate,
    QuantMultiply,
    QuantPad,
    QuantPReLU,
    QuantSubtract,
    QuantTotal,
)
from qhw.layers.arithmetic import Add, Affine, Interpolate, MatMul, Multiply, Subtract, Total
from qhw.layers.functions import Function
from qhw.layers.moves import Concat, Largest, Pad, Permute, Repeat, Reshape, Slice
from qhw.quant_config import LayerFormats, QuantConfig, Scaling, unsigned_if_learned
from qhw.quantizers import (
    IDENTITY,
    RELU,
    RELU6,
    Activation,
    Quantizer,
    bias_quantizer,
    make_quantizer,
    name_quantizers,
    plain_tensors,
    weight_quantizer,
)
from qhw.tracing import (
    Example,
    adaptive_sizes,
    as_tuple,
    conv_padding,
    free_path,
    layer_of,
    set_layer,
    trace,
)

__all__ = ["LayerFormats", "QuantConfig", "convert", "convert_traced", "paths_of"]

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
SUMS = (*WEIGHTED, MatMul)
"""Layers whose exact sum may be read by what follows."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU)
POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
COMPUTED = (*POOLS, Add, Subtract, Multiply, Affine, Function, nn.PReLU, Interpolate, Total)
"""Layers that read quantised numbers, and whose result is brought into a format."""
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)
MOVES = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.Flatten, nn.PixelShuffle, nn.PixelUnshuffle),
    *(Concat, Largest, Permute, Repeat, Reshape, Slice),
    *DROPOUTS,
)
"""Layers that change no number: their result is in the format of their input."""


@dataclass(frozen=True)
class Site:
    """A result that is brought into a format: behind which activation, at which kind of scale."""

    spec: Format
    activation: Activation
    scaling: Scaling

    def quantizer(self, scaling: Scaling | None = None) -> Quantizer:
        """A quantizer of its own."""
        return make_quantizer(self.spec, activation=self.activation, axis=1, scaling=scaling or self.scaling)


def convert(model: nn.Module, config: QuantConfig, example: Example) -> fx.GraphModule:
    """The quantised form of a model: Brevitas layers and :mod:`qhw.layers`, ready to train or export.

    Args:
        model: a plain module with tensor arguments (N, …), one or several, and one tensor result; left as it
            is.
        config: the formats.
        example: an input with its batch axis, or the shape of one input without it; for several arguments,
            a sequence of them. Of its numbers only one thing is used: whether they are whole pixels (0..255).

    Raises:
        InputError: NaN or infinite weights, a shape the model does not accept, or an override that matches
            no layer.
        UnsupportedError: a layer that cannot be converted; the message names its path and what can.

    Example::

        quantised = convert(model, QuantConfig(weights="fixed<4>", activations="fixed<6>"), (1, 28, 28))
    """
    with torch.random.fork_rng(devices=[]):
        module = trace(model, example)
        config.check_patterns(paths_of(module))
        return convert_traced(module, config).train(model.training)


def paths_of(module: fx.GraphModule) -> list[str]:
    """The paths of a traced model's layers, which overrides are matched with."""
    return [path for node in module.graph.nodes if (path := node.meta.get("path"))]


def convert_traced(module: fx.GraphModule, config: QuantConfig) -> fx.GraphModule:
    """The second half of :func:`convert`: the quantised form of a traced model, in its place.

    Args:
        module: what :func:`qhw.tracing.trace` gives; it is changed, and returned.
        config: the formats; overrides are not checked.

    Raises:
        UnsupportedError: a layer that cannot be converted in these formats.
    """
    with torch.random.fork_rng(devices=[]):
        _erase_identities(module)
        config.check_inputs([str(node.target) for node in module.graph.nodes if node.op == "placeholder"])
        _Conversion(module, config).run()
    module.delete_all_unused_submodules()
    module.graph.lint()
    module.recompile()
    plain_tensors(module)
    name_quantizers(module)
    return module


class _Conversion:
    """One pass over the graph: decide where results are quantised, then put the layers in place."""

    def __init__(self, module: fx.GraphModule, config: QuantConfig) -> None:
        self.module, self.config = module, config
        self.nodes = list(module.graph.nodes)
        self.layers = {node: layer_of(module, node) for node in self.nodes}
        self.fused = self._fused_activations()
        self.sites: dict[fx.Node, Site] = {}
        for node in self.nodes:  # in order: whether a sum can be negative depends on what came before
            if self._is_site(node):
                self.sites[node] = self._site(node)
        self.quantizers: dict[fx.Node, Quantizer] = {}
        self.converted: set[str] = set()

    def run(self) -> None:
        self._join_branches()
        for node, site in self.sites.items():
            if site.scaling != "power_of_two":
                self.quantizers.setdefault(node, site.quantizer())
        self._join_scales()
        for node in self.nodes:
            if node not in self.fused:
                self._put(node)
        for activation, producer in self.fused.items():
            activation.replace_all_uses_with(producer)
            self.module.graph.erase_node(activation)

    # --- where results are quantised

    def _fused_activations(self) -> dict[fx.Node, fx.Node]:
        """Activations that run in the pass of the batch norm or addition before them."""
        fused = {}
        for node, layer in self.layers.items():
            source = node.all_input_nodes[0] if isinstance(layer, ACTIVATIONS) else None
            if (
                source is not None
                and len(source.users) == 1
                and isinstance(self.layers[source], (*NORMS, Add, Subtract))
            ):
                fused[node] = source
        return fused

    def _activation_of(self, node: fx.Node) -> fx.Node | None:
        """The activation whose format a node's result gets: itself, or the one fused into it."""
        if isinstance(self.layers[node], ACTIVATIONS):
            return node
        return next((user for user in node.users if self.fused.get(user) is node), None)

    def _is_site(self, node: fx.Node) -> bool:
        layer = self.layers[node]
        if node.op == "placeholder":
            return not all(isinstance(self.layers[user], Normalize) for user in node.users)
        if isinstance(layer, SUMS):
            readers = [self.layers[user] for user in node.users]
            return not (len(readers) == 1 and isinstance(readers[0], (*NORMS, *ACTIVATIONS)))
        if isinstance(layer, Pad):
            return layer.value != 0
        return node not in self.fused and isinstance(layer, (*NORMS, *ACTIVATIONS, *COMPUTED, Normalize))

    def _site(self, node: fx.Node) -> Site:
        activation = self._activation_of(node)
        paths = [node.meta["path"]] if activation is None else [node.meta["path"], activation.meta["path"]]
        formats = self.config.layer(*paths)
        function = IDENTITY if activation is None else _activation(self.layers[activation], formats)
        scaling = formats.scaling
        if isinstance(self.layers[node], Function):
            self._check_table(node)
        if node.op == "placeholder" or isinstance(self.layers[node], Normalize):
            return Site(self._input_format(node), function, scaling)
        given = self.config.result(*paths, last=self._only_output(activation or node))
        if self._never_negative(node, function):
            given = unsigned_if_learned(given)
        return Site(given, function, scaling)

    def _never_negative(self, node: fx.Node, function: Activation) -> bool:
        layer = self.layers[node]
        if function.slope == 0:
            return True
        if isinstance(layer, Function):
            return layer.function.non_negative
        if isinstance(layer, Affine) and not layer.keeps_sign:
            return False
        keeping = (*POOLS, Add, Multiply, Affine, Interpolate, Total, nn.PReLU)
        return isinstance(layer, keeping) and self._reads_unsigned(node)

    def _check_table(self, node: fx.Node) -> None:
        """A function is a table of its argument's codes: refuse wider ones before anything is trained."""
        for source in self._sources_of_inputs(node):
            site = self.sites.get(source)
            if site is not None and 1 << site.spec.width > TABLE_ENTRIES:
                raise UnsupportedError(
                    f"layer {node.meta['path']}: a function of numbers in {site.spec}",
                    allowed=f"up to {TABLE_ENTRIES.bit_length() - 1} bits, which a table holds",
                    hint=f"give {source.meta['path']} activations of fewer bits, by an override",
                )

    def _reads_unsigned(self, node: fx.Node) -> bool:
        sites = [self.sites.get(source) for source in self._sources_of_inputs(node)]
        return all(site is not None and not site.spec.signed for site in sites)

    def _concat_format(self, node: fx.Node) -> Format:
        given = self.config.result(node.meta["path"], last=self._only_output(node))
        return unsigned_if_learned(given) if self._reads_unsigned(node) else given

    def _input_format(self, node: fx.Node) -> Format:
        layer = self.layers[node]
        source = node if layer is None else node.all_input_nodes[0]
        if (stated := self.config.input(str(source.target))) is not None:
            return stated
        if isinstance(layer, Normalize):  # the grid of whole pixels, so that nothing is lost
            return Fixed(8, 8 + layer.exponent, signed=False)
        return Fixed(8, 8, signed=False) if source.meta["pixels"] else Fixed(8)

    def _only_output(self, node: fx.Node) -> bool:
        return all(
            user.op == "output" or (self._moves(user) and self._only_output(user)) for user in node.users
        )

    # --- branches that meet

    def _join_branches(self) -> None:
        """Give branches that meet in a concatenation one quantizer; where they cannot, the joined tensor."""
        groups: list[set[fx.Node]] = []
        for node, layer in self.layers.items():
            if isinstance(layer, Concat):
                group = self._sources_of_inputs(node)
                touched = [other for other in groups if other & group]
                group = group.union(*touched)
                if self._alike(group):
                    groups = [other for other in groups if other not in touched] + [group]
                else:
                    scaling = self.config.layer(node.meta["path"]).scaling
                    self.sites[node] = Site(self._concat_format(node), IDENTITY, scaling)
        for group in groups:
            self.quantizers |= dict.fromkeys(group, self.sites[next(iter(group))].quantizer())

    def _join_scales(self) -> None:
        """Give results that meet in an addition one free scale, or powers of two where one of them has to."""
        for group in self._groups_of_sums():
            members = [self.quantizers.get(node) for node in group]
            if all(quantizer is not None and quantizer.is_free for quantizer in members):
                first, *rest = dict.fromkeys(quantizer for quantizer in members if quantizer is not None)
                for quantizer in rest:
                    quantizer.share_scale(first)
            else:
                self._back_to_powers(quantizer for quantizer in members if quantizer is not None)

    def _groups_of_sums(self) -> list[list[fx.Node]]:
        """Results that meet in additions, in order: those that share one with another, in one group."""
        groups: list[set[fx.Node]] = []
        for node, layer in self.layers.items():
            if isinstance(layer, Add | Subtract):
                group = self._sources_of_inputs(node)
                touched = [other for other in groups if other & group]
                groups = [other for other in groups if other not in touched] + [group.union(*touched)]
        return [[node for node in self.nodes if node in group] for group in groups]

    def _back_to_powers(self, quantizers: Iterable[Quantizer]) -> None:
        """Powers of two for these quantizers, wherever they are used."""
        for quantizer in set(quantizers):
            users = [node for node, used in self.quantizers.items() if used is quantizer]
            self.quantizers |= dict.fromkeys(users, self.sites[users[0]].quantizer("power_of_two"))

    def _alike(self, nodes: set[fx.Node]) -> bool:
        sites = [self.sites[node] for node in nodes]
        kinds = {(str(site.spec), site.activation, site.scaling) for site in sites}
        return len(kinds) == 1 and not any(self._is_input(node) for node in nodes)

    def _sources(self, node: fx.Node) -> set[fx.Node]:
        """The nodes whose formats a node's result has."""
        if node in self.sites or not self._moves(node):
            return {self.fused.get(node, node)}
        return self._sources_of_inputs(node)

    def _moves(self, node: fx.Node) -> bool:
        layer = self.layers[node]
        return isinstance(layer, MOVES) or (isinstance(layer, Pad) and layer.value == 0)

    def _sources_of_inputs(self, node: fx.Node) -> set[fx.Node]:
        return set().union(*(self._sources(source) for source in node.all_input_nodes))

    def _is_input(self, node: fx.Node) -> bool:
        return node.op == "placeholder" or isinstance(self.layers[node], Normalize)

    # --- the layers themselves

    def _put(self, node: fx.Node) -> None:
        layer = self.layers[node]
        site = self.sites.get(node)
        formats = self.config.layer(node.meta.get("path", ""))
        result = None if site is None else self.quantizers.get(node, site.spec)
        if isinstance(layer, WEIGHTED) and node.target not in self.converted:
            set_layer(self.module, str(node.target), _sum_layer(layer, formats))
            self.converted.add(str(node.target))
        if site is None or result is None:
            return
        if isinstance(layer, SUMS) or self._is_input(node):
            self._insert_quantizer(node, result)
        else:
            quantised = _with_result(
                layer, node.all_input_nodes[0].meta["shape"], formats, result, site.activation
            )
            node.target = node.meta["path"]  # a module that is called twice has a result format for each call
            set_layer(self.module, node.meta["path"], quantised)

    def _insert_quantizer(self, node: fx.Node, result: Format | Quantizer) -> None:
        path = free_path(self.module, f"{node.meta['path']}_result")
        set_layer(self.module, path, QuantActivation(result))
        with self.module.graph.inserting_after(node):
            quantizer = self.module.graph.call_module(path, (node,))
        quantizer.meta = {"path": path, "shape": node.meta["shape"]}
        node.replace_all_uses_with(quantizer, delete_user_cb=lambda user: user is not quantizer)


def _erase_identities(module: fx.GraphModule) -> None:
    for node in list(module.graph.nodes):
        if isinstance(layer_of(module, node), nn.Identity):
            node.replace_all_uses_with(node.all_input_nodes[0])
            module.graph.erase_node(node)


def _activation(layer: nn.Module | None, formats: LayerFormats) -> Activation:
    """A ReLU, ReLU6 or leaky ReLU, whose slope is brought into the format of scales."""
    if isinstance(layer, nn.LeakyReLU):
        slope = torch.tensor([layer.negative_slope], dtype=torch.float64)
        return Activation(slope=float(make_quantizer(formats.scales).quantize(slope).detach()))
    return RELU6 if isinstance(layer, nn.ReLU6) else RELU


_QUANTISED = {
    nn.Conv1d: qnn.QuantConv1d,
    nn.Conv2d: qnn.QuantConv2d,
    nn.ConvTranspose1d: qnn.QuantConvTranspose1d,
    nn.ConvTranspose2d: qnn.QuantConvTranspose2d,
}


def _sum_layer(layer: Any, formats: LayerFormats) -> nn.Module:
    settings = {
        "bias": layer.bias is not None,
        "weight_quant": weight_quantizer(
            formats.weights, formats.per_channel, formats.scaling, _output_axis(layer)
        ),
        "bias_quant": None if layer.bias is None else bias_quantizer(formats.biases),
        "return_quant_tensor": False,
    }
    if isinstance(layer, nn.Linear):
        quantised = qnn.QuantLinear(layer.in_features, layer.out_features, **settings)
    else:
        geometry = {name: getattr(layer, name) for name in ("kernel_size", "stride", "dilation", "groups")}
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            geometry["padding"] = conv_padding(layer)
        else:
            geometry |= {"padding": layer.padding, "output_padding": layer.output_padding}
        quantised = _QUANTISED[type(layer)](layer.in_channels, layer.out_channels, **geometry, **settings)
    quantised = quantised.to(layer.weight.dtype)
    quantised.load_state_dict(layer.state_dict(), strict=False)
    for name, parameter in layer.named_parameters(recurse=False):
        getattr(quantised, name).requires_grad_(parameter.requires_grad)
    quantised.weight_quant.init_tensor_quant()
    if layer.bias is not None:
        quantised.bias_quant.init_tensor_quant()
    result: nn.Module = quantised
    return result


def _output_axis(layer: nn.Module) -> int:
    """The axis of a weight along which output channels lie: of a transposed convolution, those of a group."""
    if not isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):
        return 0
    return 0 if layer.groups > 1 and layer.weight.shape[1] == 1 else 1


def _with_result(
    layer: nn.Module | None,
    shape: tuple[int, ...],
    formats: LayerFormats,
    result: Format | Quantizer,
    activation: Activation,
) -> nn.Module:
    """The quantised form of a layer that has a format for its result, for inputs of ``shape``."""
    match layer:
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            kind = QuantBatchNorm1d if isinstance(layer, nn.BatchNorm1d) else QuantBatchNorm2d
            return kind.from_float(
                layer,
                scale=formats.scales,
                bias=formats.biases,
                result=result,
                activation=activation,
                per_channel=formats.per_channel,
            )
        case Add():
            return QuantAdd(result, activation)
        case Subtract():
            return QuantSubtract(result, activation)
        case Multiply():
            return QuantMultiply(result)
        case Affine():
            return QuantAffine(layer, scale=formats.scales, bias=formats.biases, result=result)
        case Function():
            return QuantFunction(layer.function, result)
        case nn.PReLU():
            return QuantPReLU(layer.weight, scale=formats.scales, result=result)
        case Total():
            return QuantTotal(layer.axes, mean=layer.mean, multiplier=formats.scales, result=result)
        case Interpolate():
            return QuantInterpolate(layer.factors, result=result)
        case Pad():
            return QuantPad(layer.before, layer.behind, layer.value, result=result)
        case Concat():
            return QuantConcat(result, layer.axis)
        case nn.AvgPool1d():
            window: tuple[Any, ...] = (layer.kernel_size, layer.stride, layer.padding)
            return QuantAvgPool1d(
                *(as_tuple(size, 1) for size in window), multiplier=formats.scales, result=result
            )
        case nn.AvgPool2d():
            window = (layer.kernel_size, layer.stride, layer.padding)
            return QuantAvgPool2d(
                *(as_tuple(size, 2) for size in window), multiplier=formats.scales, result=result
            )
        case nn.AdaptiveAvgPool1d() | nn.AdaptiveAvgPool2d():
            sizes = adaptive_sizes(layer.output_size, shape)
            return QuantAdaptiveAvgPool(sizes, multiplier=formats.scales, result=result)
    return QuantActivation(result, activation)
