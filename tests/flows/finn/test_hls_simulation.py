"""FINN's C++ for Vitis HLS, layer by layer through g++, against NumPy."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("finn", reason="FINN is not installed: pip install --no-deps finn-plus")
pytest.importorskip("hls4ml", reason="hls4ml is not installed: pip install 'qhw[hls4ml]'")

from finn_layers import PART, VECTORS, Layers, programs

from qhw.flows.finn import hls_simulation
from qhw.flows.finn.simulation import LayerCheck, simulate_layers
from qhw.flows.finn.sources import generate_sources

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return programs(tmp_path_factory)


def written(net: Layers, folder: Path) -> Path:
    generate_sources(net.model(), folder, part=PART, clock_ns=5.0)
    return folder


def checked(net: Layers, folder: Path, cache: Path) -> list[LayerCheck]:
    return simulate_layers(net.model(), folder, net.values, cache=cache)


def every_kind() -> Layers:
    """Layers whose words are integers or vectors, of 3 to 80 bits; signed and unsigned elements."""
    net = Layers()
    x, y = net.input(4, 4, 8, kind="INT5"), net.input(4, 4, 4, kind="INT5")
    a, b = net.duplicate(x, pe=2)
    net.duplicate(y, pe=4, copies=3)
    net.concat([a, y, b], simd=4)
    net.split(x, [2, 4, 2], simd=2)
    net.added(net.scaled(a, np.array([4]), "UINT3", "INT8", pe=4), b, "INT9", pe=4)
    net.scaled(y, np.array([-2, 1, 0, -4]), "INT3", "INT8", pe=2)
    net.total(net.input(4, 4, 6, kind="INT5"), "INT9", pe=3)
    net.enlarged(y, (2, 3), simd=2)
    net.spread(y, (3, 2), simd=4)
    net.product(x, outputs=6, pe=3, simd=4, backend="hls", weights="INT3", sums="INT12")
    return net


@pytest.mark.slow
def test_every_kind_is_equal_word_by_word(tmp_path: Path, cache: Path) -> None:
    net = every_kind()
    checks = checked(net, written(net, tmp_path), cache)
    assert [check.kind for check in checks] == [node.op_type for node in net.nodes]
    for check in checks:
        assert (check.backend, check.mismatches, check.first_difference) == ("g++", 0, None), check
        assert (check.vectors, check.cycles, check.reason) == (VECTORS, None, None)
        outputs = [
            values.size for name, values in net.values.items() if name.startswith(f"{check.layer}_out")
        ]
        assert check.codes == sum(outputs) > 0


@pytest.mark.slow
def test_windows_travel_in_blocks_of_channels(tmp_path: Path, cache: Path) -> None:
    net = Layers()
    signed = net.windows(net.input(5, 5, 8, kind="INT5"), (2, 3), simd=4, depthwise=1)
    plain = net.windows(net.input(4, 4, 8), (2, 2), simd=2, stride=2, depthwise=1)
    net.depthwise(signed, (2, 3), pe=4)
    net.pooled(signed, (2, 3), "MaxPool", "INT5", pe=4)
    net.pooled(plain, (2, 2), "AccPool", "UINT10", pe=2)
    for node in [node for node in net.nodes if node.op_type.startswith("Conv")]:
        net.nodes.remove(node)  # their outputs are inputs of what is tested here
        net.inputs.append(node.output[0])
    checks = checked(net, written(net, tmp_path), cache)
    assert [check.kind for check in checks] == ["VVAU_hls", "Pool_hls", "Pool_hls"]
    for check in checks:
        assert (check.backend, check.mismatches, check.first_difference) == ("g++", 0, None), check


@pytest.mark.slow
def test_a_changed_constant_shows_in_its_layer(tmp_path: Path, cache: Path) -> None:
    net = Layers()
    x = net.input(2, 2, 4, kind="INT5")
    for _ in range(2):
        net.scaled(x, np.array([-2, 1, 0, -4]), "INT3", "INT8", pe=2)
    folder = written(net, tmp_path)
    file = folder / "ElementwiseMul_hls_1" / "params.hpp"
    assert "-4" in file.read_text()
    file.write_text(file.read_text().replace("-4", "-3"))
    same, changed = checked(net, folder, cache)
    assert same.mismatches == 0
    wrong = net.values["x0"][..., 3] != 0
    assert changed.mismatches == np.count_nonzero(wrong)
    vector, row, column = np.argwhere(wrong)[0]
    value = int(net.values["x0"][vector, row, column, 3])
    assert changed.first_difference == (
        f"ElementwiseMul_hls_1_out0, vector {vector}, element ({row}, {column}, 3): "
        f"{-3 * value}, expected {-4 * value}"
    )


@pytest.mark.slow
def test_a_changed_memory_image_shows_in_its_layer(tmp_path: Path, cache: Path) -> None:
    net = Layers()
    net.product(
        net.input(8, kind="INT5"), outputs=6, pe=3, simd=4, backend="hls", weights="INT3", sums="INT12"
    )
    folder = written(net, tmp_path)
    image = folder / "MVAU_hls_0" / "memblock.dat"
    first, *rest = image.read_text().split()
    image.write_text("\n".join([f"{int(first, 16) ^ 1:x}", *rest]) + "\n")
    (check,) = checked(net, folder, cache)
    assert 0 < check.mismatches <= VECTORS, "one output reads that weight"


@pytest.mark.slow
def test_what_a_call_reads_is_counted(tmp_path: Path, cache: Path) -> None:
    """FINN passes the height of the image for both sides of it: a fault for images that are not square."""
    net = Layers()
    net.total(net.input(3, 4, 6, kind="INT5"), "INT9", pe=3)
    net.split(net.input(2, 8, kind="INT5"), [4, 4], simd=2)
    folder = written(net, tmp_path)
    file = folder / "StreamingSplit_hls_0" / "top_StreamingSplit_hls_0.cpp"
    assert "StreamingSplit<2, 2>" in file.read_text()
    file.write_text(file.read_text().replace("StreamingSplit<2, 2>", "StreamingSplit<2, 3>"))
    total, split = checked(net, folder, cache)
    assert total.mismatches > 0
    assert split.mismatches > 0


@pytest.mark.slow
def test_a_layer_that_nothing_stands_for_says_so(tmp_path: Path, cache: Path) -> None:
    net = Layers()
    x = net.input(8, kind="INT5")
    net.add(
        "LabelSelect_hls",
        [x],
        [(net.values[x].argmax(axis=1)[:, None], "UINT3")],
        Labels=8,
        PE=1,
        K=1,
        inputDataType="INT5",
        outputDataType="UINT3",
    )
    (check,) = checked(net, written(net, tmp_path), cache)
    assert (check.backend, check.codes, check.mismatches) == ("none", 0, 0)
    assert str(check.reason).startswith(
        "only Vitis HLS shows this layer: hls/finn does not stand for what it calls"
    )
    assert "LabelSelect_Batch" in str(check.reason)


def test_without_integer_types_nothing_is_compared_and_it_is_said(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Layers()
    net.duplicate(net.input(4), pe=2)
    folder = written(net, tmp_path)
    monkeypatch.setattr(hls_simulation.importlib.util, "find_spec", lambda name: None)
    (check,) = checked(net, folder, cache)
    assert check.backend == "none"
    assert "hls4ml is not installed" in str(check.reason)
    assert "pip install 'qhw[hls4ml]'" in str(check.reason)


def test_without_a_compiler_nothing_is_compared_and_it_is_said(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Layers()
    net.duplicate(net.input(4), pe=2)
    folder = written(net, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (check,) = checked(net, folder, cache)
    assert (check.backend, check.reason) == ("none", "g++ is not installed (apt-get install g++)")
