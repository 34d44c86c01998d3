"""A plain ``nn.Module`` as a graph of layers: functions become modules, every node has a path and a shape."""

from __future__ import annotations

import copy
import inspect
import keyword
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import UninitializedBuffer, is_lazy
from torch.nn.utils import parametrize

from qhw.calls import (
    LAYERS,
    MODULES,
    OWN_LAYERS,
    free_path,
    label,
    numbered,
    place,
    set_layer,
    to_layers,
    unsupported,
)
from qhw.errors import InputError, QhwError, UnsupportedError
from qhw.layers import Normalize
from qhw.layers.preprocessed import Preprocessed

__all__ = [
    "Example",
    "adaptive_sizes",
    "arguments_of",
    "as_tuple",
    "check_finite",
    "check_runs",
    "conv_padding",
    "example_inputs",
    "free_path",
    "graph_of",
    "is_pixels",
    "layer_of",
    "numbered",
    "plain_module",
    "set_layer",
    "trace",
    "trainable",
]

Example = Tensor | Sequence[int] | Sequence[Tensor | Sequence[int]]
"""A batch, or the shape of one sample; for a network with several inputs one of them for each, in order."""

SAME = 1e-3
"""How far the layers' result may be from the model's own, relative to its largest number: float32's noise."""


def trace(model: nn.Module, example: Example) -> fx.GraphModule:
    """The model, copied, as a graph whose nodes are all calls of supported layers.

    Every node but the output has ``meta["path"]``, its layer's unique path, and ``meta["shape"]``, the
    shape of its result without the batch axis. Dropout and identities are left out where they do nothing.

    Args:
        model: a module with one or several tensor arguments and one tensor result.
        example: an input with its batch axis, or the shape of one input without it; of several, one for each.

    Raises:
        InputError: the model does not run on the example, or holds NaN or infinite numbers.
        UnsupportedError: it holds something that cannot be converted; the message names its path.
    """
    check_finite(model)
    _check_plain(model)
    module = graph_of(model, example, checked=True)
    for node in module.graph.nodes:
        _check(module, node)
    return module


def graph_of(
    model: nn.Module, example: Example, leaves: tuple[str, ...] = (), *, checked: bool = False
) -> fx.GraphModule:
    """As :func:`trace`, for layers of any kind: nothing is checked but that the model can be traced and run.

    Args:
        leaves: packages whose modules are layers too, beside torch's own.
        checked: refuse layers that cannot be converted, and what the layers would compute differently.
    """
    inputs = example_inputs(example)
    plain = plain_module(model, inputs).eval()
    tried = _tried_inputs(inputs, _dtype(plain))
    graph, wanted = _symbolic(plain, tried, leaves, checked)
    module = _graph_module(plain, graph)
    constants = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node, pixels in zip(placeholders, pixel_inputs(example), strict=True):
        node.meta["pixels"] = pixels
    to_layers(module, len(inputs[0]))
    module.graph.eliminate_dead_code()
    _drop_constants(module, constants)
    _name_calls(module)
    module.delete_all_unused_submodules()
    module.recompile()
    module.eval()
    if checked and isinstance(wanted, Tensor):
        _check_same(wanted, module, tried)
        more = tuple(torch.cat((part, part[:1])) for part in tried)
        _check_same(_tried(more, lambda: plain(*more)), module, more, "for batches of another size")
    return module


def plain_module(model: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
    """As :func:`trainable`, with the weights of parametrised layers computed: it can be traced."""
    copied = trainable(model, inputs)
    for module in list(copied.modules()):
        if parametrize.is_parametrized(module):
            _compute_parametrized(module)
    return copied


def _compute_parametrized(module: Any) -> None:
    """Plain parameters in place of parametrised ones; torch's own way changes a class that copies share."""
    computed = {
        name: nn.Parameter(
            getattr(module, name).detach().clone(), any(p.requires_grad for p in parametrization.parameters())
        )
        for name, parametrization in module.parametrizations.items()
    }
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, parameter in computed.items():
        module.register_parameter(name, parameter)


def check_runs(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Refuse inputs (each with a batch axis) that a model does not run on.

    Raises:
        InputError: naming their shapes.
    """
    names = arguments_of(model, len(inputs)) if len(inputs) > 1 else ()
    dtype = _dtype(model)
    _tried(
        inputs,
        lambda: copy.deepcopy(model).eval()(*(part.to(dtype) for part in inputs)),
        names if len(names) == len(inputs) else (),
    )


def trainable(model: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
    """A copy of a model whose lazy layers are made; numbers of 16 bits become float32, as quantizers need.

    Args:
        inputs: an example with its batch axis, of each input.

    Raises:
        InputError: the model does not run on the example.
        UnsupportedError: TorchScript, torch.ao's prepared modules, or weights that hooks compute.
    """
    _check_kind_of_model(model)
    model = _unwrapped(model)
    # torch copies parameters that are not initialised yet, but no such buffers.
    unknown = {
        id(buffer): UninitializedBuffer(device=buffer.device, dtype=buffer.dtype)  # type: ignore[call-arg]
        for buffer in model.buffers()
        if is_lazy(buffer)
    }
    try:
        copied = copy.deepcopy(model, unknown)
    except Exception as error:  # whatever a user's own attributes raise
        raise UnsupportedError(f"{type(model).__name__} cannot be copied: {_first_line(error)}") from error
    if any(is_lazy(parameter) for parameter in (*copied.parameters(), *copied.buffers())):
        with torch.random.fork_rng(devices=[]):  # the same weights every time
            torch.manual_seed(0)
            _tried(inputs, lambda: copied.eval()(*(part.float() for part in inputs)))
    if any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in copied.parameters()):
        copied = copied.float()
    return copied.train(model.training)


def _check_kind_of_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise InputError(f"the model is {kind}", allowed="a torch.nn.Module")
    for path, part in model.named_modules():
        kind, where = type(part), f"layer {path}" if path else "the model"
        if isinstance(part, torch.jit.ScriptModule):
            raise UnsupportedError(
                f"{where} is a TorchScript module, whose layers cannot be taken apart",
                hint="give the Python module that it was made from",
            )
        if kind.__module__.startswith("torch.ao."):
            raise UnsupportedError(
                f"{where} is a {kind.__name__} of torch.ao.quantization: the model is prepared or quantised "
                "already",
                hint="give the plain float model: qhw puts quantizers of its own in place and trains them",
            )
        for hook in part._forward_pre_hooks.values():
            if type(hook).__module__.startswith("torch.nn.utils."):
                kind_of = type(hook).__name__
                remove = {
                    "WeightNorm": "torch.nn.utils.remove_weight_norm(layer)",
                    "SpectralNorm": "torch.nn.utils.remove_spectral_norm(layer)",
                }.get(kind_of, "torch.nn.utils.prune.remove(layer, 'weight')")
                raise UnsupportedError(
                    f"{where}: its weight is computed by a hook ({kind_of}) in front of every call",
                    hint=f"make it a plain weight first: {remove}",
                )


def is_pixels(example: Tensor) -> bool:
    """Whether an example holds whole numbers of 0..255, and not just zeros and ones."""
    whole = bool((example == example.round()).all())
    return whole and float(example.min()) >= 0 and 1 < float(example.max()) <= 255


def example_inputs(example: Example) -> tuple[Tensor, ...]:
    """A batch of each input for finding shapes: the tensors themselves, or zeros of such samples.

    Raises:
        InputError: the batches are of different sizes.
    """
    inputs = tuple(
        given if isinstance(given, Tensor) else torch.zeros(2, *given) for given in _examples(example)
    )
    sizes = {len(part): tuple(part.shape) for part in inputs}
    if len(sizes) > 1:
        shapes = " and ".join(map(str, sizes.values()))
        raise InputError(f"the example inputs have shapes {shapes}", allowed="batches of one size")
    return inputs


def _examples(example: Example) -> list[Any]:
    """A tensor or a shape for each input."""
    if isinstance(example, Tensor) or not any(isinstance(part, Tensor | Sequence) for part in example):
        return [example]
    return list(example)


def pixel_inputs(example: Example) -> tuple[bool, ...]:
    """For each input of an example, whether it holds whole pixels; a shape does not say so."""
    return tuple(isinstance(given, Tensor) and is_pixels(given) for given in _examples(example))


def arguments_of(model: nn.Module, inputs: int) -> tuple[str, ...]:
    """The names of the arguments of forward() that so many inputs are for, and of any others that it needs.

    () where they cannot be known.
    """
    model = _unwrapped(model)
    if isinstance(model, Preprocessed):
        return model.preprocess_arguments
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return ()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = max([inputs, *(place + 1 for place, p in enumerate(positional) if p.default is p.empty)])
    return tuple(p.name for p in positional[:needed])


def _unwrapped(model: nn.Module) -> nn.Module:
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    return model.module if isinstance(model, nn.DataParallel) else model


def check_finite(model: nn.Module) -> None:
    """Refuse NaN and infinite numbers in parameters and buffers.

    Raises:
        InputError: naming the tensor, and how many there are.
    """
    _check_kind_of_model(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        bad = (
            int((~torch.isfinite(tensor)).sum()) if not is_lazy(tensor) and tensor.is_floating_point() else 0
        )
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


class _Tracer(fx.Tracer):
    """Records calls, and runs each at once on an example: shapes are numbers that forward() may depend on.

    Notes on each node the shape of its result, batch axis included (None for what is no tensor); those of
    several results (``parts``); and what does not depend on the inputs (``constant``).

    Args:
        examples: the inputs, by the names of the arguments.
        defaults: of the arguments behind them.
        leaves: packages whose modules are layers, beside torch's own.
        checked: refuse layers that cannot be converted, before they run.
    """

    def __init__(
        self,
        examples: Mapping[str, Tensor],
        defaults: Mapping[str, Any],
        leaves: tuple[str, ...],
        checked: bool,
    ) -> None:
        super().__init__()
        self.examples, self.defaults, self.checked = examples, defaults, checked
        self.leaves = tuple(f"{package}." for package in leaves)
        self.values: dict[fx.Node, Any] = {}
        self.read: dict[fx.Node, set[str]] = {}
        self.is_running = False

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        if isinstance(self.root, Preprocessed):
            # Its own forward() takes any number; the arguments are the network's.
            inputs = [self.create_proxy("placeholder", name, (), {}) for name in self.examples]
            return root_fn, [self.root, *inputs]
        return super().create_args_for_root(root_fn, is_module, concrete_args)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = type(m) in MODULES or (type(m).__module__ + ".").startswith(self.leaves)
        return own or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.is_running:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.is_running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Valued(node, self)

    def create_node(self, kind: str, target: Any, *rest: Any, **options: Any) -> fx.Node:
        node = super().create_node(kind, target, *rest, **options)
        module = self.root.get_submodule(target) if kind == "call_module" else None
        if self.checked and module is not None and type(module) not in MODULES:
            raise unsupported(node, type(module).__name__)
        self.read[node] = set().union(*(self.read[source] for source in node.all_input_nodes))
        self.is_running = True
        try:
            self.values[node] = self._value(node, module)
        finally:
            self.is_running = False
        self._note(node)
        return node

    def _value(self, node: fx.Node, module: nn.Module | None) -> Any:
        """What a node gives for the example."""
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.values.__getitem__)
        target: Any = node.target
        match node.op:
            case "placeholder":
                if target in self.examples:
                    self.read[node] = {target}
                    return self.examples[target]
                return self.defaults.get(str(target).removesuffix("_1"))
            case "get_attr":
                owner, _, name = target.rpartition(".")
                return getattr(self.root.get_submodule(owner), name)
            case "output":
                return args[0]
            case "call_method":
                return self._tried(node, lambda: getattr(args[0], target)(*args[1:], **kwargs))
        return self._tried(node, lambda: (module or target)(*args, **kwargs))

    def _tried(self, node: fx.Node, call: Callable[[], Any]) -> Any:
        """What a call gives; a message about it names the arguments that it depends on."""
        read = self.read[node] or self.examples.keys()
        names = [name for name in self.examples if name in read] if len(self.examples) > 1 else []
        return _tried([x for name, x in self.examples.items() if name in read], call, names)

    def _note(self, node: fx.Node) -> None:
        value, sources = self.values[node], node.all_input_nodes
        node.meta["shape"] = tuple(value.shape) if isinstance(value, Tensor) else None
        if isinstance(value, Tensor):
            node.meta["floating"] = value.is_floating_point()
        elif isinstance(value, tuple | list) and any(isinstance(part, Tensor) for part in value):
            node.meta["parts"] = [tuple(part.shape) for part in value if isinstance(part, Tensor)]
        if node.op == "get_attr":
            node.meta["constant"] = value
        elif node.op in ("call_function", "call_method") and all("constant" in s.meta for s in sources):
            trained = any(source.meta["constant"].requires_grad for source in sources)
            node.meta["constant"] = nn.Parameter(value.detach().clone()) if trained else value


def _tried(inputs: Sequence[Tensor], call: Callable[[], Any], names: Sequence[str] = ()) -> Any:
    """What a call gives.

    Args:
        names: the arguments that the inputs are for, where there are several.

    Raises:
        InputError: whatever it raises.
    """
    try:
        with torch.no_grad():
            return call()
    except Exception as error:  # whatever the model raises on a wrong shape
        shapes = [str(tuple(part.shape)) for part in inputs]
        told = "an input of shape " if len(inputs) == 1 else "inputs of shapes "
        if names:
            told = f"argument{'s' * (len(names) > 1)} "
            shapes = [f"'{name}' of shape {shape}" for name, shape in zip(names, shapes, strict=True)]
        raise InputError(
            f"the model does not run on {told}{' and '.join(shapes)}: {_first_line(error)}"
            f"{_users_line(error)}",
            hint="give data, or an example with a batch axis, of the shape that the model takes"
            if len(inputs) == 1 and not names
            else "give inputs (each with a batch axis) in the order of the model's arguments, or name them",
        ) from error


class _Valued(fx.Proxy):
    """A value that is recorded, and whose shape and number of parts are known."""

    tracer: _Tracer

    @property
    def known(self) -> Any:
        return self.tracer.values.get(self.node)

    def __getattr__(self, name: str) -> Any:
        if name in FACTS and isinstance(self.known, Tensor):
            return getattr(self.known, name)
        return super().__getattr__(name)

    def __len__(self) -> int:
        return len(self.known)

    def __iter__(self) -> Iterator[Any]:
        return iter([self[index] for index in range(len(self.known))])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.known, tuple | list) and isinstance(index, slice):
            return tuple(self[place] for place in range(len(self.known))[index])
        return super().__getitem__(index)  # type: ignore[misc]


FACTS = frozenset({"shape", "ndim", "dtype", "device", "size", "dim", "ndimension", "numel", "nelement"}) | {
    "is_floating_point",
    "is_contiguous",
    "stride",
    "requires_grad",
    "is_cuda",
}
"""What forward() may ask a tensor, and get an answer that is the same for every input."""


def _symbolic(
    model: nn.Module, inputs: Sequence[Tensor], leaves: tuple[str, ...], checked: bool
) -> tuple[fx.Graph, Any]:
    """The calls of a model, and what it gives for the example."""
    name = type(model).__name__
    if getattr(type(model), "forward", nn.Module.forward) is nn.Module.forward and not hasattr(
        model, "graph"
    ):
        raise InputError(f"{name} has no forward()", hint="define forward(self, x) in the model's class")
    named = model.preprocessed_network if isinstance(model, Preprocessed) else model
    names = arguments_of(model, len(inputs))
    _check_arguments(named, names, len(inputs))
    defaults = {} if isinstance(model, Preprocessed) else _defaults(model, names)
    tracer = _Tracer(dict(zip(names, inputs, strict=True)), defaults, leaves, checked)
    try:
        graph = tracer.trace(model, concrete_args=defaults)
    except QhwError:
        raise
    except Exception as error:  # whatever the user's forward() raises on symbolic values
        raise UnsupportedError(
            f"the forward() of {name} cannot be traced: {_first_line(error)}{_users_line(error)}",
            hint=_remedy(error),
        ) from error
    _drop_defaults(graph, defaults)
    return graph, tracer.values[next(node for node in graph.nodes if node.op == "output")]


def _remedy(error: Exception) -> str:
    if "item assignment" in str(error):
        return "put tensors together by torch.cat, or multiply by a mask, in place of assigning to a part"
    if isinstance(error, fx.proxy.TraceError) or "Proxy" in str(error):
        return "it must not depend on the values of tensors (torch.fx's rule): no if, loop, int() or NumPy"
    return "it has to be made of calls on tensors that torch.fx can follow"


def _graph_module(model: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """The graph with its layers, none of which works in place or is named like a keyword of Python."""
    parts: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            owner, _, name = str(node.target).rpartition(".")
            part = getattr(model.get_submodule(owner), name)
            node.target = ".".join(
                f"{name}_" * keyword.iskeyword(name) or name for name in node.target.split(".")
            )
            parts[node.target] = part
            if getattr(part, "inplace", False):
                part.inplace = False
    return fx.GraphModule(parts, graph, type(model).__name__)


def _defaults(model: nn.Module, inputs: Sequence[str]) -> dict[str, Any]:
    """Arguments of forward() behind the inputs: they keep their default."""
    parameters = inspect.signature(model.forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in inputs}


def _drop_defaults(graph: fx.Graph, defaults: Mapping[str, Any]) -> None:
    """Take away the arguments that keep their default, and the checks that they do."""
    for node in list(graph.nodes):
        if str(node.target).startswith("**") and node.op == "placeholder" and not node.users:
            graph.erase_node(node)
        elif node.op == "placeholder" and str(node.target).removesuffix("_1") in defaults:
            for user in reversed([user for user in graph.nodes if _depends(user, node)]):
                graph.erase_node(user)
            graph.erase_node(node)


def _depends(node: fx.Node, source: fx.Node) -> bool:
    return any(other is source or _depends(other, source) for other in node.all_input_nodes)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _users_line(error: BaseException) -> str:
    """The line of the user's own file that raised an error, in brackets."""
    inner = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((*inner, "<")):
            return f" ({frame.filename}, line {frame.lineno}: {frame.line})"
    return ""


def _drop_constants(module: fx.GraphModule, constants: set[str]) -> None:
    """Forget parameters and buffers that layers have taken over."""
    kept = {str(node.target) for node in module.graph.nodes if node.op in ("get_attr", "call_module")}
    for path in constants - kept:
        owner, _, name = path.rpartition(".")
        if owner not in kept:
            delattr(module.get_submodule(owner), name)


def _check_arguments(model: nn.Module, names: Sequence[str], count: int) -> None:
    """Refuse a forward() that does not take ``count`` inputs.

    Args:
        names: the arguments that the inputs are for, and others that it needs.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [
        *names,
        *(f"{p.name}=…" for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty),
    ]
    needed += [f"*{p.name}" for p in parameters if p.kind is p.VAR_POSITIONAL]
    if len(needed) != count or needed != list(names):
        raise UnsupportedError(
            f"the forward() of {type(model).__name__} takes {len(needed)} input{'s' * (len(needed) != 1)} "
            f"({', '.join(needed)}), and {count} {'is' if count == 1 else 'are'} given",
            allowed="a tensor for each argument, by position",
        )


def _dtype(module: nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


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


def _tried_inputs(inputs: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """What a model is compared with its layers on: numbers of 0..1 where only a shape is known."""
    return tuple(
        part.to(dtype)
        if bool(part.any())
        else torch.rand(part.shape, generator=torch.Generator().manual_seed(place)).to(dtype)
        for place, part in enumerate(inputs)
    )


def _check_same(wanted: Tensor, module: fx.GraphModule, inputs: Sequence[Tensor], when: str = "") -> None:
    """Refuse a model whose layers, none of which works in place, compute something else than it does."""
    found = _tried(inputs, lambda: module(*inputs))
    if not isinstance(found, Tensor) or wanted.shape != found.shape:
        return  # told by what is checked next
    largest = float(wanted.abs().max()) if wanted.numel() else 0.0
    if float((wanted - found).abs().max()) > SAME * max(largest, SAME):
        raise UnsupportedError(
            f"the layers of {type(module).__name__}, one after the other, compute something else than its "
            f"forward(){' ' * bool(when)}{when}",
            hint="keep the batch's size, x.shape[0], out of everything but reshapes"
            if when
            else "look for tensors that are changed in place (ReLU(inplace=True), x += …) and used again, "
            "and for forward hooks",
        )


def _check(module: fx.GraphModule, node: fx.Node) -> None:
    if node.op == "output":
        if not isinstance(node.args[0], fx.Node):
            raise UnsupportedError(
                f"the model returns a {type(node.args[0]).__name__}, more than one tensor",
                allowed="one tensor",
            )
        return
    if node.op == "placeholder":
        if not node.users and sum(other.op == "placeholder" for other in module.graph.nodes) > 1:
            raise UnsupportedError(
                f"the result of {type(module).__name__} does not depend on its argument '{node.target}'",
                hint="take the argument out of forward(), and its array out of the data",
            )
        return
    layer = layer_of(module, node)
    if layer is None or type(layer) not in (*LAYERS, *OWN_LAYERS):
        raise unsupported(node, type(layer).__name__ if layer is not None else label(node.target))
    problem = _problem(layer, node)
    if problem:
        raise UnsupportedError(f"{place(node)} ({type(layer).__name__}): {problem[0]}", allowed=problem[1])


def _problem(layer: nn.Module, node: fx.Node) -> tuple[str, str] | None:
    """What stands in the way of converting a layer of a supported kind, and what would be accepted."""
    shape = node.all_input_nodes[0].meta["shape"]
    match layer:
        case nn.Conv1d() | nn.Conv2d() if layer.padding_mode != "zeros":
            return f"padding mode {layer.padding_mode!r}", "padding with zeros"
        case nn.Conv1d() | nn.Conv2d() if conv_padding(layer) is None:
            return "padding='same' with an even kernel", "the same padding on both sides"
        case nn.ConvTranspose1d() | nn.ConvTranspose2d() if len(node.args) > 1:
            return "output_size", "output_padding"
        case Normalize() if node.all_input_nodes[0].op != "placeholder":
            return "not at the model's input", "Normalize as the first layer"
        case nn.BatchNorm1d() | nn.BatchNorm2d() if not layer.track_running_stats:
            return "no running statistics", "track_running_stats=True"
        case nn.MaxPool1d() | nn.MaxPool2d() if layer.return_indices:
            return "return_indices", "the maxima alone"
        case nn.AvgPool1d() | nn.AvgPool2d() if layer.ceil_mode:
            return "ceil_mode", "ceil_mode=False (pad the input instead)"
        case nn.AvgPool1d() | nn.AvgPool2d() if not layer.count_include_pad and any(as_tuple(layer.padding)):
            return "padding that is not counted", "count_include_pad=True, or no padding"
        case nn.AvgPool2d() if layer.divisor_override is not None:
            return "divisor_override", "the size of the window as the divisor"
        case nn.AdaptiveAvgPool1d() | nn.AdaptiveAvgPool2d():
            sizes = adaptive_sizes(layer.output_size, shape)
            if any(size % out for size, out in zip(shape[1:], sizes, strict=True)):
                return f"{shape[1:]} pixels into {sizes}", "an output size that divides the input's"
        case nn.LeakyReLU() if not 0 <= layer.negative_slope <= 1:
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
