"""Networks whose forward() takes several tensors: traced, converted, trained, exported, and exact."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("brevitas", reason="needs the train extra: pip install -e '.[train]'")

import torch
from brevitas import nn as qnn
from torch import Tensor, nn

from qhw import QuantConfig
from qhw.accelerator import CPU, Batches, RecordedStep
from qhw.convert import convert
from qhw.data import as_dataset
from qhw.errors import InputError, QhwError, UnsupportedError
from qhw.export import export_qonnx, layer_values
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower, lower_model
from qhw.graph.reading.load import load_qonnx
from qhw.pipeline.options import merge
from qhw.pipeline.verification import canonical_row
from qhw.preprocessing import preprocessed, preprocessing_of
from qhw.tracing import check_runs
from qhw.train import TrainConfig, evaluate, predict, train

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (40, 2, 6, 6)).astype(np.uint8)
ROWS = RNG.normal(size=(40, 5)).astype(np.float32)
Y = np.arange(40) % 3


class Both(nn.Module):
    """An image through a convolution, and a row of numbers beside it; a layer is called like an argument."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.rows = nn.Linear(5, 8)
        self.classify = nn.Linear(24, 3)

    def forward(self, image: Tensor, rows: Tensor) -> Tensor:
        seen = torch.relu(self.norm(self.conv(image))).flatten(1)
        return self.classify(torch.cat((seen, torch.relu(self.rows(rows))), 1))


class Optional(nn.Module):
    """The second argument has a default; the third keeps its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, a: Tensor, b: Tensor | None = None, twice: bool = False) -> Tensor:
        y = self.first(a)
        y = y if b is None else y + self.second(b)
        return y + y if twice else y


class Meeting(nn.Module):
    """Inputs that meet before any layer: in a difference, a product and a matrix product."""

    def __init__(self, how: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.how, self.last = how, nn.Linear(4, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.last(self.how(a, b))


def examples(*arrays: np.ndarray) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(array).float() for array in arrays)


def exact(model: Any, file: Path, *arrays: np.ndarray) -> ExactGraph:
    """Torch in float64 and the exact graph of the exported file give the same numbers in every layer."""
    model.eval()
    graph = lower(export_qonnx(model, file))
    values = layer_values(model, arrays)
    codes = interpret(graph, encode_inputs(graph, dict(zip(graph.inputs, arrays, strict=True))), keep="all")
    compared = [name for name in codes if name in values and name not in graph.inputs]
    assert graph.outputs[0] in compared
    for name in compared:
        np.testing.assert_array_equal(decode_output(graph, name, codes[name]), values[name])
    assert len(np.unique(codes[graph.outputs[0]])) > 5
    return graph


def test_each_input_has_its_own_door(tmp_path: Path) -> None:
    model = convert(Both(), QuantConfig(inputs={"rows": "fixed<6>"}), examples(IMAGES, ROWS))
    model(*examples(IMAGES, ROWS))
    graph = exact(model, tmp_path / "both.onnx", IMAGES, ROWS)
    kinds = [graph.tensors[name] for name in graph.inputs]
    assert [name.split("_")[0] for name in graph.inputs] == ["image", "rows"]
    assert [str(kind.format) for kind in kinds] == ["uint8", "int6"]
    assert kinds[0].exponent.values == (0,)


def test_shapes_are_example_enough_and_pixels_are_told_by_the_input_that_holds_them(tmp_path: Path) -> None:
    formats = []
    for example in (((2, 6, 6), (5,)), (IMAGES, ROWS), (np.float32(IMAGES) / 255, np.round(ROWS) + 9)):
        tensors = examples(*example) if isinstance(example[0], np.ndarray) else example
        model = convert(Both(), QuantConfig(), tensors)
        model(*examples(IMAGES, ROWS))
        graph = lower(export_qonnx(model.eval(), tmp_path / "both.onnx"))
        formats.append([str(graph.tensors[name].format) for name in graph.inputs])
    assert formats == [["int8", "int8"], ["uint8", "int8"], ["int8", "uint8"]]


@pytest.mark.parametrize(
    "how", [torch.sub, torch.mul, lambda a, b: torch.cat((a, b), 1)[:, 2:6]], ids=["sub", "mul", "cat"]
)
@pytest.mark.parametrize("scaling", ["power_of_two", "free"])
def test_inputs_may_meet_before_any_layer(how: Any, scaling: str, tmp_path: Path) -> None:
    a, b = ROWS[:, :4] * 3, RNG.integers(0, 256, (40, 4)).astype(np.uint8)
    model = convert(Meeting(how), QuantConfig(scaling=scaling, outputs="fixed<6>"), examples(a, b))  # type: ignore[arg-type]
    model(*examples(a, b))
    if scaling == "power_of_two":
        exact(model, tmp_path / "meeting.onnx", a, b)
    else:
        graph = lower(export_qonnx(model.eval(), tmp_path / "meeting.onnx"))
        assert graph.inputs == ("a", "b")


class Scaled(Both):
    """Divides what comes in, as users do."""

    def forward(self, image: Tensor, rows: Tensor) -> Tensor:
        return super().forward(image / 256, rows / 2)


def test_pixels_that_are_only_divided_stay_whole(tmp_path: Path) -> None:
    model = convert(Scaled(), QuantConfig(inputs={"rows": "fixed<8>"}), examples(IMAGES, ROWS))
    model(*examples(IMAGES, ROWS))
    graph = exact(model, tmp_path / "scaled.onnx", IMAGES, ROWS)
    encodings = [graph.input_encodings[name] for name in graph.inputs]
    assert [encoding.exact for encoding in encodings] == [True, False]
    assert (encodings[0].low, encodings[0].high) == (0, 255)


def test_an_argument_with_a_default_is_an_input_where_one_is_given(tmp_path: Path) -> None:
    for count in (1, 2):
        model = convert(Optional(), QuantConfig(), ((5,),) * count)
        model(*examples(*[ROWS] * count))
        graph = exact(model, tmp_path / "optional.onnx", *[ROWS + 1, ROWS][:count])
        assert graph.inputs == ("a", "b")[:count]


def test_training_fits_every_input(tmp_path: Path) -> None:
    data = as_dataset(({"rows": ROWS, "image": IMAGES}, Y))
    config = TrainConfig(float_epochs=2, quantised_epochs=1, batch_size=8)
    first = train(Both(), data, config, QuantConfig(), checkpoints=tmp_path)
    again = train(Both(), data, config, QuantConfig(), checkpoints=tmp_path)
    assert all(
        torch.equal(one, other)
        for one, other in zip(
            first.quantised_model.state_dict().values(),
            again.quantised_model.state_dict().values(),
            strict=True,
        )
    )
    for name in ("conv.weight", "rows.weight"):
        assert not torch.equal(first.float_model.state_dict()[name], Both().state_dict()[name])
    images, rows = data.for_inputs(("image", "rows"), "").inputs("test")
    graph = exact(first.quantised_model, tmp_path / "both.onnx", images, rows)
    assert [str(graph.tensors[name].format) for name in graph.inputs] == ["uint8", "int8"]
    outputs = predict(first.quantised_model, (images, rows), dtype=torch.float64, batch_size=3)
    assert outputs.shape == (len(images), 3)


def test_whole_numbers_in_float_are_quantised_and_not_taken_for_pixels(tmp_path: Path) -> None:
    data = as_dataset(((IMAGES, np.round(ROWS * 9) + 40), Y))
    result = train(Both(), data, TrainConfig(float_epochs=0, quantised_epochs=0), QuantConfig())
    graph = lower(export_qonnx(result.quantised_model, tmp_path / "both.onnx"))
    assert [str(graph.tensors[name].format) for name in graph.inputs] == ["uint8", "int8"]


def test_recorded_steps_hold_every_input() -> None:
    data = as_dataset(((IMAGES, ROWS), Y))
    seen: list[list[float]] = []

    def step(*tensors: Tensor) -> Tensor:
        seen.append([float(tensor.sum()) for tensor in tensors])
        return tensors[0].sum()

    def record(taken: Any, *held: Tensor) -> tuple[Callable[[], object], Tensor]:
        loss = torch.zeros(())
        return lambda: loss.copy_(taken(*held)), loss

    chosen = np.arange(28).reshape(7, 4)
    plain = [[float(tensor.sum()) for tensor in batch] for batch in Batches.of(data, CPU).epoch(chosen)]
    recorded = RecordedStep(step, record)
    for batch in Batches.holding(data, CPU).epoch(chosen):
        recorded(*batch)
    assert seen == plain
    assert len(seen[0]) == 3


# --- preprocessing


def test_preprocessing_is_by_input(tmp_path: Path) -> None:
    text = "image.scale=1/255 image.mean=0.4,0.5 image.std=0.25 rows.mean=1"
    given = preprocessing_of(text)
    same = {"image": {"scale": "1/255", "mean": [0.4, 0.5], "std": 0.25}, "rows": "mean=1"}
    assert given == preprocessing_of(same)
    net = Both().eval()
    whole = preprocessed(net, given, [IMAGES.shape, ROWS.shape], ("image", "rows")).eval()
    images, rows = examples(IMAGES, ROWS)
    mean = torch.tensor([0.4, 0.5]).reshape(1, 2, 1, 1)
    wanted = net((images / 255 - mean) / 0.25, rows - 1)
    torch.testing.assert_close(whole(images, rows), wanted, rtol=1e-4, atol=1e-4)
    assert {name for name, _ in net.named_parameters()} == {name for name, _ in whole.named_parameters()}
    model = convert(whole, QuantConfig(), (images, rows))
    model(images, rows)
    graph = exact(model, tmp_path / "whole.onnx", IMAGES, ROWS)
    assert {name.split(".")[0] for name in (node.name for node in graph.nodes) if "preprocess" in name} >= {
        "preprocess_image",
        "preprocess_rows",
    }


def test_one_input_may_have_a_preprocessing_alone() -> None:
    net, (images, rows) = Both().eval(), examples(IMAGES, ROWS)
    whole = preprocessed(
        net, preprocessing_of("image.scale=0.5"), [IMAGES.shape, ROWS.shape], ("image", "rows")
    )
    torch.testing.assert_close(whole.eval()(images, rows), net(images * 0.5, rows))
    assert preprocessed(net, preprocessing_of(None), [IMAGES.shape, ROWS.shape], ("image", "rows")) is net


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("scale=1/255", "does not say for which input it is"),
        ("img.scale=1/255", "is for input 'img'"),
        ("image.scale=2 mean=1", "'mean=1' of the preprocessing names no input, others do"),
        ("image.scael=2", "unknown preprocessing 'scael'"),
        ("image.mean=1,2,3", "preprocessing of input 'image' has 3 channels, the samples have 2"),
        ({"image": 3}, "of input|unknown preprocessing 'image'"),
    ],
)
def test_another_preprocessing_is_refused(given: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        preprocessed(Both(), preprocessing_of(given), [IMAGES.shape, ROWS.shape], ("image", "rows"))


# --- what is refused


class Unread(Both):
    def forward(self, image: Tensor, rows: Tensor) -> Tensor:
        return self.classify(torch.cat((self.conv(image).flatten(1),) * 2, 1)[:, :24])


class AnyNumber(Both):
    def forward(self, *inputs: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(*inputs)


class Keyword(Both):
    def forward(self, image: Tensor, *, rows: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(image, rows)


@pytest.mark.parametrize(
    ("model", "example", "says"),
    [
        (Both, (IMAGES,), r"takes 2 inputs \(image, rows\), and 1 is given"),
        (Both, (IMAGES, ROWS, ROWS), r"takes 2 inputs \(image, rows\), and 3 are given"),
        (Both, (ROWS, IMAGES), r"argument 'image' of shape \(40, 5\)"),
        (Both, (IMAGES, ROWS[:, :3]), r"argument 'rows' of shape \(40, 3\)"),
        (Both, (IMAGES[..., :4], ROWS), r"arguments 'image' of shape .* and 'rows' of shape"),
        (Both, (IMAGES, ROWS[:7]), "example inputs have shapes"),
        (Unread, (IMAGES, ROWS), "does not depend on its argument 'rows'"),
        (AnyNumber, (IMAGES, ROWS), r"\(\*inputs\)"),
        (Keyword, (IMAGES, ROWS), r"takes 2 inputs \(image, rows=…\)"),
    ],
)
def test_one_message_names_the_argument(model: type[nn.Module], example: Any, says: str) -> None:
    with pytest.raises((InputError, UnsupportedError), match=says):
        convert(model(), QuantConfig(), examples(*example))


def test_a_format_for_no_input_is_refused() -> None:
    with pytest.raises(InputError, match="inputs states a format for 'row'") as caught:
        convert(Both(), QuantConfig(inputs={"row": "fixed<6>"}), examples(IMAGES, ROWS))
    assert "did you mean rows" in str(caught.value.hint)
    with pytest.raises(InputError, match="input 'rows'"):
        QuantConfig(inputs={"rows": "fixed<"})
    config = QuantConfig(inputs={"rows": "fixed<6>"})
    assert QuantConfig.from_mapping(config.to_mapping()) == config
    assert ("input 'rows'", config.input("rows")) in list(config.formats())


def test_data_of_another_number_of_inputs_are_refused_before_training() -> None:
    with pytest.raises(InputError, match=r"forward\(\) of Both takes 2 inputs .* has one input"):
        train(Both(), as_dataset((IMAGES, Y)), TrainConfig(), QuantConfig())
    with pytest.raises(QhwError, match="argument 'image'"):
        train(Both(), as_dataset(((ROWS, IMAGES), Y)), TrainConfig(), QuantConfig())


def test_a_trained_networks_data_are_checked_before_it_is_judged() -> None:
    check_runs(Both(), examples(IMAGES, ROWS))
    with pytest.raises(InputError, match=r"arguments 'image' of shape \(40, 5\) and 'rows' of shape \(40, 2"):
        check_runs(Both(), examples(ROWS, IMAGES))
    named, ordered = as_dataset(({"rows": ROWS, "image": IMAGES}, Y)), as_dataset(((IMAGES, ROWS), Y))
    assert evaluate(Both(), named) == evaluate(Both(), ordered)


def test_formats_of_inputs_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "build.toml").write_text(
        '[quant.inputs]\nrows = "fixed<10>"\n[preprocess.image]\nscale = "1/255"'
    )
    options = merge(tmp_path / "build.toml", {})
    assert str(options.quant_config().input("rows")) == "fixed<10>"
    assert options.quant_config().input("image") is None
    assert set(preprocessing_of(options.preprocess)) == {"image"}


# --- Brevitas's own


class OwnLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.at_image, self.at_rows = qnn.QuantIdentity(bit_width=8), qnn.QuantIdentity(bit_width=8)
        self.a = qnn.QuantLinear(72, 6, bias=False, weight_bit_width=4)
        self.b = qnn.QuantLinear(5, 6, bias=False, weight_bit_width=4)
        self.relu_a, self.relu_b = qnn.QuantReLU(bit_width=6), qnn.QuantReLU(bit_width=6)
        self.joined = qnn.QuantIdentity(bit_width=6)
        self.classify = qnn.QuantLinear(12, 3, bias=False, weight_bit_width=4)

    def forward(self, image: Tensor, rows: Tensor) -> Tensor:
        seen = self.relu_a(self.a(self.at_image(image.flatten(1))))
        return self.classify(self.joined(torch.cat((seen, self.relu_b(self.b(self.at_rows(rows)))), 1)))


def test_a_brevitas_model_keeps_the_names_of_its_arguments(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = OwnLayers().train(), examples(IMAGES, ROWS)
    model(*inputs)
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Brevitas's exporter uses what torch deprecates
        lowering = lower_model(load_qonnx(export_qonnx(model, tmp_path / "own.onnx", inputs)))
    graph, canonical = lowering.graph, lowering.canonical
    assert canonical is not None
    assert graph.inputs == ("image", "rows")
    arrays = {"image": IMAGES.astype(np.float32), "rows": ROWS}
    codes = interpret(graph, encode_inputs(graph, arrays), keep="all")
    row = canonical_row(graph, codes, arrays, canonical)
    assert (row["mismatches"], row["vectors"]) == (0, 40)
    assert row["distinct_codes"] > 10
