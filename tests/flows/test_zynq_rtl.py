"""The rtl flow's design behind DMA, by the folder's own driver, in Verilator: digits, and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from trained_digits import digits_graph, test_images
from zynq_simulation import Board, compiled, imported, with_bitstream

from qhw.boards import load_board
from qhw.flows.base import Project, load_project_flow
from qhw.flows.rtl.project import identity
from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray
from qhw.graph.builder import GraphBuilder
from qhw.graph.encode import decode_output, encode_input
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph

FLOW = load_project_flow("rtl")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    design = FLOW.best(FLOW.prepare(digits_graph(), load_board("pynq-z2")), fps=100_000)
    return FLOW.write(design, tmp_path_factory.mktemp("zynq") / "project")


@pytest.fixture(scope="module")
def program(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(project.folder, tmp_path_factory.mktemp("board"))


@pytest.fixture
def driver(
    project: Project, program: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ModuleType]:
    with Board(program, project.folder) as board:
        found = imported(project.folder, monkeypatch, board.pynq)
        with_bitstream(project.folder / "zynq" / "driver")
        yield found


def logits(images: Any) -> IntArray:
    """What the exact graph gives."""
    graph = digits_graph()
    return interpret(graph, {"x": encode_input(graph, "x", images)})["logits"]


def test_digits_by_the_driver(driver: ModuleType) -> None:
    """Every code and value, whatever the batch, with stalls at every stream; and what the registers count."""
    images, labels = test_images(100)
    expected = logits(images)
    accelerator = driver.Accelerator(batch=32)
    values = accelerator.run(images)
    assert np.array_equal(values, decode_output(digits_graph(), "logits", expected))
    assert (values.argmax(axis=1) == labels).mean() > 0.85
    assert np.array_equal(accelerator.run_codes(accelerator.encode(images[:7])), expected[:7])
    counted = accelerator.counters
    assert counted["images"] == 107
    assert counted["cycles"] > 107 * 8
    accelerator.reset()
    assert accelerator.counters == {"images": 0, "cycles": 0}
    assert np.array_equal(accelerator.run_codes(accelerator.encode(images[:3])), expected[:3])
    assert accelerator.run(images[:0]).shape == (0, 10)


def test_a_bitstream_of_another_design(driver: ModuleType, project: Project, tmp_path: Path) -> None:
    folder = project.folder / "zynq" / "driver"
    text = (folder / "accelerator.json").read_text()
    facts = json.loads(text)
    (tmp_path / "accelerator.json").write_text(text.replace(facts["identity"], "7168770000000000"))
    with pytest.raises(
        RuntimeError, match=f"holds the design {facts['identity']}, .* describes 7168770000000000"
    ):
        driver.Accelerator(with_bitstream(tmp_path), folder=tmp_path)
    assert bytes.fromhex(facts["identity"]) == identity(project.folder)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros((2, 64)), r"samples of 'x' have shape \(2, 64\): \(N, 1, 8, 8\) is needed"),
        (np.zeros((1, 8, 8)), r"have shape \(1, 8, 8\)"),
        (np.full((1, 1, 8, 8), np.nan), r"NaN or infinity, first at \(0, 0, 0, 0\)"),
        (np.array([["a"]]), "integers or floats"),
        ({"y": np.zeros((1, 1, 8, 8))}, "arrays are given for y: x are needed"),
    ],
)
def test_samples_that_are_refused(driver: ModuleType, samples: Any, words: str) -> None:
    """Before anything is sent: the next images are not disturbed."""
    accelerator = driver.Accelerator(batch=2)
    with pytest.raises(ValueError, match=words):
        accelerator.run(samples)
    assert accelerator.counters["images"] == 0


def test_codes_and_batches_that_are_refused(driver: ModuleType, tmp_path: Path) -> None:
    accelerator = driver.Accelerator(batch=2)
    for wrong in (32, -1, 0.5):
        with pytest.raises(ValueError, match="codes of 'x' hold other numbers than integers from 0 to 31"):
            accelerator.run_codes(np.full((1, 1, 8, 8), wrong))
    with pytest.raises(ValueError, match="batch is 0: 1 to"):
        driver.Accelerator(batch=0)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.bit is not there"):
        driver.Accelerator(tmp_path / "nowhere.bit")


def test_an_accelerator_that_does_not_answer(driver: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent is too short for an image: the driver says so, in time, and the next one works again."""
    images, _ = test_images(2)
    accelerator = driver.Accelerator(batch=2, seconds=0.2)
    sender = type(accelerator._sending[0])
    with monkeypatch.context() as patched:
        patched.setattr(sender, "transfer", shortened(sender.transfer))
        with pytest.raises(RuntimeError, match=r"does not answer within 0\.2 s \(status 0x3, 1 images left"):
            accelerator.run(images)
    again = driver.Accelerator(batch=2)
    assert np.array_equal(again.run(images), decode_output(digits_graph(), "logits", logits(images)))


def shortened(transfer: Callable[..., None]) -> Callable[..., None]:
    """A transfer that leaves out the last beat of what is sent."""

    def moved(channel: Any, array: Any, nbytes: int) -> None:
        transfer(channel, array, nbytes=nbytes - 8 * (channel._kind == b"S"))

    return moved


def two_ended() -> ExactGraph:
    """Two inputs that meet, one of them wider than a byte, and two outputs."""
    b = GraphBuilder("two_ended")
    x, wide = b.input("x", (2, 3), Integer(4)), b.input("wide", (2, 3), Integer(11))
    met = b.add("met", x, wide)
    first = b.max_pool("first", wide, (2,), (1,))
    return b.finish([first, b.requant("second", met, Integer(5), 4)])


@pytest.mark.slow
def test_several_inputs_and_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has an engine of its own; ends of different lengths, and batches that the samples do not fill."""
    graph = two_ended()
    project = FLOW.write(FLOW.best(FLOW.prepare(graph, load_board("kv260"))), tmp_path / "project")
    (tmp_path / "board").mkdir()
    program = compiled(project.folder, tmp_path / "board")
    rng = np.random.default_rng(2)
    given = {"x": rng.integers(-8, 8, (9, 2, 3)), "wide": rng.integers(-1024, 1024, (9, 2, 3))}
    with Board(program, project.folder, seed=7) as board:
        driver = imported(project.folder, monkeypatch, board.pynq)
        with_bitstream(project.folder / "zynq" / "driver")
        found = driver.Accelerator(batch=4).run_codes(given)
    expected = interpret(graph, given)
    for name in graph.outputs:
        assert np.array_equal(found[name], expected[name]), name
