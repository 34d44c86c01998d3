"""What FINN generates without Vivado: the same bytes anywhere, no path of ours, the model as it was."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("finn", reason="FINN is not installed: pip install --no-deps finn-plus")

from finn_layers import PART, Layers

from qhw.errors import InputError, UnsupportedError
from qhw.flows.finn.sources import LayerSources, generate_sources, layer_sources, source_file


def small() -> Layers:
    net = Layers()
    x = net.pad(net.input(4, 4, 4), (1, 1, 1, 1), simd=2)
    sums = net.product(net.windows(x, (3, 3), simd=2), outputs=4, pe=2, simd=6)
    codes = net.thresholds(sums, "INT3", pe=2)
    net.depthwise(net.windows(codes, (2, 2), simd=2, depthwise=1), (2, 2), pe=2)
    return net


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, LayerSources]]:
    folder = tmp_path_factory.mktemp("sources") / "here"
    return folder, generate_sources(small().model(), folder, part=PART, clock_ns=5.0)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_another_folder_gets_the_same_bytes(
    written: tuple[Path, dict[str, LayerSources]], tmp_path: Path
) -> None:
    folder, sources = written
    elsewhere = tmp_path / "a" / "longer name"
    again = generate_sources(small().model(), elsewhere, part=PART, clock_ns=5.0)
    assert again == sources
    assert contents(elsewhere) == contents(folder)


def test_no_file_names_a_place_of_this_machine(written: tuple[Path, dict[str, LayerSources]]) -> None:
    folder, _ = written
    places = [str(folder), str(Path.home()), str(Path(__file__).parents[3]), "/tmp/", "site-packages"]
    for name, content in contents(folder).items():
        text = content.decode()
        assert not [place for place in places if place in text], name
        code = re.sub(r"//[^\n]*|/\*.*?\*/|^#!?[^\n]*", "", text, flags=re.DOTALL | re.MULTILINE)
        assert not re.findall(r'"/[^"\s]*"', code), name


def test_every_layer_has_its_files(written: tuple[Path, dict[str, LayerSources]]) -> None:
    folder, sources = written
    assert [s.kind for s in sources.values()] == [node.op_type for node in small().nodes]
    for layer in sources.values():
        assert layer.backend == layer.kind.rsplit("_")[-1]
        for name in layer.files:
            assert source_file(folder, name).is_file(), name
    own = {name for layer in sources.values() for name in layer.files if not name.startswith("finn-rtllib/")}
    assert own == set(contents(folder))
    assert "MVAU_rtl_0/memblock.dat" in sources["MVAU_rtl_0"].files
    assert "finn-rtllib/mvu/mvu.sv" in sources["MVAU_rtl_0"].files
    assert (
        'INIT_FILE = "./memblock.dat"' in (folder / "MVAU_rtl_0/MVAU_rtl_0_memstream_wrapper.v").read_text()
    )


def test_the_model_is_left_as_it_is(tmp_path: Path) -> None:
    model = small().model()
    before = model.model.SerializeToString()
    sources = generate_sources(model, tmp_path, part=PART, clock_ns=5.0)
    assert model.model.SerializeToString() == before
    assert layer_sources(model, tmp_path) == sources


def test_a_layer_without_an_implementation_is_named(tmp_path: Path) -> None:
    model = small().model()
    model.graph.node[2].op_type = "MVAU"
    with pytest.raises(InputError, match=r"'MVAU_rtl_0' \(MVAU\) has no implementation yet"):
        generate_sources(model, tmp_path, part=PART, clock_ns=5.0)


@pytest.mark.parametrize("name", ["../outside", "a b", "", "x;exit"])
def test_names_that_are_no_identifiers_are_refused(tmp_path: Path, name: str) -> None:
    model = small().model()
    model.graph.node[0].name = name
    with pytest.raises(InputError, match=r"(?s)is named .*letters, digits and _"):
        generate_sources(model, tmp_path / "in", part=PART, clock_ns=5.0)
    assert not list(tmp_path.rglob("*.v"))


def test_what_finn_refuses_is_told_with_its_words(tmp_path: Path) -> None:
    net = Layers()
    net.product(net.input(4, kind="INT8"), outputs=4, pe=3, simd=2)
    with pytest.raises(UnsupportedError, match=r"layer 'MVAU_rtl_0' \(MVAU_rtl\): "):
        generate_sources(net.model(), tmp_path, part=PART, clock_ns=5.0)


def test_sources_of_another_model_are_missed(written: tuple[Path, dict[str, LayerSources]]) -> None:
    net = small()
    net.reshape("Thresholding_rtl_0_out0", [64], pe=2)
    with pytest.raises(InputError, match="has no sources of layer 'Reshape_rtl_0'"):
        layer_sources(net.model(), written[0])
