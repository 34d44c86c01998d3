"""A plain ``nn.Module`` as a graph of layers: functions become modules, every node has a path and a shape."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812

from qhw.errors import InputError, UnsupportedError
from qhw.layers import Normalize

Example = Tensor | Sequence[int]

LAYERS: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Identity,
    Normalize,
)
SUPPORTED = f"{', '.join(layer.__name__ for layer in LAYERS)}; additions, concatenation, flatten and reshape"
"""What a model may be made of, for messages."""

HINTS = {
    "Softmax": "leave it out of the model: the largest logit stays the largest",
    "LogSoftmax": "leave it out of the model: the largest logit stays the largest",
    "softmax": "leave it out of the model: the largest logit stays the largest",
    "log_softmax": "leave it out of the model: the largest logit stays the largest",
    "Hardtanh": "use ReLU6",
    "ConvTranspose2d": "use nn.Conv2d",
    "GELU": "use ReLU",
    "SiLU": "use ReLU",
    "sub": "scale inputs with qhw.layers.Normalize, the model's first layer",
    "mul": "scale inputs with qhw.layers.Normalize, the model's first layer",
    "truediv": "scale inputs with qhw.layers.Normalize, the model's first layer",
}


class Reshape(nn.Module):
    """Another shape for every sample; the batch axis stays."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)

    def extra_repr(self) -> str:
        return str(self.shape)


class Add(nn.Module):
    """The sum of two tensors of one shape."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Concat(nn.Module):
    """Tensors joined along an axis (the batch is axis 0)."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


def trace(model: nn.Module, example: Example) -> fx.GraphModule:
    """The model, copied, as a graph whose nodes are all calls of supported layers.

    Every node but the output has ``meta["path"]``, its layer's unique path, and ``meta["shape"]``, the
    shape of its result without the batch axis. Dropout and identities are left out where they do nothing.

    Args:
        model: a module with one tensor argument and one tensor result.
        example: an input with its batch axis, or the shape of one input without it.

    Raises:
        InputError: the model does not run on the example, or holds NaN or infinite numbers.
        UnsupportedError: it holds something that cannot be converted; the message names its path.
    """
    check_finite(model)
    _check_plain(model)
    module = graph_of(model, example)
    for node in module.graph.nodes:
        _check(module, node)
    return module


def graph_of(model: nn.Module, example: Example, leaves: tuple[str, ...] = ()) -> fx.GraphModule:
    """As :func:`trace`, for layers of any kind: nothing is checked but that the model can be traced and run.

    Args:
        leaves: packages whose modules are layers too, beside torch's own.
    """
    module = _symbolic(copy.deepcopy(model).eval(), leaves)
    inputs = example_input(example)
    _propagate_shapes(module, inputs)
    for node in list(module.graph.nodes):
        _to_layer(module, node, len(inputs))
    module.graph.eliminate_dead_code()
    _name_calls(module)
    module.delete_all_unused_submodules()
    module.recompile()
    return module


def example_input(example: Example) -> Tensor:
    """A batch for finding shapes: the tensor itself, or zeros of such samples."""
    return example if isinstance(example, Tensor) else torch.zeros(2, *example)


def check_finite(model: nn.Module) -> None:
    """Refuse NaN and infinite numbers in parameters and buffers.

    Raises:
        InputError: naming the tensor, and how many there are.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        bad = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
        if bad:
            raise InputError(
                f"{bad} of {tensor.numel()} numbers in {name} are NaN or infinite",
                hint="load other weights, or train again with a lower learning rate",
            )


def _check_plain(model: nn.Module) -> None:
    for path, part in model.named_modules():
        if type(part).__module__.startswith(("brevitas.", "qhw.quantizers.")):
            raise InputError(
                f"the model is quantised already: {path or 'it'} is a {type(part).__name__}",
                hint="train and export it as it is, or convert the plain model",
            )


def layer_of(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The layer that a node calls; None for inputs and outputs."""
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def set_layer(module: fx.GraphModule, path: str, layer: nn.Module) -> None:
    """Put a layer at a path, making the modules on the way as needed."""
    module.add_submodule(path, layer)


class _Tracer(fx.Tracer):
    def __init__(self, leaves: tuple[str, ...]) -> None:
        super().__init__()
        self.leaves = tuple(f"{package}." for package in leaves)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = type(m) in LAYERS or (type(m).__module__ + ".").startswith(self.leaves)
        return own or super().is_leaf_module(m, module_qualified_name)


def _symbolic(model: nn.Module, leaves: tuple[str, ...]) -> fx.GraphModule:
    try:
        return fx.GraphModule(model, _Tracer(leaves).trace(model), type(model).__name__)
    except Exception as error:  # whatever the user's forward() raises on symbolic values
        raise UnsupportedError(
            f"the forward() of {type(model).__name__} cannot be traced: {error}",
            hint="its control flow must not depend on the values of tensors (torch.fx's rule)",
        ) from error


def _propagate_shapes(module: fx.GraphModule, inputs: Tensor) -> None:
    names = [node.name for node in module.graph.nodes if node.op == "placeholder"]
    if len(names) != 1:
        raise UnsupportedError(
            f"the model takes {len(names)} inputs ({', '.join(names)})", allowed="one tensor"
        )
    try:
        with torch.no_grad():
            _Shapes(module).run(inputs.to(_dtype(module)))
    except Exception as error:  # whatever the model raises on a wrong shape
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"the model does not run on an input of shape {tuple(inputs.shape)}: {reason}",
            hint="give an example input (with a batch axis) that the model accepts",
        ) from error


class _Shapes(fx.Interpreter):
    """Notes the shape of every tensor, the batch axis included; None for what is no tensor."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, Tensor) else None
        return result


def _dtype(module: nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


# --- functions and methods become layers -------------------------------------------------------------------

Build = Callable[[dict[str, Any]], nn.Module]


def _module(kind: Callable[..., nn.Module], *names: str) -> tuple[tuple[str, ...], Build]:
    """A layer whose constructor takes the function's arguments, but those that only say how to compute."""
    return names, lambda given: kind(**{k: v for k, v in given.items() if k not in ("training", "inplace")})


_MAX_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVG_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_RELU = _module(nn.ReLU, "inplace")

FUNCTIONS: Mapping[Any, tuple[tuple[str, ...], Build]] = {
    F.relu: _RELU,
    torch.relu: _RELU,
    torch.relu_: _RELU,
    "relu": _RELU,
    "relu_": _RELU,
    F.relu6: _module(nn.ReLU6, "inplace"),
    F.leaky_relu: _module(nn.LeakyReLU, "negative_slope", "inplace"),
    F.dropout: _module(nn.Dropout, "p", "training", "inplace"),
    F.max_pool1d: _module(nn.MaxPool1d, *_MAX_POOL),
    F.max_pool2d: _module(nn.MaxPool2d, *_MAX_POOL),
    torch.max_pool1d: _module(nn.MaxPool1d, *_MAX_POOL[:-1]),
    torch.max_pool2d: _module(nn.MaxPool2d, *_MAX_POOL[:-1]),
    F.avg_pool1d: _module(nn.AvgPool1d, *_AVG_POOL[:-1]),
    F.avg_pool2d: _module(nn.AvgPool2d, *_AVG_POOL),
    F.adaptive_avg_pool1d: _module(nn.AdaptiveAvgPool1d, "output_size"),
    F.adaptive_avg_pool2d: _module(nn.AdaptiveAvgPool2d, "output_size"),
}
"""Functions and methods that a layer stands for, with the names of their arguments after the tensor."""

ADDITIONS: set[Any] = {operator.add, operator.iadd, torch.add, "add", "add_"}
CONCATENATIONS: set[Any] = {torch.cat, torch.concat, torch.concatenate}
RESHAPES: set[Any] = {torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze}
RESHAPES |= {"flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous"}
MEANS: set[Any] = {torch.mean, "mean"}
SIZES: set[Any] = {"size", getattr, operator.getitem}
"""How models ask for shapes; nothing is left of it once the reshapes know theirs."""


def _to_layer(module: fx.GraphModule, node: fx.Node, batch: int) -> None:
    if node.op == "call_module":
        node.args, node.kwargs = (*node.args, *node.kwargs.values()), {}
    if node.op not in ("call_function", "call_method"):
        return
    target: Any = node.target
    if target in FUNCTIONS:
        names, build = FUNCTIONS[target]
        given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
        given.pop("input", None)
        _replace(module, node, build(given), (_first(node),))
    elif target in ADDITIONS:
        _replace(module, node, Add(), _addends(module, node))
    elif target in CONCATENATIONS:
        _replace(module, node, Concat(_concat_axis(node)), tuple(_first(node)))
    elif target in RESHAPES:
        _replace(module, node, Reshape(_kept_batch(node, batch)), (_first(node),))
    elif target in MEANS:
        _replace_mean(module, node)
    elif target not in SIZES or node.meta["shape"] is not None:
        raise _unsupported(_place(node), _label(target))


def _first(node: fx.Node) -> Any:
    return node.args[0] if node.args else next(iter(node.kwargs.values()))


def _argument(node: fx.Node, position: int, default: Any, *names: str) -> Any:
    """A call's argument, given by position or by any of its names."""
    if len(node.args) > position:
        return node.args[position]
    return next((node.kwargs[name] for name in names if name in node.kwargs), default)


def _replace(module: fx.GraphModule, node: fx.Node, layer: nn.Module, args: tuple[Any, ...]) -> fx.Node:
    path = free_path(module, _join(_scope(node), _label(node.target)))
    set_layer(module, path, layer)
    with module.graph.inserting_after(node):
        call = module.graph.call_module(path, args)
    call.meta = {"shape": node.meta["shape"]}
    node.replace_all_uses_with(call)
    module.graph.erase_node(node)
    return call


def _addends(module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, fx.Node]:
    operands: tuple[Any, ...] = (_argument(node, 0, None, "input"), _argument(node, 1, None, "other"))
    shapes = [o.meta["shape"] if isinstance(o, fx.Node) and o.op != "get_attr" else None for o in operands]
    if None in shapes or node.kwargs.get("alpha", 1) != 1:
        raise UnsupportedError(
            f"{_place(node)}: an addition of a constant", allowed="the sum of two activations"
        )
    if shapes[0] != shapes[1]:
        raise UnsupportedError(
            f"{_place(node)}: an addition of shapes {shapes[0]} and {shapes[1]}",
            allowed="two tensors of one shape",
        )
    first, second = operands
    return first, second


def _concat_axis(node: fx.Node) -> int:
    axis = int(_argument(node, 1, 0, "dim", "axis"))
    rank = len(node.meta["shape"])
    if axis % rank == 0:
        raise UnsupportedError(f"{_place(node)}: a concatenation along the batch", allowed="axis 1 and up")
    return axis % rank


def _kept_batch(node: fx.Node, batch: int) -> tuple[int, ...]:
    shape = node.meta["shape"]
    if shape is None or len(shape) < 2 or shape[0] != batch:
        raise UnsupportedError(
            f"{_place(node)}: a reshape to {shape} that does not keep the batch axis",
            hint="use flatten(1), or reshape(x.shape[0], …)",
        )
    return tuple(shape[1:])


def _replace_mean(module: fx.GraphModule, node: fx.Node) -> None:
    """A mean over every spatial axis is a global average pool."""
    source = _first(node)
    shape = source.meta["shape"]
    axes = _argument(node, 1, (), "dim")
    axes = (axes,) if isinstance(axes, int) else tuple(axes or ())
    keep = _argument(node, 2, False, "keepdim")
    if {axis % len(shape) for axis in axes} != set(range(2, len(shape))) or len(shape) not in (3, 4):
        raise UnsupportedError(
            f"{_place(node)}: a mean over axes {axes}", allowed="a mean over all spatial axes"
        )
    pool = nn.AdaptiveAvgPool1d(1) if len(shape) == 3 else nn.AdaptiveAvgPool2d(1)
    call = _replace(module, node, pool, (source,))
    call.meta["shape"] = (*shape[:2], *[1] * (len(shape) - 2))
    if not keep:
        path = free_path(module, f"{call.target}_flatten")
        set_layer(module, path, Reshape(shape[1:2]))
        with module.graph.inserting_after(call):
            flat = module.graph.call_module(path, (call,))
        flat.meta = {"shape": shape[:2]}
        call.replace_all_uses_with(flat, delete_user_cb=lambda user: user is not flat)


def free_path(module: nn.Module, wanted: str) -> str:
    """The wanted path, or the first numbered one that no submodule has."""
    taken = {path for path, _ in module.named_modules()}
    return next(path for path in numbered(wanted) if path not in taken)


def numbered(name: str) -> Iterator[str]:
    """A name, and what it becomes where it is taken: ``relu``, ``relu_1``, ``relu_2``…"""
    yield name
    number = 1
    while True:
        yield f"{name}_{number}"
        number += 1


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _scope(node: fx.Node) -> str:
    """The path of the module whose forward() made the call."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(next(reversed(stack.values()))[0]) if stack else ""


def _label(target: Any) -> str:
    label = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return {"iadd": "add", "add_": "add", "cat": "concat", "fn": "pool", "relu_": "relu"}.get(label, label)


def _place(node: fx.Node) -> str:
    if node.op == "call_module":
        return f"layer {node.target}"
    return f"module {_scope(node) or '(the model itself)'}, {_label(node.target)}"


# --- every call gets a path of its own, and is checked ------------------------------------------------------


def _name_calls(module: fx.GraphModule) -> None:
    """A layer's first call has the layer's path, further calls have numbered ones."""
    taken = {path for path, _ in module.named_modules()}
    called: set[str] = set()
    for node in module.graph.nodes:
        wanted = str(node.target) if node.op == "call_module" else node.name
        if node.op != "output":
            first = node.op == "call_module" and wanted not in called
            node.meta["path"] = wanted if first else next(p for p in numbered(wanted) if p not in taken)
            called.add(wanted)
            taken.add(node.meta["path"])
        if node.meta.get("shape") is not None:
            node.meta["shape"] = node.meta["shape"][1:]


def _check(module: fx.GraphModule, node: fx.Node) -> None:
    if node.op == "output":
        if not isinstance(node.args[0], fx.Node):
            raise UnsupportedError("the model returns more than one tensor", allowed="one tensor")
        return
    if node.op == "placeholder":
        return
    layer = layer_of(module, node)
    if layer is None or type(layer) not in (*LAYERS, Reshape, Add, Concat):
        raise _unsupported(_place(node), type(layer).__name__ if layer is not None else str(node.target))
    problem = _problem(layer, node)
    if problem:
        raise UnsupportedError(
            f"layer {node.target} ({type(layer).__name__}): {problem[0]}", allowed=problem[1]
        )


def _unsupported(place: str, kind: str) -> UnsupportedError:
    return UnsupportedError(f"{place}: {kind} cannot be converted", allowed=SUPPORTED, hint=HINTS.get(kind))


def _problem(layer: nn.Module, node: fx.Node) -> tuple[str, str] | None:
    """What stands in the way of converting a layer of a supported kind, and what would be accepted."""
    shape = node.all_input_nodes[0].meta["shape"]
    match layer:
        case nn.Conv1d() | nn.Conv2d() if layer.padding_mode != "zeros":
            return f"padding mode {layer.padding_mode!r}", "padding with zeros"
        case nn.Conv1d() | nn.Conv2d() if conv_padding(layer) is None:
            return "padding='same' with an even kernel", "the same padding on both sides"
        case Normalize() if node.all_input_nodes[0].op != "placeholder":
            return "not at the model's input", "Normalize as the first layer"
        case nn.BatchNorm1d() | nn.BatchNorm2d() if not layer.track_running_stats:
            return "no running statistics", "track_running_stats=True"
        case nn.MaxPool1d() | nn.MaxPool2d() if layer.return_indices:
            return "return_indices", "the maxima alone"
        case nn.MaxPool1d() | nn.MaxPool2d() | nn.AvgPool1d() | nn.AvgPool2d() if layer.ceil_mode:
            return "ceil_mode", "ceil_mode=False (pad the input instead)"
        case nn.AvgPool1d() | nn.AvgPool2d() if not layer.count_include_pad and any(as_tuple(layer.padding)):
            return "padding that is not counted", "count_include_pad=True, or no padding"
        case nn.AvgPool2d() if layer.divisor_override is not None:
            return "divisor_override", "the size of the window as the divisor"
        case nn.AdaptiveAvgPool1d() | nn.AdaptiveAvgPool2d():
            sizes = adaptive_sizes(layer.output_size, shape)
            if any(size % out for size, out in zip(shape[1:], sizes, strict=True)):
                return f"{shape[1:]} pixels into {sizes}", "an output size that divides the input's"
        case nn.Flatten() if layer.start_dim != 1 or layer.end_dim not in (-1, len(shape)):
            return f"axes {layer.start_dim} to {layer.end_dim}", "flatten all but the batch axis"
        case nn.LeakyReLU() if layer.negative_slope < 0:
            return f"slope {layer.negative_slope}", "a slope from 0 to 1"
    return None


def conv_padding(layer: nn.Conv1d | nn.Conv2d) -> tuple[int, ...] | None:
    """Zeros on both sides of each spatial axis; None where the two sides differ."""
    if layer.padding == "valid":
        return (0,) * len(layer.kernel_size)
    if layer.padding == "same":
        both = [step * (size - 1) for size, step in zip(layer.kernel_size, layer.dilation, strict=True)]
        return None if any(total % 2 for total in both) else tuple(total // 2 for total in both)
    return as_tuple(layer.padding, len(layer.kernel_size))


def adaptive_sizes(output_size: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The pixels that an adaptive pool makes of an input of that shape (channel first, no batch axis)."""
    sizes = as_tuple(output_size, len(shape) - 1)
    return tuple(size or whole for size, whole in zip(sizes, shape[1:], strict=True))


def as_tuple(value: Any, axes: int = 1) -> tuple[int, ...]:
    """One number for each spatial axis, from torch's "a number or a tuple"."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * axes
