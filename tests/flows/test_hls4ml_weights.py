"""Weights in headers and as text: the same for synthesis and simulation, or a message that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hls4ml_project import designed, small_graph, weight_file
from weight_files import write_weights

from qhw.errors import CheckFailedError, InputError
from qhw.flows.hls4ml import Hls4mlFlow
from qhw.flows.hls4ml.weights import check_weights
from qhw.graph.interpreter import interpret

pytest.importorskip("hls4ml")
FLOW = Hls4mlFlow()
GRAPH = small_graph()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FLOW.write(designed(FLOW, GRAPH), tmp_path_factory.mktemp("written") / "project").folder


@pytest.fixture
def weights(written: Path) -> Path:
    """The text file of conv1's weights; what a test does to it is undone."""
    return weight_file(written, FLOW.open(written).name, "l_conv1")


@pytest.fixture(autouse=True)
def _restored(weights: Path):
    header = weights.with_suffix(".h")
    before = weights.read_text(), header.read_text()
    yield
    for path, text in zip((weights, header), before, strict=True):
        path.unlink(missing_ok=True)
        path.write_text(text)


def test_what_is_written_agrees(written: Path) -> None:
    assert len(list((written / "firmware" / "weights").glob("*.h"))) >= 6
    check_weights(written)


def changed(weights: Path, index: int) -> str:
    values = weights.read_text().split(", ")
    values[index] = repr(float(values[index]) + 0.125)
    return ", ".join(values)


def test_a_change_in_one_of_the_two_names_it_and_the_element(written: Path, weights: Path) -> None:
    name = weights.with_suffix(".h").name
    before, text = weights.read_text(), changed(weights, 7)
    weights.write_text(text)
    with pytest.raises(CheckFailedError, match=rf"{name} and {weights.name} differ in element 7"):
        check_weights(written)
    write_weights(weights, text)
    check_weights(written)
    weights.write_text(before)
    with pytest.raises(CheckFailedError, match="differ in element 7: synthesis reads"):
        check_weights(written)


def test_the_same_numbers_may_be_written_otherwise(written: Path, weights: Path) -> None:
    weights.write_text(",".join(repr(float(value)) for value in weights.read_text().split(", ")) + "\n")
    check_weights(written)


@pytest.mark.parametrize("text", ["", "1", "{before}, 0", "{before}x", "{before} /* 7", "nan"])
def test_more_or_fewer_or_no_numbers(written: Path, weights: Path, text: str) -> None:
    weights.write_text(text.format(before=weights.read_text()))
    with pytest.raises(CheckFailedError, match="differ in element"):
        check_weights(written)


def test_the_same_words_in_both_are_no_numbers(written: Path, weights: Path) -> None:
    write_weights(weights, "seven" + weights.read_text()[5:])
    with pytest.raises(CheckFailedError, match="differ in element 0: synthesis reads 'seven"):
        check_weights(written)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("#ifndef __SYNTHESIS__", "#ifdef __SYNTHESIS__"),
        ("#else", "#endif\n#ifdef OTHER"),
        ("};", "};\nstatic int more;"),
        ("//Numpy", "// \\\n//Numpy"),
        (" = {", " = { {"),
    ],
)
def test_a_header_of_another_form_is_refused(written: Path, weights: Path, old: str, new: str) -> None:
    header = weights.with_suffix(".h")
    assert old in header.read_text()
    header.write_text(header.read_text().replace(old, new, 1))
    with pytest.raises(CheckFailedError, match=f"{header.name} has not the form"):
        check_weights(written)


def test_a_missing_file_and_a_link_are_named(written: Path, weights: Path, tmp_path: Path) -> None:
    weights.rename(tmp_path / "moved")
    with pytest.raises(CheckFailedError, match=rf"{weights.name} is missing"):
        check_weights(written)
    weights.symlink_to(tmp_path / "moved")
    with pytest.raises(InputError, match="is a symbolic link"):
        check_weights(written)


def test_the_simulation_does_not_verify_what_is_not_synthesised(written: Path, weights: Path) -> None:
    inputs = {"x": np.zeros((1, 2, 6, 6), dtype=np.int64)}
    header = weights.with_suffix(".h")
    header.write_text(header.read_text().replace("{", "{1", 1))
    with pytest.raises(CheckFailedError, match=header.name):
        FLOW.simulate(FLOW.open(written), inputs)
    write_weights(weights, weights.read_text())
    assert np.array_equal(FLOW.simulate(FLOW.open(written), inputs)["fc"], interpret(GRAPH, inputs)["fc"])
