"""One call of a traced graph, and how to put layers in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from qhw.errors import UnsupportedError


@dataclass(frozen=True)
class Call:
    """A node of the traced graph that calls something, and how to put layers in its place.

    Args:
        module, node: the graph and its node.
        batch: the size of the batch that shapes were found with.
        originals: the user's layers by path, before any was replaced.
    """

    module: fx.GraphModule
    node: fx.Node
    batch: int
    originals: Mapping[str, nn.Module] = field(default_factory=dict)

    @property
    def layer(self) -> nn.Module:
        """The layer that is called."""
        path = str(self.node.target)
        return self.originals.get(path) or self.module.get_submodule(path)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result, batch axis included."""
        return tuple(self.node.meta["shape"])

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def source(self) -> fx.Node:
        """The first operand, a tensor."""
        first = self.argument(0, None, "input", "tensor", "x")
        if not is_tensor(first):
            raise self.refused("its operand is a constant", "a tensor that depends on the input")
        node: fx.Node = first
        return node

    @property
    def source_shape(self) -> tuple[int, ...]:
        return tuple(self.source.meta["shape"])

    def argument(self, position: int, default: Any, *names: str) -> Any:
        """An argument, given by position or by any of its names."""
        found = default
        if len(self.node.args) > position:
            found = self.node.args[position]
        else:
            found = next((self.node.kwargs[name] for name in names if name in self.node.kwargs), default)
        return found

    def integers(self, position: int, *names: str) -> tuple[int, ...]:
        """Whole numbers, given one by one or as one sequence."""
        found = self.argument(position, (), *names)
        if isinstance(found, int):
            rest: list[Any] = list(self.node.args[position:]) or [found]
            return tuple(int(number) for number in rest)
        return tuple(int(number) for number in found or ())

    def axis(self, value: int, rank: int | None = None) -> int:
        """An axis from 0, which has to be another than the batch's."""
        rank = rank or len(self.source_shape)
        if value % rank == 0:
            raise self.refused("it works along the batch axis", "axes from 1 on")
        return value % rank

    def refused(self, what: str, allowed: str | None = None, hint: str | None = None) -> UnsupportedError:
        """The error that names the call."""
        return UnsupportedError(f"{place(self.node)}: {what}", allowed=allowed, hint=hint)

    def put(self, layer: nn.Module, *args: fx.Node, shape: Sequence[int] | None = None) -> fx.Node:
        """A call of a layer in place of this one."""
        node, module = self.node, self.module
        if node.op == "call_module":  # the first call of a layer keeps its path
            path = str(node.target)
            path = path if module.get_submodule(path) is self.layer else free_path(module, path)
        else:
            path = free_path(module, _join(_scope(node), label(node.target)))
        set_layer(module, path, layer)
        with module.graph.inserting_after(node):
            call = module.graph.call_module(path, args)
        call.meta = {"shape": tuple(node.meta["shape"] if shape is None else shape)}
        call.meta |= {key: node.meta[key] for key in ("nn_module_stack",) if key in node.meta}
        node.replace_all_uses_with(call)
        module.graph.erase_node(node)
        return call

    def put_chain(self, layers: Sequence[nn.Module], shapes: Sequence[Sequence[int]]) -> fx.Node:
        """Several layers, one after the other, in place of this call; the shape of each one's result."""
        first, *rest = layers
        call = self.put(first, self.source, shape=shapes[0])
        for layer, shape in zip(rest, shapes[1:], strict=True):
            call = append(self.module, call, layer, shape)
        return call

    def skip(self) -> None:
        """The operand itself in place of the call."""
        self.node.replace_all_uses_with(self.source)
        self.module.graph.erase_node(self.node)


Handler = Callable[[Call], object]
"""Puts layers in place of a call."""


def is_tensor(value: Any) -> bool:
    """Whether an argument is a tensor that depends on the model's input."""
    return isinstance(value, fx.Node) and "constant" not in value.meta and value.meta.get("shape") is not None


def append(module: fx.GraphModule, node: fx.Node, layer: nn.Module, shape: Sequence[int]) -> fx.Node:
    """A layer behind a node: whatever read the node reads the layer."""
    path = free_path(module, f"{node.target}_{type(layer).__name__.lower()}")
    set_layer(module, path, layer)
    with module.graph.inserting_after(node):
        call = module.graph.call_module(path, (node,))
    call.meta = {**node.meta, "shape": tuple(shape)}
    node.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call)
    return call


def before(module: fx.GraphModule, node: fx.Node, layer: nn.Module, shape: Sequence[int]) -> fx.Node:
    """A layer that reads a node, for one reader of it only."""
    path = free_path(module, f"{node.name}_{type(layer).__name__.lower()}")
    set_layer(module, path, layer)
    with module.graph.inserting_after(node):
        call = module.graph.call_module(path, (node,))
    call.meta = {"shape": tuple(shape)}
    return call


# --- names


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


def set_layer(module: fx.GraphModule, path: str, layer: nn.Module) -> None:
    """Put a layer at a path, making the modules on the way as needed."""
    module.add_submodule(path, layer)


def label(target: Any) -> str:
    """What a call is called in paths and messages."""
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    known = {"iadd": "add", "cat": "concat", "fn": "pool", "imul": "mul", "isub": "sub", "getitem": "slice"}
    name = known.get(name, name)
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def place(node: fx.Node) -> str:
    """Which layer of the user's model a node is, for messages."""
    if node.op == "call_module":
        return f"layer {node.target}"
    return f"module {_scope(node) or '(the model itself)'}, {label(node.target)}"


def _scope(node: fx.Node) -> str:
    """The path of the module whose forward() made the call."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(next(reversed(stack.values()))[0]) if stack else ""


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)
