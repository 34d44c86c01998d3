"""The pages of builds and searches: what they say, that they repeat, and that no text breaks out."""

from __future__ import annotations

import copy
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pages
import pytest

import qhw
from qhw.cli import main
from qhw.errors import InputError
from qhw.pipeline import manifest as manifests
from qhw.pipeline.reporting import report
from qhw.pipeline.run import BuildResult
from qhw.pipeline.stages import read_record
from qhw.report.build_page import build_page
from qhw.report.search_page import search_page


class Page(HTMLParser):
    """The tags and the visible text of a page, scripts and styles left out, and its data."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.specs: dict[str, Any] = {}
        self._inside, self._name = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside, self._name = tag, dict(attrs).get("data-for") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script" and self._name:
            self.specs[self._name] = json.loads(data)
        elif not self._inside:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return pages.build(tmp_path_factory.mktemp("pages"))


def test_a_build_leaves_a_page_that_says_what_its_manifest_says(built: BuildResult) -> None:
    page, manifest = Page(built.report.read_text()), built.manifest
    for row in manifest["verification"]:
        assert row["backend"] in page.text
        assert f"{row['codes_compared']:,}" in page.text
    for name, used in manifest["resources"]["estimated"].items():
        if manifest["resources"]["board"][name]:
            assert f"{used:,}" in page.text
    assert "conv" in page.text
    assert "ufixed<4,2>" in page.text
    assert {"board", "layers", "numbers-0"} <= set(page.specs)
    error = manifest["resources"]["lut_error"]["p95"]
    assert f"{error:.1f} % at the 95th percentile" in page.text
    share = manifest["resources"]["utilisation"]["lut"]
    (low,) = [
        row["low"]
        for layer in page.specs["board"]["layer"]
        for row in layer.get("data", {"values": ()})["values"]
        if "low" in row
    ]
    assert low == pytest.approx(share * (1 - error / 100), rel=0.01)


def test_it_is_a_stage_with_a_record_and_is_made_again_only_when_it_has_changed(
    built: BuildResult, capfd: pytest.CaptureFixture[str]
) -> None:
    assert built.manifest["stages"][-1]["name"] == "report"
    record = read_record(built.folder, "report")
    assert record is not None
    assert list(record.outputs) == ["report.html"]
    first = built.report.read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(["report", str(built.folder)])
    assert not ended.value.code
    assert "unchanged" in capfd.readouterr().err
    built.report.write_text("edited")
    assert report(built.folder) == built.report
    assert built.report.read_bytes() == first


def test_equal_folders_have_equal_pages(built: BuildResult) -> None:
    manifest = manifests.read(built.folder)
    assert build_page(built.folder, manifest) == built.report.read_text()


def test_a_difference_is_seen(built: BuildResult) -> None:
    manifest = copy.deepcopy(built.manifest)
    manifest["verification"][-1] |= {"mismatches": 3, "first_difference": "layer 'fc': 7 is 8"}
    text = build_page(built.folder, manifest)
    page = Page(text)
    assert "first difference: layer 'fc': 7 is 8" in page.text
    assert "≠" in page.text
    assert ("td", {"class": "number bad"}) in page.tags


def test_a_build_is_a_table_and_a_plot_in_a_notebook(built: BuildResult) -> None:
    frame = built.to_dataframe()
    assert list(frame["node"]) == [node.name for node in built.graph.nodes]
    totals = built.manifest["resources"]["estimated"]
    assert {name: int(frame[name].sum()) for name in totals} == totals
    assert "reuse_factor" in frame.columns
    (drawn,) = built.plot().to_dict()["datasets"].values()
    assert sum(row["amount"] for row in drawn if row["resource"] == "LUT") == totals["lut"]
    assert "<table>" in built._repr_html_()
    priced = qhw.cost(built.folder)
    assert priced.to_dataframe().equals(frame[priced.to_dataframe().columns])
    assert list(priced.plot().to_dict()["datasets"].values()) == [drawn]


def test_microcontrollers_show_their_memory(built: BuildResult) -> None:
    memory = {
        "limit_bytes": 4096,
        "steps": ["conv", "add", "fc"],
        "buffers": [
            {"name": "x", "offset": 0, "bytes": 1024, "first": 0, "last": 1},
            {"name": "y", "offset": 1024, "bytes": 2048, "first": 0, "last": 2},
        ],
    }
    manifests.validate(built.manifest | {"memory": memory})
    layer = {"name": "conv", "kernel": "qhw_conv_s8", "macs": 648, "flash": 72, "instructions": 1300}
    measured = {
        "source": "QEMU, mps2-an500",
        **{"flash": 9000, "static_ram": 4000, "stack": 500, "instructions": 2600, "layers": [layer]},
        "modelled": {"cycles": [3354, 4160], "milliseconds": [0.007, 0.009], "how": "CPI of 1.29 to 1.60"},
    }
    page = Page(build_page(built.folder, built.manifest | {"memory": memory, "measured": measured}))
    assert "qhw_conv_s8 648 72 1,300 50.0%" in page.text
    assert "3.0 KiB at most, 75.0% of the 4.0 KiB" in page.text
    assert len(page.specs["arena"]["layer"][0]["data"]["values"]) == 2
    assert "arena" not in Page(built.report.read_text()).specs


def hostile(value: Any) -> Any:
    """Every text in a document with something in front that breaks out of HTML and scripts."""
    if isinstance(value, dict):
        return {name: hostile(part) for name, part in value.items()}
    if isinstance(value, list):
        return [hostile(part) for part in value]
    return pages.EVIL + value if isinstance(value, str) else value


@pytest.mark.parametrize("kind", ["build", "search"])
def test_no_text_breaks_out(kind: str, built: BuildResult) -> None:
    if kind == "build":
        manifest = copy.deepcopy(built.manifest)
        for name in ("model", "verification", "tools", "inputs", "accuracy"):
            manifest[name] = hostile(manifest[name])
        manifest["board"]["title"] = pages.EVIL
        clean, dirty = built.report.read_text(), build_page(built.folder, manifest)
    else:
        front = pages.front()
        clean = search_page(front, pages.TRIED)
        keep = {"metric": front["metric"] | {"name": pages.EVIL}, "fps_from": pages.EVIL, "model": pages.EVIL}
        points = [
            point | {"command": pages.EVIL, "formats": {f"{pages.EVIL}.weights": pages.EVIL}}
            for point in front["points"]
        ]
        dirty = search_page({**front, **keep, "points": points}, pages.TRIED)
    assert [tag for tag, _ in Page(dirty).tags] == [tag for tag, _ in Page(clean).tags]
    assert "<img src=x" not in dirty
    assert "{{7*7}}" in dirty


def test_a_searchs_page_has_its_points_and_their_commands() -> None:
    front = pages.front()
    page = Page(search_page(front, pages.TRIED))
    rows = [dict(attrs) for tag, attrs in page.tags if tag == "tr" and "data-command" in attrs]
    assert [row["data-command"] for row in rows] == [point["command"] for point in front["points"]]
    spec = page.specs["front-plot"]
    assert [row["figure"] for row in spec["data"]["values"]] == [0.8, 0.9, 0.95]
    assert len(spec["layer"][0]["data"]["values"]) == len(pages.TRIED)


def test_what_is_no_build_and_no_search_is_refused(tmp_path: Path) -> None:
    for folder, reason in (
        (tmp_path, "has neither build.json nor front.json"),
        (tmp_path / "no", "is no folder"),
    ):
        with pytest.raises(InputError) as refused:
            report(folder)
        assert reason in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_changed_build_is_not_shown(built: BuildResult, tmp_path: Path) -> None:
    layers = built.folder / "cost" / "layers.json"
    before = layers.read_text()
    layers.write_text(before.replace("1", "2"))
    try:
        with pytest.raises(InputError) as refused:
            build_page(built.folder, built.manifest)
        assert "is not what was written there" in str(refused.value)
    finally:
        layers.write_text(before)
