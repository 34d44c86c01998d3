"""A saved graph comes back the same, and a changed file is found."""

import json

import numpy as np
import pytest

from qhw.errors import InputError
from qhw.formats.integer import Integer
from qhw.formats.modes import Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import Exponent, InputEncoding, OutputScale
from qhw.graph.serialize import graph_hash, load_graph, node_hashes, save_graph
from qhw.sim.interpreter import interpret


def small_graph(weight=3, name="conv"):
    builder = GraphBuilder("g")
    encoding = InputEncoding(0.5, 1.0, 0, 255, Rounding.RND_CONV)
    x = builder.input("x", (1, 4, 4), Integer(9), -1, encoding)
    w = builder.constant("w", np.full((2, 1, 3, 3), weight), Integer(4), Exponent((-2, -3), 0))
    y = builder.conv(name, x, w, builder.constant("b", [2**70, -1]), source="layer1")
    z = builder.requant("q", y, Integer(8), Exponent((60, -4), 0), rounding=Rounding.RND, high=100)
    builder.output(z, OutputScale((0.5, 0.25), (1.0, 0.0)))
    return builder.finish()


def test_round_trip(tmp_path):
    graph = small_graph()
    save_graph(graph, tmp_path)
    loaded = load_graph(tmp_path)
    assert graph_hash(loaded) == graph_hash(graph)
    assert loaded.nodes == graph.nodes
    assert loaded.tensors == graph.tensors
    assert loaded.input_encodings == graph.input_encodings
    assert loaded.output_scales == graph.output_scales
    x = np.random.default_rng(0).integers(-1, 255, (2, 1, 4, 4))
    assert (interpret(loaded, {"x": x})["q"] == interpret(graph, {"x": x})["q"]).all()


def test_equal_graphs_give_equal_bytes(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_graph(small_graph(), tmp_path / folder)
    for file in ("graph.json", "constants.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_node_hashes_follow_content_not_names():
    reference = node_hashes(small_graph())
    renamed = node_hashes(small_graph(name="other"))
    changed = node_hashes(small_graph(weight=2))
    assert list(renamed.values()) == list(reference.values())
    assert not set(changed.values()) & set(reference.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(schema_version=9), "schema_version 9"),
        (lambda s: s["nodes"][0].update(op="Cast"), "operation Cast"),
        (lambda s: s["nodes"][0].update(groups=7), "conv"),
        (lambda s: s["tensors"]["conv"].update(format="int4"), "conv"),
        (lambda s: s["tensors"]["conv"].update(format="no"), "no"),
        (lambda s: s.pop("outputs"), "outputs"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, change, message):
    save_graph(small_graph(), tmp_path)
    stored = json.loads((tmp_path / "graph.json").read_text())
    change(stored)
    (tmp_path / "graph.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match=message):
        load_graph(tmp_path)


def test_a_constant_that_needs_pickle_is_refused(tmp_path):
    save_graph(small_graph(), tmp_path)
    arrays = {str(i): np.array([object()]) for i in range(2)}
    np.savez(tmp_path / "constants.npz", **arrays)
    with pytest.raises(InputError, match="no valid exact graph"):
        load_graph(tmp_path)
