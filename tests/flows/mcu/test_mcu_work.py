"""What a kernel's loops are counted as: against loops written out, and known for every kernel."""

from __future__ import annotations

import itertools
import json

import numpy as np
from firmware import BOARD_OF_CORE, layout
from hypothesis import given, settings
from hypothesis import strategies as st

from qhw.flows.mcu import dsp, kernels
from qhw.flows.mcu.emit import emit
from qhw.flows.mcu.instructions import MODEL_FILE
from qhw.flows.mcu.layout import Layout
from qhw.flows.mcu.program import ConvLayer
from qhw.flows.mcu.work import _WORK, loops_of, work_of
from qhw.formats.integer import Integer
from qhw.graph.builder import GraphBuilder
from qhw.resources import resource_dir
from tests.graph_factory import resnet8_graph

small = st.integers(1, 4)
pair = st.tuples(small, small)


def conv_layout(
    channels: int,
    filters: int,
    plane: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    dilations: tuple[int, int] = (1, 1),
    pads: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Layout:
    b, shape = GraphBuilder("conv"), (filters, channels // groups, *kernel)
    x = b.input("x", (channels, *plane), Integer(8, False), 0)
    w = b.constant("w", np.random.default_rng(0).integers(-128, 128, shape), Integer(8), 0)
    y = b.conv("y", x, w, strides=strides, dilations=dilations, pads=(*pads, *pads), groups=groups)
    return layout(b.finish([b.requant("out", y, Integer(8), 12)]))


@settings(max_examples=40, deadline=None)
@given(
    plane=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    kernel=pair,
    strides=pair,
    dilations=pair,
    pads=pair,
)
def test_taps_outside_of_the_map_are_no_codes_to_gather(
    plane: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int],
) -> None:
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if any(n + 2 * p < r for n, p, r in zip(plane, pads, reach, strict=True)):
        return
    made = conv_layout(4, 8, plane, kernel, strides, dilations, pads)
    (step,) = made.program.steps
    work, out = work_of(made, step), made.program.maps[step.writes]
    inside = 0
    for at in itertools.product(*map(range, out.plane)):
        for tap in itertools.product(*map(range, kernel)):
            y, x = (
                a * s - p + t * d for a, s, p, t, d in zip(at, strides, pads, tap, dilations, strict=True)
            )
            inside += 0 <= y < plane[0] and 0 <= x < plane[1]
    assert work.get("put uint8", 0) == inside  # a unit is the four channels of a tap
    assert work.get("put uint8", 0) + work.get("units cleared", 0) == out.pixels * kernel[0] * kernel[1]


def test_pixels_go_in_pairs_and_channels_in_blocks_of_four() -> None:
    made = conv_layout(8, 10, (5, 5), (3, 3), pads=(1, 1))
    (step,) = made.program.steps
    work = work_of(made, step)
    assert step.kernel == "qhw_conv_dsp8"
    assert (work["blocks pair 8"], work["blocks single 8"]) == (12 * 3, 1 * 3)
    assert (work["units pair 8"], work["units single 8"]) == (12 * 3 * 18, 3 * 18)
    assert (work["fours 8"], work["ones evenly"]) == (25 * 8, 25 * 2)


def test_a_depthwise_map_goes_by_strips_of_16_columns() -> None:
    made = conv_layout(8, 8, (6, 21), (3, 3), pads=(1, 1), groups=8)
    (step,) = made.program.steps
    work = work_of(made, step)
    assert step.kernel == "qhw_depthwise_dsp"
    assert work["strips"] == 2 * 2
    assert work["strip pairs"] == 2 * 6 * (8 + 3)
    assert work["strip pairs put uint8"] == 2 * 8 * (9 + 4)


def test_patches_are_counted_with_what_they_compute_twice() -> None:
    graph = resnet8_graph(side=8)
    whole, parts = layout(graph), layout(graph, patches="block1_relu2:2x2")
    assert parts.front > 1
    counts = [
        sum(work_of(made, step).get("fours 8", 0) for step in made.program.steps) for made in (whole, parts)
    ]
    assert counts[1] > counts[0]


def test_every_kernel_is_measured_on_every_core() -> None:
    weights = json.loads((resource_dir("mcu") / MODEL_FILE).read_text())["weights"]
    assert set(weights) == set(BOARD_OF_CORE)
    assert {kernel.function for kernel in kernels.CONV_KERNELS} <= set(_WORK)
    for found in weights.values():
        assert set(found) == {loops_of(kernel) for kernel in _WORK}


def test_a_rounding_lies_in_flash_once() -> None:
    """Behind the weights, where it is one multiplication: the layer's own numbers are left out."""
    made = layout(resnet8_graph(side=8))
    emitted = emit(made, "t").constant_bytes
    convolutions = [step for step in made.program.steps if isinstance(step.layer, ConvLayer)]
    rounded = [step for step in convolutions if dsp.unpacked_finish(step.layer) is not step.layer.finish]
    assert len(rounded) >= 9
    for step in rounded:
        packed = len(kernels.conv_kernel(step.layer).pack(step.layer))
        assert packed <= emitted[step.name] <= packed + 1  # the shift, which all layers share
