"""A saved graph comes back the same, and a changed file is found."""

import json

import numpy as np
import pytest

from qhw.errors import InputError
from qhw.formats import parse_format
from qhw.formats.integer import Integer
from qhw.formats.modes import Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.graph.ir import Exponent, InputEncoding, OutputScale
from qhw.graph.serialize import graph_hash, load_graph, node_hashes, save_graph


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
        (lambda s: s["nodes"][0].update(op="Cast"), "operation 'Cast'"),
        (lambda s: s["nodes"][0].update(groups=7), "conv"),
        (lambda s: s["tensors"]["conv"].update(format="int4"), "conv"),
        (lambda s: s["tensors"]["conv"].update(format="no"), "no"),
        (lambda s: s.pop("outputs"), "outputs"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        changed_and_loaded(small_graph(), tmp_path, change)


def listed_graph():
    """An input, weights, an activation and padding in formats that list their codes."""
    builder = GraphBuilder("g")
    e3m2, khot = parse_format("e3m2"), parse_format("khot<8,2>")
    encoding = InputEncoding(0.25, 0.0, -48, 48, Rounding.TRN, format=e3m2)
    x = builder.input("x", (1, 4, 4), e3m2, -4, encoding)
    w = builder.constant("w", np.full((2, 1, 3, 3), 96), khot, Exponent((-2, -3), 0))
    y = builder.requant("q", builder.conv("conv", x, w), parse_format("e2m1fn@3<TRN>"), 8, high=6)
    builder.output(builder.pad("pad", y, [0, 1, 1, 0, 1, 1], 4))
    return builder.finish()


def changed_and_loaded(graph, folder, change):
    save_graph(graph, folder)
    stored = json.loads((folder / "graph.json").read_text())
    change(stored)
    (folder / "graph.json").write_text(json.dumps(stored))
    return load_graph(folder)


def test_formats_come_back_with_their_modes(tmp_path):
    graph = listed_graph()
    loaded = changed_and_loaded(graph, tmp_path, lambda stored: None)
    assert loaded.tensors == graph.tensors
    assert loaded.input_encodings == graph.input_encodings
    assert loaded.tensors["q"].format.rounding is Rounding.TRN
    assert node_hashes(loaded) == node_hashes(graph)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s["tensors"]["x"].update(format="e3m3"),
            "'x' is encoded in .* of e3m2, but is declared e3m3",
        ),
        (lambda s: s["input_encodings"]["x"].update(low=-47), r"'x' is encoded in \[-47, 48\]"),
        (lambda s: s["input_encodings"]["x"].update(format=None), "'x' is encoded"),
        (lambda s: s["input_encodings"]["x"].update(format="fixed<8,3>"), "lists no codes"),
        (lambda s: s["input_encodings"]["x"].update(scale=float("nan")), "it holds NaN"),
        (lambda s: s["input_encodings"]["x"].update(scale=0.0), "'x' is encoded with scale 0"),
        (lambda s: s["tensors"]["w"].update(format="khot<8,1>"), "'w' holds 96, which khot<8,1> does not"),
        (lambda s: s["tensors"]["w"].update(shape=[2, 9]), "'w' has shape"),
        (lambda s: s["tensors"]["conv"].update(format="e5m2"), "'conv' reads e3m2, khot<8,2>"),
        (lambda s: s["nodes"][1].update(high=5), r"'q'.*\[-12, 5\] are no numbers of e2m1"),
        (lambda s: s["nodes"][1].update(overflow="WRAP"), "'q'.* cannot overflow by WRAP"),
        (lambda s: s["nodes"][2].update(value=5), "'pad' puts 5 around"),
        (lambda s: s["tensors"]["pad"].update(format="e2m3"), "'pad' reads e2m1"),
        (lambda s: s["tensors"]["x"].update(exponent=[1 << 40]), "'x' has exponents up to 1099511627776"),
        (lambda s: s["tensors"]["x"].update(shape=[1 << 20, 1 << 20]), "'x' has shape"),
        (lambda s: s["nodes"][0].update(inputs=["x", "missing"]), "missing"),
        (lambda s: s["nodes"][0].update(strides="abc"), "no valid exact graph|conv"),
    ],
)
def test_numbers_outside_a_listed_format_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        changed_and_loaded(listed_graph(), tmp_path, change)


def test_a_constant_that_needs_pickle_is_refused(tmp_path):
    save_graph(small_graph(), tmp_path)
    arrays = {str(i): np.array([object()]) for i in range(2)}
    np.savez(tmp_path / "constants.npz", **arrays)
    with pytest.raises(InputError, match="is not a file of arrays"):
        load_graph(tmp_path)
