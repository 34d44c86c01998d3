"""An input whose integer type is said to the build is annotated; the codes are those of the file itself."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper

from qhw import api
from qhw.data import as_dataset
from qhw.errors import InputError, QhwError
from qhw.executions import find_target
from qhw.pipeline.input_type import annotate, annotated_copy, check_type, is_type_name

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))

from qonnx_factory import Net, execute

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (6, 2, 6, 6)).astype(np.uint8)


def straight(scaled: float | None = None, quantised: bool = False) -> ModelWrapper:
    """An image that goes into a convolution, through a division and a quantizer where wanted."""
    net = Net((2, 6, 6))
    x = "x" if scaled is None else net.node("Div", "x", scaled)
    x = net.quant(x, 8, 1.0, signed=0) if quantised else x
    weight = net.quant(RNG.integers(-7, 8, (3, 2, 3, 3)) * 0.25, 4, 0.25)
    y = net.node("Conv", x, weight, kernel_shape=[3, 3])
    return ModelWrapper(net.model(net.quant(y, 8, 16.0 / (scaled or 1.0))))


@pytest.mark.parametrize("scaled", [None, 256.0])
def test_a_straight_image_gives_the_files_own_values(tmp_path: Path, scaled: float | None) -> None:
    path = tmp_path / "straight.onnx"
    model = straight(scaled)
    onnx.save(model.model, path)
    with pytest.raises(QhwError):
        api.simulate(path, inputs=PIXELS)
    result = api.simulate(path, inputs=PIXELS, input="uint8")
    (values,) = result.values.values()
    for pixels, value in zip(PIXELS, values, strict=True):
        (told,) = execute(model, pixels[None].astype(np.float32))
        assert np.array_equal(told[0], value)
    assert len(np.unique(values)) > 20
    assert [file.name for file in tmp_path.iterdir()] == ["straight.onnx"]


def test_the_annotation_is_made_where_a_data_set_goes_in_and_nothing_quantises() -> None:
    (told,) = annotate(straight(), None, has_images=True)
    assert (told.input, told.type) == ("x", "uint8")
    assert len(annotate(straight(255.0), None, has_images=True)) == 1
    assert len(annotate(straight(255.0, quantised=True), None, has_images=["x"])) == 1
    # What lowers as it is keeps its codes: a quantizer, also behind a product with a power of two.
    assert annotate(straight(quantised=True), None, has_images=True) == []
    assert annotate(straight(256.0, quantised=True), None, has_images=True) == []
    assert annotate(straight(), None, has_images=False) == []
    assert annotate(straight(), None, has_images=["y"]) == []


def test_what_the_file_says_is_not_overruled() -> None:
    model = straight()
    model.set_tensor_datatype("x", DataType["UINT4"])
    assert annotate(model, None, has_images=True) == []
    assert [one.why for one in annotate(model, "uint4", has_images=True)] == ["given"]
    with pytest.raises(InputError, match="annotated as UINT4 in the file, not as UINT8"):
        annotate(model, "uint8", has_images=True)


def test_nothing_is_written_where_nothing_is_said(tmp_path: Path) -> None:
    source = tmp_path / "given.onnx"
    onnx.save(straight(quantised=True).model, source)
    data = as_dataset((PIXELS, np.arange(6) % 2))
    assert annotated_copy(source, tmp_path / "copy.onnx", None, data) == []
    assert annotated_copy(source, tmp_path / "copy.onnx", None, None) == []
    assert [file.name for file in tmp_path.iterdir()] == ["given.onnx"]


@pytest.mark.parametrize(
    "text", ["uint", "float32", "uint17", "int1", "uint0", "uint99", "UINT8", "u8", "", "a=", "a=uint8,b"]
)
def test_what_is_no_type_is_explained(text: str) -> None:
    with pytest.raises(InputError, match=r"uint1 to uint16|int2"):
        check_type(text)


def test_names_of_types_are_told_from_files() -> None:
    assert is_type_name("uint8")
    assert is_type_name("int4")
    assert is_type_name("image=uint8,depth=int12")
    assert not is_type_name("image=uint8,depth")
    assert not is_type_name("uint8.npy")
    assert not is_type_name("inputs.npy")


def test_a_build_folders_input_is_settled(tmp_path: Path) -> None:
    (tmp_path / ".qhw").mkdir()
    with pytest.raises(InputError, match="its input type was chosen by 'qhw build'"):
        find_target(tmp_path, input="uint8")


def test_old_domains_and_names_listed_twice_do_not_disturb_the_copy(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    model = straight().model
    for node in model.graph.node:
        node.domain = "onnx.brevitas" if node.op_type == "Quant" else node.domain
    shape = onnx.helper.make_tensor_value_info(model.graph.node[0].output[0], onnx.TensorProto.FLOAT, None)
    model.graph.value_info.extend([shape, shape])
    onnx.save(model, tmp_path / "old.onnx")
    result = api.simulate(tmp_path / "old.onnx", inputs=PIXELS, input="uint8")
    assert len(np.unique(next(iter(result.values.values())))) > 20
    assert [w.message for w in recwarn if issubclass(w.category, UserWarning)] == []
