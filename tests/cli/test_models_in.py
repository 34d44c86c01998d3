"""simulate, cost and diff on small QONNX files, from Python and the command line; and wrong files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import qhw
from qhw.arrays import load_mantissas, save_arrays
from qhw.cli import main
from qhw.cost.pricing.estimate import LABEL
from qhw.errors import InputError
from qhw.graph.lower import lower

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))

from qonnx_factory import Net

RNG = np.random.default_rng(7)


def conv_net(scale: float = 0.25) -> Net:
    """A padded convolution, a ReLU, a linear layer; inputs are integers of 8 bits."""
    net = Net((2, 6, 6))
    x = net.quant("x", 8, 1.0, name="quant_in")
    weight = net.quant(RNG.integers(-7, 8, (3, 2, 3, 3)) * scale, 4, scale, narrow=1)
    y = net.node("Conv", x, weight, name="conv", pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    y = net.quant(net.node("Relu", y), 6, 2.0, signed=0, name="quant_conv")
    y = net.node("Flatten", y, axis=1)
    dense = net.quant(RNG.integers(-7, 8, (108, 4)) * 0.5, 4, 0.5)
    net.result = net.quant(net.node("MatMul", y, dense, name="dense"), 12, 1.0, name="quant_out")
    return net


def saved(net: Net, folder: Path, name: str = "small.onnx") -> Path:
    path = folder / name
    onnx.save(net.model(net.result), path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved(conv_net(), tmp_path)


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    return int(exit_info.value.code or 0), out, err


def test_every_backend_gives_the_same_codes(model: Path) -> None:
    x = RNG.integers(-100, 100, (5, 2, 6, 6))
    results = {b: qhw.simulate(model, inputs=x, backend=b) for b in ("exact", "interpreter", "qonnx")}
    values = [next(iter(result.values.values())) for result in results.values()]
    assert len(np.unique(values[0])) > 10
    assert all((value == values[0]).all() for value in values)
    assert results["exact"].samples == 5


def test_means_at_the_end_of_a_file_are_the_same_by_qonnx(tmp_path: Path) -> None:
    """A mean is a sum with a scale, under a name that the file does not have."""
    net = Net((3, 4, 4))
    x = net.quant("x", 6, 0.25)
    mean = net.node("ReduceMean", x, name="mean", axes=[2, 3], keepdims=0)
    onnx.save(net.model(mean, net.quant(net.node("Relu", x), 4, 0.5)), tmp_path / "mean.onnx")
    x = RNG.normal(size=(5, 3, 4, 4))
    ours, theirs = (
        qhw.simulate(tmp_path / "mean.onnx", inputs=x, backend=backend).values
        for backend in ("exact", "qonnx")
    )
    assert len(ours) == 2
    for name, values in ours.items():
        assert len(np.unique(values)) > 5
        assert np.array_equal(values, theirs[name])


def test_a_path_may_hold_the_sign_that_names_a_backend(tmp_path: Path) -> None:
    folder = tmp_path / "run@2"
    folder.mkdir()
    model = saved(conv_net(), folder, "small@4.onnx")
    assert qhw.diff(model, f"{model}@interpreter", samples=2).equal


def test_diff_sees_no_difference_between_qonnx_and_the_exact_graph(model: Path) -> None:
    result = qhw.diff(model, f"{model}@qonnx", samples=6)
    assert result.equal
    assert len(result.comparison.layers) >= 6
    assert result.first_difference == ""


def test_a_file_of_arbitrary_scales_against_its_own_execution(tmp_path: Path) -> None:
    """Its float32 execution may differ from the canonical form; every quantised tensor is compared."""
    path = saved(conv_net(scale=0.3137), tmp_path)
    result = qhw.diff(path, f"{path}@qonnx", samples=6)
    by_layer = {layer.tensor: layer for layer in result.comparison.layers}
    assert {"quant_conv", "quant_out"} <= set(by_layer)
    assert by_layer["quant_conv"].distinct > 10
    assert result.comparison.mismatches <= 5
    assert qhw.diff(path, f"{path}@interpreter", samples=6).equal


def test_diff_names_the_first_layer_that_differs(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One weight of the convolution is changed by one unit in the last place, in a copy of the file."""
    proto = onnx.load(model)
    weight = next(t for t in proto.graph.initializer if list(t.dims) == [3, 2, 3, 3])
    array = onnx.numpy_helper.to_array(weight).copy()
    array[0, 0, 1, 1] += 0.25 if array[0, 0, 1, 1] < 0 else -0.25
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    other = tmp_path / "other.onnx"
    onnx.save(proto, other)
    code, out, _ = run(capfd, "diff", model, other, "--json")
    document = json.loads(out)
    assert code == 1
    assert not document["equal"]
    assert "conv" in document["first_difference"]
    differing = [layer["layer"] for layer in document["layers"] if layer["mismatches"]]
    assert differing[0] == "conv"


def test_a_saved_trace_stands_in_for_an_execution(model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.npz"
    kept = qhw.simulate(model, samples=4, save_trace=trace)
    assert set(load_mantissas(trace)) == set(kept.mantissas)
    assert qhw.diff(trace, f"{model}@interpreter").equal
    tensors = load_mantissas(trace)
    (name,) = lower(model).outputs
    tensors[name][2, 1] += 1
    save_arrays(trace, tensors)
    result = qhw.diff(model, trace)
    assert not result.equal
    assert "sample 2, element (1)" in result.first_difference
    with pytest.raises(InputError, match="Both sides are traces"):
        qhw.diff(trace, trace)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 broken", b"\x93NUMPY broken", b"cos\nsystem\n(S'echo'\ntR."]
)
def test_broken_arrays_and_traces_are_refused(model: Path, tmp_path: Path, content: bytes) -> None:
    for name in ("x.npy", "x.npz"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npy"):
        qhw.simulate(model, inputs=tmp_path / "x.npy")
    with pytest.raises(InputError, match=r"x\.npz"):
        qhw.diff(model, tmp_path / "x.npz")


def test_results_show_themselves_in_a_notebook(model: Path) -> None:
    for result in (
        qhw.simulate(model, samples=2),
        qhw.cost(model, board="ultra96"),
        qhw.diff(model, f"{model}@interpreter", samples=2),
    ):
        assert result._repr_html_().count("<table>") >= 1
        assert result.tables()[0].title in repr(result)


def test_cost_by_layer_adds_up(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "cost", model, "--board", "pynq-z1", "--json")
    cost = json.loads(out)
    assert code == 0
    assert cost["cost_model"] == LABEL
    assert sum(layer["lut"] for layer in cost["layers"]) == cost["resources"]["lut"] > 0
    assert cost["latency"]["clock_mhz"] == 100


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((3, 2, 5, 6)), ["(3, 2, 5, 6)", "(N, 2, 6, 6)"]),
        (np.zeros((2, 6, 6)), ["(2, 6, 6)", "(N, 2, 6, 6)"]),
        (np.full((1, 2, 6, 6), np.nan), ["nan", "finite"]),
        (np.zeros((1, 2, 6, 6), dtype=complex), ["complex128", "integers or floats"]),
        (np.array(["a"]), ["<U1"]),
    ],
)
def test_wrong_input_arrays(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], array: np.ndarray, expected: list[str]
) -> None:
    np.save(tmp_path / "x.npy", array)
    code, out, err = run(capfd, "simulate", model, "--input", tmp_path / "x.npy")
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert [text for text in expected if text not in err] == []


def test_inputs_without_a_sample(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.zeros((0, 2, 6, 6)))
    code, out, err = run(capfd, "simulate", model, "--input", tmp_path / "x.npy")
    assert (code, out) == (2, "")
    assert "input 'x' holds no samples" in err
    with pytest.raises(InputError, match="single number"):
        qhw.simulate(model, inputs={"x": np.float32(1)})


def test_diff_tells_which_file_is_wrong(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capfd, "diff", model, not_finite(tmp_path))
    assert code == 2
    assert f"{tmp_path / 'small.onnx'}: " in err


def wide_net() -> Net:
    """Two products in a row without a quantizer between them: sums of more than float32's 24 bits."""
    net = Net((40,))
    x = net.quant("x", 10, 1.0, name="quant_in")
    first = net.quant(RNG.integers(-500, 500, (40, 30)), 10, 1.0)
    second = net.quant(RNG.integers(-500, 500, (30, 4)), 10, 1.0)
    y = net.node("MatMul", x, first, name="narrow")
    net.result = net.quant(net.node("MatMul", y, second, name="wide"), 8, 2.0**28, name="quant_out")
    return net


def test_diff_says_when_qonnx_alone_has_rounded(tmp_path: Path) -> None:
    path = saved(wide_net(), tmp_path)
    result = qhw.diff(path, f"{path}@qonnx", samples=20)
    assert not result.equal
    assert "'wide'" in result.first_difference
    assert "float32" in result.note
    assert "float32" in result.tables()[0].note
    assert qhw.diff(path, f"{path}@interpreter", samples=5).note == ""


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (["--weights", "fixed<4>"], "weights"),
        (["--format", "fixed<4>"], "weights, activations"),
        (["--layer", "conv:fixed<4>"], "quant"),
        (["--float-epochs", "3"], "float_epochs"),
    ],
)
def test_options_that_would_change_nothing_are_refused(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], option: list[str], named: str
) -> None:
    code, _, err = run(capfd, "build", model, "--board", "ultra96", "--out", tmp_path / "out", *option)
    assert code == 2
    assert f"is quantised already: {named} would change nothing" in err
    assert not (tmp_path / "out").exists()


def unsupported(folder: Path) -> Path:
    net = conv_net()
    net.result = net.node("LSTMish", net.result, name="memory")
    return saved(net, folder)


def not_finite(folder: Path) -> Path:
    path = saved(conv_net(), folder)
    proto = onnx.load(path)
    weight = next(t for t in proto.graph.initializer if list(t.dims) == [3, 2, 3, 3])
    array = onnx.numpy_helper.to_array(weight).copy()
    array[1, 1, 1, 1] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    onnx.save(proto, path)
    return path


def dynamic(folder: Path) -> Path:
    path = saved(conv_net(), folder)
    proto = onnx.load(path)
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (unsupported, ["memory", "LSTMish", "Allowed: ", "Conv"]),
        (not_finite, ["nan"]),
        (dynamic, ["height"]),
    ],
)
@pytest.mark.parametrize("command", ["simulate", "build"])
def test_wrong_model_files(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    make: Callable[[Path], Path],
    expected: list[str],
    command: str,
) -> None:
    path = make(tmp_path)
    extra = ["--board", "ultra96", "--out", tmp_path / "out"] if command == "build" else []
    code, out, err = run(capfd, command, path, *extra)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert [text for text in expected if text.lower() not in err.lower()] == []
    assert not (tmp_path / "out").exists()
