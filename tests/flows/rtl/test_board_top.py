"""The loader of a board: a design behind its serial line, bit by bit, against the interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rtl_designs import chain, design_of

from qhw.boards import load_board
from qhw.flows.base import load_project_flow
from qhw.flows.rtl.board_top import BAUD, constraints_text
from qhw.flows.rtl.host import ASK, IMAGE
from qhw.flows.rtl.project import identity, read_description
from qhw.formats.modes import IntArray
from qhw.graph.interpreter import interpret
from qhw.rtl.base import Port, Ports, Unit
from qhw.rtl.simulation.verilator import Instance, Simulator, pack

DIVIDER = 25


def line_of(content: bytes, divider: int, gap: int) -> IntArray:
    """The level of a serial line in each clock cycle."""
    frames = []
    for byte in content:
        bits = [0, *(byte >> i & 1 for i in range(8)), 1]
        frames.append(np.concatenate([np.repeat(bits, divider), np.ones(gap, dtype=np.int64)]))
    return np.concatenate(frames)


def read_from(line: IntArray, divider: int) -> bytes:
    """The bytes on a serial line, each read in the middle of its bits."""
    found, at = [], 0
    while at < len(line):
        if line[at]:
            at += 1
            continue
        middle = at + divider // 2
        bits = line[middle : middle + 10 * divider : divider]
        if len(bits) < 10:
            break
        assert (bits[0], bits[9]) == (0, 1)
        found.append(sum(int(bit) << i for i, bit in enumerate(bits[1:9])))
        at = middle + 9 * divider
    return bytes(found)


@pytest.mark.slow
def test_images_go_in_and_codes_come_out_by_the_serial_line(simulator: Simulator, tmp_path: Path) -> None:
    graph = chain()
    project = load_project_flow("rtl").write(design_of(graph), tmp_path / "project")
    description = read_description(project.folder)
    x, y = description.inputs[0], description.outputs[0]
    images = np.random.default_rng(0).integers(-8, 8, (5, 6))
    codes = x.codes(images) & 0xF
    words = bytes(sum(int(v) << 4 * i for i, v in enumerate(row)) for row in codes)
    assert x.bits <= 8
    rows = np.frombuffer(words, dtype=np.uint8).reshape(len(images), -1)
    given = ASK + b"?".join(IMAGE + row.tobytes() for row in rows)
    sources = [p.read_text() for p in sorted((project.folder / "rtl").rglob("*.v"))]
    sources += [p.read_text() for p in sorted((project.folder / "board").rglob("*.v"))]
    memories = f"{(project.folder / 'memories').as_posix()}/"
    text = "\n".join(sources).replace('"memories/', f'"{memories}')
    ports = Ports((Port("receive", 1), Port("button", 1)), (Port("transmit", 1), Port("led", 4)), ())
    unit = Unit(
        name="board",
        summary="the design behind its pins",
        ranges=(),
        sources=(),
        ports=lambda values: ports,
        latency=lambda values: 1,
        reference=lambda values, inputs: {},
        emit=lambda values: text,
    )
    start, end = np.ones(40, dtype=np.int64), np.ones(40 * 10 * DIVIDER, dtype=np.int64)
    receive = np.concatenate([start, line_of(given, DIVIDER, 3), end])
    stimuli = pack(ports.inputs, {"receive": receive[:, None], "button": np.zeros_like(receive)[:, None]})
    (shown,) = simulator.run([Instance(unit, {})], [stimuli])
    got = read_from(shown[:, 0] & 1, DIVIDER)
    own = identity(project.folder)
    assert got[: len(own)] == own
    got = got[len(own) :]
    width = -(-y.bits // 8)
    words = np.frombuffer(got, dtype=np.uint8).reshape(-1, width).astype(np.int64) @ (
        1 << 8 * np.arange(width)
    )
    mask = (1 << y.element.width) - 1
    lanes = np.stack([words >> i * y.element.width & mask for i in range(y.lanes)], axis=1)
    expected = interpret(graph, {"x": images})["y"]
    assert np.array_equal(y.mantissas(lanes), expected)
    assert not (shown[:, 1] & 0b1000).any()


def test_a_board_without_a_pin_file_has_no_constraints() -> None:
    board = load_board("ulx3s")
    text = constraints_text(board)
    assert text is not None
    assert 'LOCATE COMP "clk" SITE "G2";' in text
    assert 'FREQUENCY PORT "clk" 25 MHZ;' in text
    assert board.clock_mhz * 1e6 / BAUD == DIVIDER
    assert constraints_text(load_board("ultra96")) is None
