"""The loader of a board: a design behind its serial line, bit by bit, against the interpreter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rtl_designs import chain, coded, design_of

from qhw.boards import load_board
from qhw.cost.pricing.design import Design
from qhw.flows.base import load_project_flow
from qhw.flows.rtl.board_top import BAUD
from qhw.flows.rtl.host import ASK, IMAGE
from qhw.flows.rtl.pin_file import boards_with_pins, pins_of
from qhw.flows.rtl.project import identity, read_description
from qhw.flows.rtl.routing import router_of
from qhw.formats.modes import IntArray
from qhw.graph.interpreter import interpret
from qhw.rtl.base import Port, Ports, Unit
from qhw.rtl.simulation.verilator import Instance, Simulator, pack


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
@pytest.mark.parametrize("board", ["ulx3s", "colorlight-i9", "icebreaker"])
def test_images_go_in_and_codes_come_out_by_the_serial_line(
    board: str, simulator: Simulator, tmp_path: Path
) -> None:
    """Boards with four LEDs and a button, one LED and no button, and levels the other way round."""
    graph = chain()
    project = load_project_flow("rtl").write(design_of(graph, board=board), tmp_path / "project")
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
    pins = pins_of(load_board(board))
    assert pins is not None
    outputs = (Port("transmit", 1), Port("led", len(pins.leds)))
    ports = Ports((Port("receive", 1), *([Port("button", 1)] if pins.button else [])), outputs, ())
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
    divider = int(pins.clock_mhz)
    assert divider * BAUD == pins.clock_mhz * 1e6
    start, end = np.ones(40, dtype=np.int64), np.ones(40 * 10 * divider, dtype=np.int64)
    receive = np.concatenate([start, line_of(given, divider, 3), end])[:, None]
    released = 1 - pins.button.active if pins.button else 0
    given_ports = {"receive": receive, "button": np.full_like(receive, released)}
    stimuli = pack(ports.inputs, {port.name: given_ports[port.name] for port in ports.inputs})
    (shown,) = simulator.run([Instance(unit, {})], [stimuli])
    got = read_from(shown[:, 0] & 1, divider)
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
    lit = {name: (shown[:, 1] >> i & 1) == pin.active for i, (name, pin) in enumerate(pins.leds.items())}
    assert lit["ready"][-1]
    assert not lit["ready"][:8].any()
    assert not lit.get("lost", np.zeros(1, dtype=bool)).any()


def constraints(board: str, folder: Path) -> str:
    project = load_project_flow("rtl").write(design_of(chain(), board=board), folder / board)
    (found,) = (
        path for path in (project.folder / "board").iterdir() if path.suffix in (".lpf", ".cst", ".pcf")
    )
    return found.read_text()


def test_pins_are_written_as_the_tools_of_the_family_read_them(tmp_path: Path) -> None:
    text = constraints("ulx3s", tmp_path)
    assert 'LOCATE COMP "clk" SITE "G2";' in text
    assert 'IOBUF PORT "led[3]" PULLMODE=NONE IO_TYPE=LVCMOS33 DRIVE=4;' in text
    assert 'FREQUENCY PORT "clk" 25 MHZ;' in text
    assert 'IO_LOC "clk" 52;\nIO_PORT "clk" IO_TYPE=LVCMOS33 PULL_MODE=NONE;' in constraints(
        "tang-nano-9k", tmp_path
    )
    assert "set_io clk 35\nset_io -pullup yes receive 6\n" in constraints("icebreaker", tmp_path)
    assert 'LOCATE COMP "led" SITE "L2";' in constraints("colorlight-i9", tmp_path)


def without_board(design: Design, folder: Path) -> str:
    project = load_project_flow("rtl").write(design, folder / "project")
    assert not (project.folder / "board").exists()
    return read_description(project.folder).no_board


def test_why_a_design_has_no_board(tmp_path: Path) -> None:
    """No pin file, a clock that is not the oscillator's, more outputs than one line carries."""
    one, other, several = (tmp_path / name for name in ("one", "other", "several"))
    assert "qhw has no pin file of ultra96; it has those of" in without_board(
        design_of(chain(), board="ultra96"), one
    )
    design = design_of(chain())
    faster = replace(design, board=design.board.at_clock(50))
    assert "the oscillator of ulx3s has 25 MHz" in without_board(faster, other)
    assert "the design has 1 inputs and" in without_board(design_of(coded()), several)


@pytest.mark.parametrize("name", boards_with_pins())
def test_a_board_with_pins_is_a_board_of_the_package_at_its_oscillators_clock(name: str) -> None:
    board, pins = load_board(name), pins_of(load_board(name))
    assert pins is not None
    assert pins.clock_mhz == board.clock_mhz
    assert len({pin.site for pin in pins.ports.values()}) == len(pins.ports)
    router = router_of(board.family)
    assert router is not None
    assert router.takes(board.part)
