"""Between a DMA engine's beats and a design's words, cycle by cycle, against the driver's view of memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qhw.flows.rtl.circuit import files_of
from qhw.rtl.base import Port, Ports, Unit
from qhw.rtl.simulation.verilator import Instance, Simulator, pack
from qhw.zynq.driver import _packed, _unpacked
from qhw.zynq.facts import _tensor_facts
from qhw.zynq.layout import DmaTensor

CASES = (
    (1, 5, False, 13),
    (3, 8, True, 7),
    (4, 8, True, 6),
    (10, 12, True, 3),
    (2, 17, True, 5),
    (1, 33, False, 4),
)
"""Lanes, bits, sign and words: several words in a beat, beats of a word, images that end within a beat."""

IMAGES = 3


def tensor(case: tuple[int, int, bool, int]) -> DmaTensor:
    lanes, bits, signed, words = case
    return DmaTensor("x", (lanes * words,), np.arange(lanes * words), lanes, bits, signed)


def looped(number: int, end: DmaTensor, memory: NDArray[np.generic]) -> Unit:
    """Beats that lie in a memory, as words, and as beats again; what moves at both places is shown."""
    beats, width = memory.view(np.uint64).reshape(-1), end.lanes * end.bits
    settings = f".LANES({end.lanes}), .W({end.bits}), .C({end.container_bits}), .WORDS({end.words})"
    content = sum(int(beat) << 64 * i for i, beat in enumerate(beats))
    library = [path.read_text() for path in files_of(["beats_to_words", "words_to_beats"])]
    text = f"""
module looped (
    input clk, reset, go, take,
    output reg [{width - 1}:0] word, output reg moved, output reg [63:0] beat, output reg out, last
);
    localparam [{64 * len(beats) - 1}:0] MEMORY = {64 * len(beats)}'h{content:x};
    reg [31:0] at;
    wire x_ready, valid, ready, y_valid, y_last;
    wire [{width - 1}:0] x;
    wire [63:0] y;
    wire x_valid = go & at < {len(beats)};
    always @(posedge clk) at <= reset ? 0 : at + (x_valid & x_ready);
    beats_to_words #({settings}) words (
        .clk(clk), .reset(reset), .x_valid(x_valid), .x(MEMORY[64 * at +: 64]), .x_ready(x_ready),
        .y_valid(valid), .y_ready(ready), .y(x)
    );
    words_to_beats #({settings}, .SIGNED({int(end.signed)})) back (
        .clk(clk), .reset(reset), .x_valid(valid), .x(x), .x_ready(ready),
        .y_valid(y_valid), .y_ready(take), .y(y), .y_last(y_last)
    );
    always @(posedge clk) begin
        word <= x;
        moved <= valid & ready & ~reset;
        beat <= y;
        out <= y_valid & take & ~reset;
        last <= y_last;
    end
endmodule
"""
    inputs = tuple(Port(name, 1) for name in ("reset", "go", "take"))
    outputs = (Port("word", width), Port("moved", 1), Port("beat", 64), Port("out", 1), Port("last", 1))
    return Unit(
        name="looped",
        summary="adapters",
        ranges=(),
        sources=(),
        ports=lambda values: Ports(inputs, outputs, ()),
        latency=lambda values: 0,
        reference=lambda values, inputs: {},
        emit=lambda values: "\n".join([text, *(library if number == 0 else ())]),
    )


def test_memory_becomes_words_and_memory_again(simulator: Simulator) -> None:
    rng = np.random.default_rng(0)
    instances, stimuli, given = [], [], []
    for number, end in enumerate(map(tensor, CASES)):
        low = -1 << end.bits - 1 if end.signed else 0
        codes = rng.integers(low, low + (1 << end.bits), (IMAGES, end.order.size))
        codes[0, :2] = low, low + (1 << end.bits) - 1
        memory = _packed(codes, _tensor_facts(end))
        assert np.array_equal(_unpacked(memory, _tensor_facts(end)), codes)
        assert memory.nbytes == IMAGES * 8 * end.beats
        instances.append(Instance(looped(number, end, memory), {}))
        drawn = {name: rng.random(600) < share for name, share in (("go", 0.7), ("take", 0.6))}
        drawn["reset"] = np.arange(600) < 4
        streams = {name: np.asarray(values, dtype=np.int64)[:, None] for name, values in drawn.items()}
        stimuli.append(pack(instances[-1].inputs, streams))
        given.append((end, codes, memory))
    for (end, codes, memory), rows in zip(given, simulator.run(instances, stimuli), strict=True):
        word_columns = -(-end.lanes * end.bits // 32)
        bits = np.unpackbits(np.ascontiguousarray(rows).view(np.uint8), axis=1, bitorder="little")
        moved, out, last = (rows[:, at] & 1 for at in (word_columns, -2, -1))
        beat = rows[:, word_columns + 1 : word_columns + 3]
        assert (moved.sum(), out.sum()) == (IMAGES * end.words, IMAGES * end.beats)
        elements = bits[:, : end.lanes * end.bits].reshape(len(bits), end.lanes, end.bits)[moved == 1]
        numbers = elements.astype(np.int64) @ (1 << np.arange(end.bits, dtype=np.int64))
        assert np.array_equal(numbers.reshape(codes.shape), codes & (1 << end.bits) - 1)
        taken = np.ascontiguousarray(beat[out == 1]).view(np.uint64)[:, 0]
        assert np.array_equal(taken, memory.view(np.uint64).reshape(-1))
        assert np.array_equal(np.flatnonzero(last[out == 1]), np.arange(1, IMAGES + 1) * end.beats - 1)
