"""Every parameter of a node written out, where shapes are known: one form per operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from qhw.errors import InputError, UnsupportedError
from qhw.graph.onnx_tools import attributes, describe
from qhw.graph.reading.draft import STANDARD, Draft

Form = Callable[[Draft, NodeProto, dict[str, Any]], "list[NodeProto] | None"]
_FORMS: dict[str, Form] = {}
"""Each operator's rewriting: [] for a node that does nothing, None for one that is explicit already."""


def write_out(draft: Draft) -> None:
    """Write every node in its explicit form; shapes must be known, and constants folded."""
    draft.rewrite(lambda node: _written_out(draft, node))


def _written_out(draft: Draft, node: NodeProto) -> list[NodeProto] | None:
    form = _FORMS.get(node.op_type)
    if form is None or node.domain != STANDARD:
        return None
    try:
        return form(draft, node, attributes(node))
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{describe(node)} is not as ONNX defines it: {error}") from error


def _form(*ops: str) -> Callable[[Form], Form]:
    def register(function: Form) -> Form:
        _FORMS.update(dict.fromkeys(ops, function))
        return function

    return register


def _set(node: NodeProto, **options: Any) -> None:
    """Exactly these attributes."""
    del node.attribute[:]
    for name, value in options.items():
        node.attribute.append(helper.make_attribute(name, value, attr_type=_attribute_type(value)))


def _attribute_type(value: Any) -> int | None:
    """Stated where a list may be empty."""
    return helper.AttributeProto.INTS if isinstance(value, list) else None  # type: ignore[attr-defined]


def _constant(draft: Draft, node: NodeProto, index: int, what: str) -> NDArray[Any] | None:
    """A constant input; None where it is left out."""
    name = node.input[index] if len(node.input) > index else ""
    if not name:
        return None
    if name not in draft.constants:
        raise UnsupportedError(
            f"{describe(node)}: its {what} are computed ('{name}')",
            allowed="constants",
            hint="export the model with fixed shapes, so that shapes are constants",
        )
    return draft.constants[name]


def _integers(draft: Draft, node: NodeProto, index: int, what: str) -> list[int] | None:
    value = _constant(draft, node, index, what)
    return None if value is None else [int(v) for v in value.reshape(-1)]


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"axis {axis} of {rank} axes")
    return axis % rank if rank else 0


def _is_constant(draft: Draft, name: str) -> bool:
    return name in draft.constants


# --- windows ------------------------------------------------------------------------------------------


def same_pads(
    shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], upper: bool
) -> list[int]:
    """The pads of SAME_UPPER or SAME_LOWER: begins of every axis, then ends."""
    begins, ends = [], []
    for size, k, stride, dilation in zip(shape, kernel, strides, dilations, strict=True):
        out = -(-size // stride)
        total = max(0, (out - 1) * stride + dilation * (k - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    return begins + ends


def _window(
    draft: Draft, node: NodeProto, options: dict[str, Any], kernel: Sequence[int]
) -> dict[str, list[int]]:
    shape = draft.shape(node.input[0])[2:]
    rank = len(shape)
    if len(kernel) != rank:
        raise ValueError(f"a kernel of {len(kernel)} axes slides over {rank}")
    strides = [int(v) for v in options.get("strides") or [1] * rank]
    dilations = [int(v) for v in options.get("dilations") or [1] * rank]
    pads = [int(v) for v in options.get("pads") or [0] * (2 * rank)]
    auto = options.get("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = [0] * (2 * rank)
    elif auto != "NOTSET":
        pads = same_pads(shape, kernel, strides, dilations, upper=auto == "SAME_UPPER")
    return {
        "kernel_shape": [int(k) for k in kernel],
        "strides": strides,
        "pads": pads,
        "dilations": dilations,
    }


def _kernel(draft: Draft, node: NodeProto) -> tuple[int, ...]:
    return draft.shape(node.input[1])[2:]


def _drop_empty_bias(node: NodeProto) -> None:
    if len(node.input) == 3 and not node.input[2]:
        del node.input[2:]


@_form("Conv")
def _conv(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    frame = _window(draft, node, options, _kernel(draft, node))
    _drop_empty_bias(node)
    _set(node, **frame, group=int(options.get("group", 1)))
    return [node]


@_form("ConvTranspose")
def _conv_transpose(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    auto, sizes = options.get("auto_pad", "NOTSET"), options.get("output_shape")
    plain = {name: value for name, value in options.items() if name != "auto_pad"}
    frame = _window(draft, node, plain, _kernel(draft, node))
    rank = len(frame["kernel_shape"])
    more = [int(v) for v in options.get("output_padding") or [0] * rank]
    if sizes is not None or auto in ("SAME_UPPER", "SAME_LOWER"):
        shape = draft.shape(node.input[0])[2:]
        wanted = (
            list(sizes)[-rank:]
            if sizes is not None
            else [n * s for n, s in zip(shape, frame["strides"], strict=True)]
        )
        totals = [
            s * (n - 1) + p + d * (k - 1) + 1 - out
            for s, n, p, d, k, out in zip(
                frame["strides"], shape, more, frame["dilations"], frame["kernel_shape"], wanted, strict=True
            )
        ]
        if min(totals) < 0:
            raise UnsupportedError(
                f"{describe(node)} is to give {wanted}, more than its kernel reaches",
                hint="export it with pads and output_padding in place of output_shape and auto_pad",
            )
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        frame["pads"] = small + large if auto == "SAME_UPPER" else large + small
    elif auto == "VALID":
        frame["pads"] = [0] * (2 * rank)
    _drop_empty_bias(node)
    _set(node, **frame, output_padding=more, group=int(options.get("group", 1)))
    return [node]


def _reach(draft: Draft, node: NodeProto, frame: dict[str, list[int]]) -> list[int]:
    """How far the last window of every axis reaches beyond the padded input (0 or more), in ceil_mode.

    A window that would begin behind the input is none (ONNX Runtime, torch); onnx's inference counts it.
    """
    shape, out = (draft.shape(name)[2:] for name in (node.input[0], node.output[0]))
    rank = len(shape)
    found = []
    for i, (size, count) in enumerate(zip(shape, out, strict=True)):
        stride, begin, end = frame["strides"][i], frame["pads"][i], frame["pads"][i + rank]
        last = count - 1 - ((count - 1) * stride >= size + begin)
        window = frame["dilations"][i] * (frame["kernel_shape"][i] - 1) + 1
        found.append(max(0, last * stride + window - size - begin - end))
    return found


def drop_empty_windows(draft: Draft) -> None:
    """Write pools in ceil_mode that onnx's inference counts a window too many of without that mode.

    Its count would go into what reads them, before anything else is known of their shapes.
    """
    pools = [
        node
        for node in draft.graph.node
        if node.op_type in ("MaxPool", "AveragePool")
        and node.domain == STANDARD
        and attributes(node).get("ceil_mode")
    ]
    changed = bool(pools)
    while changed:
        draft.infer(strict=False)
        changed = any(_without_empty_windows(draft, node) for node in pools)


def _without_empty_windows(draft: Draft, node: NodeProto) -> bool:
    """Whether there are any: then ceil_mode adds none, or (to a maximum) what padding adds as well."""
    options = attributes(node)
    if not options["ceil_mode"] or not {node.input[0], node.output[0]} <= draft.shapes.keys():
        return False
    frame = _window(draft, node, options, options["kernel_shape"])
    ends = _reach(draft, node, frame)
    if not _has_empty_window(draft, node, frame) or (any(ends) and node.op_type != "MaxPool"):
        return False
    rank = len(ends)
    pads = [p + more for p, more in zip(frame["pads"][rank:], ends, strict=True)]
    kept = {name: value for name, value in options.items() if name != "auto_pad"}
    _set(node, **kept | {"pads": frame["pads"][:rank] + pads, "ceil_mode": 0})
    return True


def _has_empty_window(draft: Draft, node: NodeProto, frame: dict[str, list[int]]) -> bool:
    shape, out = (draft.shape(name)[2:] for name in (node.input[0], node.output[0]))
    firsts = ((count - 1) * stride for count, stride in zip(out, frame["strides"], strict=True))
    return any(first >= size + pad for first, size, pad in zip(firsts, shape, frame["pads"], strict=False))


@_form("MaxPool")
def _max_pool(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    if len([name for name in node.output if name]) > 1:
        read = draft.readers().keys() | set(draft.outputs)
        if node.output[1] in read:
            raise UnsupportedError(f"{describe(node)}: its indices are used", allowed="the first output only")
        del node.output[1:]
    frame = _window(draft, node, options, options["kernel_shape"])
    rank = len(frame["kernel_shape"])
    if options.get("ceil_mode"):
        ends = _reach(draft, node, frame)
        frame["pads"] = frame["pads"][:rank] + [
            p + more for p, more in zip(frame["pads"][rank:], ends, strict=True)
        ]
    _set(node, **frame, ceil_mode=0)
    return [node]


@_form("AveragePool")
def _average_pool(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    frame = _window(draft, node, options, options["kernel_shape"])
    include = int(options.get("count_include_pad", 0)) if any(frame["pads"]) else 1
    ceil = int(bool(options.get("ceil_mode")) and any(_reach(draft, node, frame)))
    _set(
        node,
        **frame,
        count_include_pad=include if not ceil else int(options.get("count_include_pad", 0)),
        ceil_mode=ceil,
    )
    return [node]


# --- movement -----------------------------------------------------------------------------------------


@_form("Reshape")
def _reshape(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    _constant(draft, node, 1, "sizes")
    before, after = draft.shape(node.input[0]), draft.shape(node.output[0])
    batch = not _is_constant(draft, node.input[0]) and before[:1] == (1,) == after[:1]
    shape = [0, *after[1:]] if batch else list(after)
    if list(draft.constants[node.input[1]].reshape(-1)) != shape:
        node.input[1] = draft.constant(f"{node.name}_shape", shape)
    _set(node)
    return [node]


@_form("Flatten")
def _flatten(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    rank = len(draft.shape(node.input[0]))
    axis = int(options.get("axis", 1))
    _set(node, axis=axis + rank if axis < 0 else axis)
    return [node]


@_form("Squeeze", "Unsqueeze")
def _squeeze(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    inner, outer = (draft.shape(name) for name in (node.input[0], node.output[0]))
    given = _integers(draft, node, 1, "axes")
    if given is None:
        given = [i for i, size in enumerate(inner) if size == 1]
    rank = len(inner) if node.op_type == "Squeeze" else len(outer)
    axes = sorted(_axis(a, rank) for a in given)
    del node.input[1:]
    node.input.append(draft.constant(f"{node.name}_axes", axes))
    return [node]


@_form("Transpose")
def _transpose(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    rank = len(draft.shape(node.input[0]))
    perm = [int(p) for p in options.get("perm", range(rank)[::-1])]
    _set(node, perm=perm)
    return [node]


@_form("Concat")
def _concat(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    axis = _axis(int(options["axis"]), len(draft.shape(node.input[0])))
    if len(node.input) == 1:
        return [draft.node(node, "Identity", node.input, node.output[0])]
    _set(node, axis=axis)
    return [node]


@_form("Slice")
def _slice(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    shape = draft.shape(node.input[0])
    starts, ends = (_integers(draft, node, i, w) for i, w in ((1, "starts"), (2, "ends")))
    assert starts is not None
    assert ends is not None
    axes = _integers(draft, node, 3, "axes")
    axes = [_axis(a, len(shape)) for a in (range(len(starts)) if axes is None else axes)]
    steps = _integers(draft, node, 4, "steps") or [1] * len(starts)
    for i, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        if step > 0:
            starts[i], ends[i], _ = slice(starts[i], ends[i], step).indices(shape[axis])
            ends[i] = max(starts[i], ends[i])
    del node.input[1:]
    for what, numbers in (("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps)):
        node.input.append(draft.constant(f"{node.name}_{what}", numbers))
    return [node]


@_form("Split")
def _split(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    axis = _axis(int(options.get("axis", 0)), len(draft.shape(node.input[0])))
    _integers(draft, node, 1, "sizes")
    if len(node.output) == 1:
        return [draft.node(node, "Identity", node.input[:1], node.output[0])]
    sizes = [draft.shape(name)[axis] if name else 0 for name in node.output]
    if 0 in sizes and (given := _integers(draft, node, 1, "sizes")) is not None:
        sizes = given
    del node.input[1:]
    node.input.append(draft.constant(f"{node.name}_sizes", sizes))
    _set(node, axis=axis)
    return [node]


@_form("Gather")
def _gather(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    shape = draft.shape(node.input[0])
    axis = _axis(int(options.get("axis", 0)), len(shape))
    indices = draft.constants.get(node.input[1])
    if indices is not None and (indices < 0).any():
        positive = np.where(indices < 0, indices + shape[axis], indices)
        node.input[1] = draft.constant(f"{node.name}_indices", np.asarray(positive, dtype=np.int64))
    _set(node, axis=axis)
    return [node]


@_form("Pad")
def _pad(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    rank = len(draft.shape(node.input[0]))
    given, axes = _integers(draft, node, 1, "pads"), _integers(draft, node, 3, "axes")
    assert given is not None
    places = list(range(rank)) if axes is None else [_axis(a, rank) for a in axes]
    if len(given) != 2 * len(places):
        raise ValueError(f"{len(given)} pads for {len(places)} axes")
    pads = [0] * (2 * rank)
    for position, axis in enumerate(places):
        pads[axis], pads[axis + rank] = given[position], given[position + len(places)]
    named = node.input[2] if len(node.input) > 2 else ""
    if not named or named in draft.constants:
        value = draft.constants.get(named, np.zeros((), dtype=np.float32))
        stored = np.asarray(value, dtype=np.float32).reshape(())
        named = draft.constant(f"{node.name}_value", stored)
    mode = options.get("mode", "constant")
    if not any(pads):
        return [draft.node(node, "Identity", node.input[:1], node.output[0])]
    del node.input[1:]
    node.input.extend([draft.constant(f"{node.name}_pads", pads), named])  # a value may be quantised
    _set(node, mode=mode)
    return [node]


def _moved(draft: Draft, node: NodeProto, inner: list[int], perm: list[int]) -> list[NodeProto]:
    """A rearrangement of blocks: apart, turned, together."""
    out = draft.shape(node.output[0])
    apart = draft.node(
        node,
        "Reshape",
        [node.input[0], draft.constant(f"{node.name}_apart", [0, *inner[1:]])],
        suffix="_apart",
    )
    turned = draft.node(node, "Transpose", apart.output, suffix="_turned", perm=perm)
    shape = draft.constant(f"{node.name}_shape", [0, *out[1:]])
    together = draft.node(node, "Reshape", [turned.output[0], shape], node.output[0])
    draft.shapes[apart.output[0]] = tuple(inner)
    draft.shapes[turned.output[0]] = tuple(inner[p] for p in perm)
    return [apart, turned, together]


@_form("DepthToSpace")
def _depth_to_space(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    n, c, h, w = draft.shape(node.input[0])
    b = int(options["blocksize"])
    if options.get("mode", "DCR") == "CRD":
        return _moved(draft, node, [n, c // (b * b), b, b, h, w], [0, 1, 4, 2, 5, 3])
    return _moved(draft, node, [n, b, b, c // (b * b), h, w], [0, 3, 4, 1, 5, 2])


@_form("SpaceToDepth")
def _space_to_depth(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    n, c, h, w = draft.shape(node.input[0])
    b = int(options["blocksize"])
    return _moved(draft, node, [n, c, h // b, b, w // b, b], [0, 3, 5, 1, 2, 4])


# --- sizes of an image --------------------------------------------------------------------------------


@_form("Resize")
def _resize(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    before, after = draft.shape(node.input[0]), draft.shape(node.output[0])
    mode = options.get("mode", "nearest")
    coordinates = options.get("coordinate_transformation_mode", "half_pixel")
    nearest = options.get("nearest_mode", "round_prefer_floor")
    if coordinates == "tf_crop_and_resize" or options.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedError(
            f"{describe(node)} crops, or keeps the aspect ratio", allowed="plain scales", hint="export it so"
        )
    _constant(draft, node, 3, "sizes")
    given = _constant(draft, node, 2, "scales")
    axes = [_axis(int(a), len(before)) for a in options.get("axes", range(len(before)))]
    scales = [b / a for a, b in zip(before, after, strict=True)]
    if given is not None and given.size:
        for axis, scale in zip(axes, given.reshape(-1), strict=True):
            scales[axis] = float(scale)
    if scales == [1.0] * len(before):
        return [draft.node(node, "Identity", node.input[:1], node.output[0])]
    if mode == "nearest" and _repeats(before, after, scales, coordinates, nearest):
        coordinates, nearest = "asymmetric", "floor"
    elif mode == "nearest" and not options.get("antialias"):
        return _gathered(draft, node, scales, coordinates, nearest)
    del node.input[1:]
    node.input.extend(["", draft.constant(f"{node.name}_scales", np.array(scales, dtype=np.float32))])
    _set(
        node,
        mode=mode,
        coordinate_transformation_mode=coordinates,
        nearest_mode=nearest,
        antialias=int(options.get("antialias", 0)),
        cubic_coeff_a=float(options.get("cubic_coeff_a", -0.75)),
        exclude_outside=int(options.get("exclude_outside", 0)),
        extrapolation_value=0.0,
    )
    return [node]


def _gathered(
    draft: Draft, node: NodeProto, scales: Sequence[float], coordinates: str, nearest: str
) -> list[NodeProto]:
    """The nearest elements, picked axis by axis."""
    before, after = draft.shape(node.input[0]), draft.shape(node.output[0])
    picks: dict[int, list[int]] = {}
    for axis, (size, out, scale) in enumerate(zip(before, after, scales, strict=True)):
        found = source_index(np.arange(out), size, out, scale, coordinates, nearest)
        if found is None:
            raise UnsupportedError(
                f"{describe(node)} has the coordinates '{coordinates}'",
                allowed="half_pixel, half_pixel_symmetric, pytorch_half_pixel, align_corners, asymmetric",
            )
        if found.tolist() != list(range(size)):
            picks[axis] = found.tolist()
    nodes: list[NodeProto] = []
    x, shape = node.input[0], list(before)
    for axis, places in picks.items():
        is_last = axis == list(picks)[-1]
        shape[axis] = len(places)
        stored = draft.constant(f"{node.name}_places_{axis}", places)
        output, suffix = (node.output[0], "") if is_last else ("", f"_{axis}")
        nodes.append(draft.node(node, "Gather", [x, stored], output, suffix=suffix, axis=axis))
        x = nodes[-1].output[0]
        draft.shapes[x] = tuple(shape)
    return nodes or [draft.node(node, "Identity", node.input[:1], node.output[0])]


_MOST_COPIES = 1 << 12
"""Copies of a computed tensor that are written out, one by one."""


@_form("Expand", "Tile")
def _copied(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto] | None:
    """A tensor beside itself, axis by axis."""
    before, after = draft.shape(node.input[0]), draft.shape(node.output[0])
    if _is_constant(draft, node.input[0]) or _constant(draft, node, 1, "shape") is None:
        return None
    if len(before) != len(after):
        raise UnsupportedError(
            f"{describe(node)} adds an axis in front of the batch axis",
            allowed="as many axes as the tensor has",
            hint="add the axis by Unsqueeze, behind the batch axis",
        )
    nodes: list[NodeProto] = []
    x, shape = node.input[0], list(before)
    repeated = [axis for axis, (a, b) in enumerate(zip(shape, after, strict=True)) if a != b]
    for axis in repeated:
        count = after[axis] // shape[axis]
        if count > _MOST_COPIES:
            raise UnsupportedError(
                f"{describe(node)} repeats a computed tensor {count:,} times",
                allowed=f"up to {_MOST_COPIES:,}",
            )
        shape[axis] = after[axis]
        output, suffix = (node.output[0], "") if axis == repeated[-1] else ("", f"_{axis}")
        nodes.append(draft.node(node, "Concat", [x] * count, output, suffix=suffix, axis=axis))
        x = nodes[-1].output[0]
        draft.shapes[x] = tuple(shape)
    if not repeated:
        nodes.append(draft.node(node, "Identity", [x], node.output[0]))
    return nodes


def _repeats(
    before: Sequence[int], after: Sequence[int], scales: Sequence[float], coordinates: str, nearest: str
) -> bool:
    """Whether every number is repeated in place: element ``i`` is element ``i // factor`` of the input."""
    for size, out, scale in zip(before, after, scales, strict=True):
        if scale != int(scale) or out != size * int(scale):
            return False
        i = np.arange(out)
        found = source_index(i, size, out, scale, coordinates, nearest)
        if found is None or (found != i // int(scale)).any():
            return False
    return True


def source_index(
    i: NDArray[np.int64], size: int, out: int, scale: float, coordinates: str, nearest: str
) -> NDArray[np.int64] | None:
    """Which element of the input is nearest to element ``i`` of the result, as ONNX's Resize says.

    Computed in float32, as ONNX Runtime does: scales such as 1.3 are no binary numbers, and whole results
    depend on it. None for a coordinate transformation that is not known.
    """
    number, half = np.float32, np.float32(0.5)
    place, factor = i.astype(np.float32), np.float32(scale)
    centred = (place + half) / factor - half
    middle = number(size) / 2 * (1 - number(out) / (factor * number(size)))
    places = {
        "half_pixel": centred,
        "half_pixel_symmetric": middle + centred,
        "pytorch_half_pixel": centred if out > 1 else place * 0,
        "align_corners": place * number(size - 1) / number(out - 1) if out > 1 else place * 0,
        "asymmetric": place / factor,
    }
    x = places.get(coordinates)
    if x is None:
        return None
    whole = {
        "round_prefer_floor": np.ceil(x - 0.5),
        "round_prefer_ceil": np.floor(x + 0.5),
        "floor": np.floor(x),
        "ceil": np.ceil(x),
    }[nearest]
    return np.asarray(np.clip(whole, 0, size - 1).astype(np.int64))


# --- arithmetic ---------------------------------------------------------------------------------------


@_form("Add", "Mul")
def _commutative(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto] | None:
    first, second = node.input
    if not _is_constant(draft, first) or _is_constant(draft, second):
        return None
    node.input[0], node.input[1] = second, first
    return [node]


@_form("Sum", "Mean")
def _sum(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    """Additions in the order of the operands; a mean is divided by their number in the end."""
    operands = list(node.input)
    is_mean = node.op_type == "Mean"
    nodes: list[NodeProto] = []
    total = operands[0]
    for index, operand in enumerate(operands[1:], 1):
        last = index == len(operands) - 1 and not is_mean
        made = draft.node(
            node,
            "Add",
            [total, operand],
            node.output[0] if last else "",
            suffix="" if last else f"_{index}",
        )
        _commutative(draft, made, {})
        nodes.append(made)
        total = made.output[0]
    if is_mean and len(operands) > 1:
        count = draft.constant(f"{node.name}_count", np.float32(len(operands)))
        nodes.append(draft.node(node, "Div", [total, count], node.output[0]))
    return nodes or [draft.node(node, "Identity", operands, node.output[0])]


@_form("Max", "Min")
def _extreme(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    """Pairs, constants last; against one number it is a Clip."""
    operands = sorted(node.input, key=lambda name: _is_constant(draft, name))
    if len(operands) == 1:
        return [draft.node(node, "Identity", operands, node.output[0])]
    nodes: list[NodeProto] = []
    found = operands[0]
    for index, operand in enumerate(operands[1:], 1):
        last = index == len(operands) - 1
        output, suffix = (node.output[0], "") if last else ("", f"_{index}")
        constant = draft.constants.get(operand)
        rank = len(draft.shape(node.output[0]))
        if (
            constant is not None
            and constant.size == 1
            and constant.ndim <= rank
            and found not in draft.constants
        ):
            bound = draft.constant(f"{node.name}_bound", np.asarray(constant, dtype=np.float32).reshape(()))
            inputs = [found, bound] if node.op_type == "Max" else [found, "", bound]
            nodes.append(draft.node(node, "Clip", inputs, output, suffix=suffix))
        else:
            nodes.append(draft.node(node, node.op_type, [found, operand], output, suffix=suffix))
        found = nodes[-1].output[0]
    return nodes


@_form("Clip")
def _clip(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    bounds = []
    for index, what in ((1, "min"), (2, "max")):
        value = _constant(draft, node, index, f"bounds ({what})")
        if value is not None and value.size != 1:
            raise ValueError(f"its {what} holds {value.size} numbers")
        is_scalar = value is None or (value.ndim == 0 and value.dtype == np.float32)
        if is_scalar:
            bounds.append(node.input[index] if value is not None else "")
        else:
            assert value is not None
            plain = np.asarray(value, dtype=np.float32).reshape(())
            bounds.append(draft.constant(f"{node.name}_{what}", plain))
    if bounds == ["", ""]:
        return [draft.node(node, "Identity", node.input[:1], node.output[0])]
    del node.input[1:]
    node.input.extend(bounds)
    return [node]


@_form("ReduceSum", "ReduceMean", "ReduceMax")
def _reduce(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    rank = len(draft.shape(node.input[0]))
    given = _integers(draft, node, 1, "axes")
    if not given and options.get("noop_with_empty_axes"):
        return [draft.node(node, "Identity", node.input[:1], node.output[0])]
    axes = sorted({_axis(a, rank) for a in (given or range(rank))})
    del node.input[1:]
    node.input.append(draft.constant(f"{node.name}_axes", axes))
    _set(node, keepdims=int(options.get("keepdims", 1)))
    return [node]


@_form("ReduceMin")
def _least(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    """The largest negative, negated."""
    negated = draft.node(node, "Neg", node.input[:1], suffix="_negated")
    draft.shapes[negated.output[0]] = draft.shape(node.input[0])
    largest = draft.node(node, "ReduceMax", [negated.output[0], *node.input[1:]], suffix="_largest")
    draft.shapes[largest.output[0]] = draft.shape(node.output[0])
    result = largest.output[0]
    whole = _reduce(draft, largest, options) or []
    return [negated, *whole, draft.node(node, "Neg", [result], node.output[0])]


@_form("Ceil")
def _ceiling(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    """Rounded down as a negative."""
    negated = draft.node(node, "Neg", node.input, suffix="_negated")
    down = draft.node(node, "Floor", negated.output, suffix="_down")
    for made in (negated, down):
        draft.shapes[made.output[0]] = draft.shape(node.input[0])
    return [negated, down, draft.node(node, "Neg", down.output, node.output[0])]


@_form("BatchNormalization")
def _batch_normalization(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    if options.get("training_mode"):
        raise UnsupportedError(f"{describe(node)} is in training mode", hint="export after model.eval()")
    del node.output[1:]
    _set(node, epsilon=float(options.get("epsilon", np.float32(1e-5))))
    return [node]


_DEFAULTS: dict[str, dict[str, Any]] = {
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "Celu": {"alpha": 1.0},
    "Selu": {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "ThresholdedRelu": {"alpha": 1.0},
    "Gelu": {"approximate": "none"},
}


@_form(*_DEFAULTS)
def _activation(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    defaults = _DEFAULTS[node.op_type]
    _set(node, **{name: options.get(name, default) for name, default in defaults.items()})
    return [node]


_OTHER_FLOATS = frozenset({TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})


@_form("Cast")
def _cast(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    """A Cast to float32 changes no float32 number or integer; from another float type it rounds."""
    source = draft.types.get(node.input[0], TensorProto.FLOAT)
    if options["to"] == TensorProto.FLOAT and source not in _OTHER_FLOATS:
        return [draft.node(node, "Identity", node.input, node.output[0])]
    _set(node, to=int(options["to"]))
    return [node]
