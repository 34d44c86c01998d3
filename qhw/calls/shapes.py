"""Moves of numbers, parts of tensors, and reductions over axes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from qhw.calls.arithmetic import BROADCASTING
from qhw.calls.call import Call, Handler, before, free_path, is_tensor, label, set_layer
from qhw.layers.arithmetic import Total
from qhw.layers.moves import Concat, Largest, Permute, Repeat, Reshape, Slice


def kept_batch(call: Call, shape: Sequence[int] | None = None) -> tuple[int, ...]:
    """A result's shape without the batch axis, which has to be in front."""
    shape = call.shape if shape is None else tuple(shape)
    if len(shape) < 2 or shape[0] != call.batch:
        raise call.refused(
            f"a reshape to {tuple(shape)} that does not keep the batch axis",
            hint="use flatten(1), or reshape(x.shape[0], …)",
        )
    return tuple(shape[1:])


def reshape(call: Call) -> None:
    call.put(Reshape(kept_batch(call)), call.source)


def _permute(call: Call) -> None:
    """permute, transpose, movedim and the like: the order is found by moving numbers."""
    rank = len(call.source_shape)
    probe = torch.empty(tuple(range(2, rank + 2)))
    target = call.node.target
    args = call.node.args[1:]
    kwargs = {key: value for key, value in call.node.kwargs.items() if key != "input"}
    if target is getattr:
        moved = getattr(probe, str(args[0]))
    else:
        moved = (
            getattr(probe, target)(*args, **kwargs)
            if isinstance(target, str)
            else target(probe, *args, **kwargs)
        )
    order = tuple(size - 2 for size in moved.shape)
    if order[0] != 0:
        raise call.refused(f"the order {order} of axes moves the batch axis", "axis 0 in front")
    call.put(Permute(order), call.source)


def _concat(call: Call) -> None:
    tensors = call.argument(0, (), "tensors")
    axis = call.argument(1, 0, "dim", "axis")
    if not all(is_tensor(tensor) for tensor in tensors):
        raise call.refused("a concatenation with constants", "tensors that depend on the input")
    if axis % call.rank == 0:
        raise call.refused("a concatenation along the batch", "axis 1 and up")
    call.put(Concat(axis % call.rank), *tensors)


def _stack(call: Call) -> None:
    tensors = call.argument(0, (), "tensors")
    axis = call.argument(1, 0, "dim", "axis") % call.rank
    if axis == 0 or not all(is_tensor(tensor) for tensor in tensors):
        raise call.refused("a stack along the batch, or of constants", "axis 1 and up")
    shape = (*call.shape[:axis], 1, *call.shape[axis + 1 :])
    parts = [before(call.module, tensor, Reshape(shape[1:]), shape) for tensor in tensors]
    call.put(Concat(axis), *parts)


def _getitem(call: Call) -> None:
    """Slices of a tensor, parts of a split, values of a maximum."""
    source, index = call.node.args
    assert isinstance(source, fx.Node)
    if source.target in PARTS:
        PARTS[source.target](call, Call(call.module, source, call.batch), index)
    else:
        _sliced(call, index)


def _sliced(call: Call, index: Any) -> None:
    items = list(index) if isinstance(index, tuple) else [index]
    if any(not (isinstance(item, int | slice) or item is None or item is Ellipsis) for item in items):
        raise call.refused(f"the index {index}", "whole numbers, slices, None and … with constant bounds")
    named = sum(item is not None and item is not Ellipsis for item in items)
    rank = len(call.source_shape)
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (rank - named)
    layers: list[tuple[nn.Module, tuple[int, ...]]] = []
    shape, axis = list(call.source_shape), 0
    for item in items:
        if item is None:
            continue
        size = shape[axis]
        start, stop, step = (item % size, item % size + 1, 1) if isinstance(item, int) else item.indices(size)
        if (start, stop, step) != (0, size, 1):
            if axis == 0 or step < 1 or stop <= start:
                raise call.refused(f"the index {index}", "axes behind the batch's, steps from 1 on")
            shape[axis] = len(range(start, stop, step))
            layers.append((Slice(axis, start, stop, step), tuple(shape)))
        axis += 1
    if tuple(shape) != call.shape or not layers:
        layers.append((Reshape(kept_batch(call)), call.shape))
    call.put_chain([layer for layer, _ in layers], [size for _, size in layers])


def _part(call: Call, whole: Call, index: int) -> None:
    """One part of split, chunk or unbind."""
    axis = whole.axis(int(whole.argument(2, 0, "dim", "axis")))
    sizes = [shape[axis] for shape in whole.node.meta["parts"]]
    start = sum(sizes[: index % len(sizes)])
    call.node.args = (whole.source,)
    call.put(Slice(axis, start, start + sizes[index]), whole.source)


def _unbound(call: Call, whole: Call, index: int) -> None:
    axis = whole.axis(int(whole.argument(1, 0, "dim")))
    place_ = index % whole.source_shape[axis]
    call.node.args = (whole.source,)
    cut = (*call.shape[:axis], 1, *call.shape[axis:])
    call.put_chain((Slice(axis, place_, place_ + 1), Reshape(kept_batch(call))), (cut, call.shape))


def _maximum_of(call: Call, whole: Call, index: Any) -> None:
    """The values of ``x.max(dim)``."""
    if index not in (0, "values"):
        raise call.refused("the places of maxima", "their values")
    axes = (int(whole.argument(1, 0, "dim")),)
    keep = bool(whole.argument(2, False, "keepdim"))
    call.node.args = (whole.source,)
    _reduced(call, axes, keep, lambda found: Largest(found))


PARTS: Mapping[Any, Callable[[Call, Call, Any], None]] = {
    **dict.fromkeys((torch.split, torch.chunk, "split", "chunk", "split_with_sizes"), _part),
    **dict.fromkeys((torch.unbind, "unbind"), _unbound),
    **dict.fromkeys((torch.max, "max"), _maximum_of),
}
"""Calls whose results are several tensors, and what one of them becomes."""


def _select(call: Call) -> None:
    axis, index = (int(call.argument(i, 0, name)) for i, name in ((1, "dim"), (2, "index")))
    axis = call.axis(axis)
    size = call.source_shape[axis]
    cut = (*call.shape[:axis], 1, *call.shape[axis:])
    layers = (Slice(axis, index % size, index % size + 1), Reshape(kept_batch(call)))
    call.put_chain(layers, (cut, call.shape))


def _narrow(call: Call) -> None:
    axis, start, length = (int(call.argument(i, 0, n)) for i, n in ((1, "dim"), (2, "start"), (3, "length")))
    call.put(Slice(call.axis(axis), start, start + length), call.source)


def _attribute(call: Call) -> None:
    """x.T, x.mT, and the values of a maximum."""
    source, name = call.node.args
    assert isinstance(source, fx.Node)
    if source.target in PARTS:
        PARTS[source.target](call, Call(call.module, source, call.batch), name)
    elif name in ("mT", "T", "mH", "H"):
        _permute(call)
    else:
        raise call.refused(f"attribute {name!r} of a tensor", "shape and mT")


def _expand(call: Call) -> None:
    """Nothing, where arithmetic follows that broadcasts anyway."""
    if len(call.shape) != len(call.source_shape) or any(
        user.target not in BROADCASTING for user in call.node.users
    ):
        raise call.refused(
            "an expanded tensor", "expand in front of an addition or a product, which broadcast"
        )
    call.skip()


def _repeat(call: Call) -> None:
    """The whole tensor so many times along each axis."""
    factors = call.integers(1, "repeats", "dims")
    shape = list(call.source_shape)
    if len(factors) != len(shape) or factors[0] != 1:
        raise call.refused(f"repeat{factors}", "one number for each axis, 1 for the batch")
    node = call.source
    last = [axis for axis, factor in enumerate(factors) if factor > 1]
    for axis in last[:-1]:
        shape[axis] *= factors[axis]
        path = free_path(call.module, f"{node.name}_concat")
        set_layer(call.module, path, Concat(axis))
        with call.module.graph.inserting_before(call.node):
            node = call.module.graph.call_module(path, (node,) * factors[axis])
        node.meta = {"shape": tuple(shape)}
    if last:
        call.put(Concat(last[-1]), *(node,) * factors[last[-1]])
    else:
        call.skip()


def _repeat_interleave(call: Call) -> None:
    count, axis = call.argument(1, None, "repeats"), call.argument(2, None, "dim")
    rank = len(call.source_shape)
    if not isinstance(count, int) or axis is None or rank not in (3, 4) or axis % rank < 2:
        raise call.refused("repeat_interleave", "a whole number, along a spatial axis")
    call.put(Repeat([count if i == axis % rank else 1 for i in range(2, rank)]), call.source)


# --- reductions


def _reduced(
    call: Call, axes: Sequence[int], keep: bool, over: Callable[[tuple[int, ...]], nn.Module]
) -> None:
    """A layer that reduces axes to length 1, and a reshape behind it where they do not stay."""
    shape = call.source_shape
    found = tuple(sorted({axis % len(shape) for axis in axes}))
    if not found or 0 in found:
        raise call.refused(f"{label(call.node.target)} over axes {tuple(axes)}", "axes from 1 on, named")
    reduced = tuple(1 if axis in found else size for axis, size in enumerate(shape))
    result = call.shape
    node = call.put(over(found), call.source, shape=reduced)
    if not keep:
        if len(result) < 2:
            raise call.refused("a result of one number for each sample", "keepdim=True for the last axis")
        path = free_path(call.module, f"{node.target}_flatten")
        set_layer(call.module, path, Reshape(result[1:]))
        with call.module.graph.inserting_after(node):
            flat = call.module.graph.call_module(path, (node,))
        flat.meta = {**node.meta, "shape": result}
        node.replace_all_uses_with(flat, delete_user_cb=lambda user: user is not flat)


def _axes_of(call: Call) -> tuple[tuple[int, ...], bool]:
    axes = call.argument(1, (), "dim", "axis")
    axes = (axes,) if isinstance(axes, int) else tuple(axes or ())
    return axes, bool(call.argument(2, False, "keepdim"))


def _spatial(call: Call, axes: Sequence[int]) -> bool:
    rank = len(call.source_shape)
    return rank in (3, 4) and {axis % rank for axis in axes} == set(range(2, rank))


def _mean(call: Call) -> None:
    """A mean over every spatial axis is a global average pool."""
    axes, keep = _axes_of(call)
    if _spatial(call, axes):
        pool = nn.AdaptiveAvgPool1d(1) if len(call.source_shape) == 3 else nn.AdaptiveAvgPool2d(1)
        _reduced(call, axes, keep, lambda found: pool)
    else:
        _reduced(call, axes, keep, lambda found: Total(found, mean=True))


def _total(call: Call) -> None:
    axes, keep = _axes_of(call)
    _reduced(call, axes, keep, Total)


def _largest(call: Call) -> None:
    """A maximum over every spatial axis is a global maximum pool."""
    axes, keep = _axes_of(call)
    shape = call.source_shape
    if _spatial(call, axes):
        pool = nn.MaxPool1d(shape[2]) if len(shape) == 3 else nn.MaxPool2d(shape[2:])
        _reduced(call, axes, keep, lambda found: pool)
    else:
        _reduced(call, axes, keep, Largest)


def _cast(call: Call) -> None:
    """Nothing, where the numbers stay floats."""
    if not call.node.meta["floating"]:
        raise call.refused("numbers become integers", "floating-point types")
    call.skip()


CALLS: Mapping[Any, Handler] = {
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _concat),
    torch.stack: _stack,
    **dict.fromkeys((torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.unflatten), reshape),
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous"), reshape),
    **dict.fromkeys(("unflatten", "view_as", "reshape_as"), reshape),
    **dict.fromkeys((torch.permute, torch.transpose, torch.movedim, torch.moveaxis), _permute),
    **dict.fromkeys((torch.swapaxes, torch.swapdims), _permute),
    **dict.fromkeys(("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims"), _permute),
    operator.getitem: _getitem,
    getattr: _attribute,
    **dict.fromkeys((torch.select, "select"), _select),
    **dict.fromkeys((torch.narrow, "narrow"), _narrow),
    **dict.fromkeys(("expand", "expand_as", torch.broadcast_to), _expand),
    **dict.fromkeys(("repeat", torch.tile, "tile"), _repeat),
    **dict.fromkeys((torch.repeat_interleave, "repeat_interleave"), _repeat_interleave),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    **dict.fromkeys((torch.sum, "sum"), _total),
    **dict.fromkeys((torch.amax, "amax"), _largest),
    **dict.fromkeys(("float", "double", "to", "type_as", "clone", torch.clone), _cast),
}
"""Moves and reductions."""
