"""Complete folded layers, simulated, against the exact graph: every code of every output."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qhw.cost.calibration.layers import FoldedLayer
from qhw.cost.calibration.reference_layers import convolution, depthwise, linear
from qhw.errors import UnsupportedError
from qhw.formats.modes import IntArray
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.rtl.base import Port, Ports, Unit
from qhw.rtl.simulation.verilator import Instance, Simulator, pack

IMAGES = 24

LAYERS = {
    "convolution": convolution(),
    "convolution, two words a pixel, all outputs at once": convolution(8, 2),
    "depthwise": depthwise(1),
    "depthwise in LUTs, not folded over channels": depthwise(0, 8),
    "linear": linear(),
}


def layers() -> list[FoldedLayer]:
    """Each with a module name of its own: all are simulated in one build."""
    return [
        replace(layer, graph=replace(layer.graph, name=f"layer{i}"))
        for i, layer in enumerate(LAYERS.values())
    ]


def drawn_images(graph: ExactGraph) -> IntArray:
    kind = graph.tensors["x"]
    codes = np.random.default_rng(3).choice(kind.format.codes(), (IMAGES, *kind.shape))
    return np.asarray(kind.format.mantissa_of(codes))


def behind_a_queue(layer: FoldedLayer, words: int) -> Unit:
    """The layer, fed from a queue that holds all words, only while ``gate`` is 1."""
    width = layer.ports.inputs[-1].bits
    unit, (reset, _, ready, *load, x) = layer.as_unit(), layer.ports.inputs
    inputs = (reset, ready, *load, Port("push", 1), Port("gate", 1), x)
    pins = ", ".join(f"output [{port.bits - 1}:0] {port.name}" for port in layer.ports.outputs[1:])
    given = ", ".join(f"input [{port.bits - 1}:0] {port.name}" for port in inputs)
    own = ("clk", "reset", "y_ready", "load", "load_address", "load_word", "y_valid", "y_last", "y")
    text = f"""
module queued (input clk, {given}, {pins});
    wire ready, valid;
    wire [{width - 1}:0] word;
    fifo #(.D({words}), .W({width}), .STYLE(2)) queue (
        .clk(clk), .reset(reset), .x_valid(push), .x(x), .y_valid(valid), .y_ready(ready & gate), .y(word)
    );
    {layer.graph.name} layer (
        {", ".join(f".{name}({name})" for name in own)}, .x_valid(valid & gate), .x(word), .x_ready(ready)
    );
endmodule
"""
    ports = Ports(inputs, layer.ports.outputs[1:], ())
    return replace(
        unit, name="queued", ports=lambda values: ports, emit=lambda values: layer.verilog() + text
    )


def stimuli(layer: FoldedLayer, words: IntArray, steps: int) -> dict[str, IntArray]:
    """A step of reset, one for every word of weights, then the images, with gaps at both ends."""
    random = np.random.default_rng(4)
    weights = layer.weight_words()
    start = 1 + len(weights)
    quiet = np.zeros((start + steps, 1), dtype=np.int64)
    streams = {name: quiet.copy() for name in ("reset", "load", "load_address", "push", "y_ready", "gate")}
    streams["reset"][0] = 1
    streams["load"][1:start] = 1
    streams["load_address"][1:start, 0] = np.arange(len(weights))
    weight_bits = layer.formats[1].width
    shifts = [weight_bits * lane for lane in range(weights.shape[1])]
    joined = (weights.astype(object) << np.array(shifts, dtype=object)).sum(axis=1)
    streams["load_word"] = quiet.astype(object)
    streams["load_word"][1:start, 0] = joined
    streams["push"][start : start + len(words)] = 1
    streams["x"] = np.zeros((start + steps, words.shape[1]), dtype=np.int64)
    streams["x"][start : start + len(words)] = words
    # Both ends willing, then each of them seldom.
    often = np.resize(np.repeat([[0.9, 0.9], [0.2, 1.0], [1.0, 0.1], [1.0, 1.0]], 400, axis=0), (steps, 2))
    streams["gate"][start:], streams["y_ready"][start:] = np.split(
        random.random((steps, 2)) < often, 2, axis=1
    )
    return streams


@pytest.mark.slow
def test_every_output_is_the_exact_graph_s(simulator: Simulator) -> None:
    images = [drawn_images(layer.graph) for layer in layers()]
    queued, rows, ready = [], [], []
    for layer, given in zip(layers(), images, strict=True):
        words, work = layer.input_words(given), layer.loops
        steps = 3 * IMAGES * (work.pixels * work.output_folds * (work.input_folds + 4) + 60)
        streams = stimuli(layer, words, steps)
        queued.append(Instance(behind_a_queue(layer, len(words)), {}))
        rows.append(pack(queued[-1].inputs, streams))
        ready.append(streams["y_ready"][:, 0])
    shown = simulator.run(queued, rows)
    for name, layer, given, seen, willing in zip(LAYERS, layers(), images, shown, ready, strict=True):
        expected = layer.output_words(interpret(layer.graph, {"x": given})["y"])
        assert_words(layer, seen, willing, expected, name)


def assert_words(
    layer: FoldedLayer, shown: IntArray, willing: IntArray, expected: IntArray, name: str
) -> None:
    """What is valid behind one edge is taken at the next, if the other end is ready then."""
    valid, last, y = (shown[:-1, :1], shown[:-1, 1:2], shown[:-1, 2:])
    taken = (valid[:, 0] == 1) & (willing[1:] == 1)
    wanted = pack([layer.ports.outputs[-1]], {"y": expected})
    assert taken.sum() == len(wanted), name
    assert (y[taken] == wanted).all(), name
    ends = np.flatnonzero(last[taken, 0]) + 1
    assert ends.tolist() == [(i + 1) * len(wanted) // IMAGES for i in range(IMAGES)], name


def test_what_no_layer_is_made_for_is_named() -> None:
    with pytest.raises(UnsupportedError, match="SIMD of linear is 5"):
        linear(4, 5)
    with pytest.raises(UnsupportedError, match="PE of convolution is 3"):
        convolution(3)
    with pytest.raises(UnsupportedError, match="linear is not folded"):
        linear(16, 32)
    graph = convolution().graph
    with pytest.raises(UnsupportedError, match="convolution is Conv"):
        FoldedLayer(replace(graph, nodes=graph.nodes[:1]), 2, 4)
