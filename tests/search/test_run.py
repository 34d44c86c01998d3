"""Whole searches from the command line: a front whose points build, at the costs that it states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qhw
from qhw.boards import load_board
from qhw.cli import main
from qhw.cost import estimate
from qhw.errors import CheckFailedError, InputError, UnsupportedError
from qhw.flows.base import load_flow
from qhw.graph.lower import lower_model
from qhw.graph.reading.load import load_qonnx
from qhw.pipeline.designs import best_design
from qhw.pipeline.reporting import report
from qhw.search import front as fronts
from qhw.search.strategies import list_strategies

TRAINING = ("fliqs", "gradient")

SPACE = {
    "weights": ["ternary", "e2m1", "khot<6,2>", "fixed<6>"],
    "activations": ["fixed<3>", "e3m2", "fixed<6>"],
}
TOML = """
evaluations = 14
float_epochs = 4
[space]
weights = ["ternary", "e2m1", "khot<6,2>", "fixed<6>"]
activations = ["fixed<3>", "e3m2", "fixed<6>"]
"""


def command(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0), *capfd.readouterr()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> qhw.SearchResult:
    folder = tmp_path_factory.mktemp("search")
    return qhw.search(
        "digits-cnn",
        board="ultra96",
        space=SPACE,
        evaluations=14,
        training={"float_epochs": 4},
        fps=200_000,
        out=folder / "out",
    )


def test_the_front_is_one_and_says_what_it_stands_on(searched: qhw.SearchResult) -> None:
    front = fronts.read(searched.file)
    points = front["points"]
    assert [point["number"] for point in points] == list(range(1, len(points) + 1))
    assert len(points) >= 3
    costs, figures = ([point[name] for point in points] for name in ("cost", "figure"))
    assert costs == sorted(set(costs))
    assert figures == sorted(set(figures))
    assert all(point["low"] <= point["figure"] <= point["high"] for point in points)
    assert all(point["throughput_fps"] >= 200_000 for point in points)
    assert front["evaluations"] == 14
    assert front["held_out"] == {"samples": 290, "trained_on": False}
    assert front["lut_error"]["median"] < front["lut_error"]["p95"]
    assert max(figures) > 0.9


def test_it_is_shown_as_tables_frames_and_pictures(searched: qhw.SearchResult) -> None:
    frame = searched.to_dataframe()
    assert list(frame["number"]) == [point["number"] for point in searched.front["points"]]
    assert {"lut", "conv1.weights", "test"} <= set(frame.columns)
    assert "Pareto front of digits-cnn on ultra96" in searched._repr_html_()
    assert searched.save_plot().read_bytes().startswith(b"\x89PNG")
    assert searched.plot().to_dict()["height"] > 0
    text = searched.report.read_text(encoding="utf-8")
    assert searched.front["points"][0]["command"] in text
    assert len(searched.tried) > len(searched.front["points"])


def test_its_report_is_written_again_as_it_was(searched: qhw.SearchResult) -> None:
    before = searched.report.read_bytes()
    searched.report.unlink()
    assert report(searched.folder) == searched.report
    assert searched.report.read_bytes() == before


@pytest.mark.slow
def test_three_points_build_with_no_code_apart_at_the_costs_of_the_front(
    searched: qhw.SearchResult, tmp_path: Path
) -> None:
    points = searched.front["points"]
    for point in (points[0], points[len(points) // 2], points[-1]):
        built = qhw.build(design=f"{searched.file}#{point['number']}", out=tmp_path / str(point["number"]))
        manifest = built.manifest
        rows = [row for row in manifest["verification"] if "not_compared" not in row]
        assert "hls4ml C-simulation" in {row["backend"] for row in rows}
        assert all(row["mismatches"] == 0 for row in rows)
        assert manifest["resources"]["estimated"] == point["resources"]
        assert manifest["latency"]["initiation_interval"] == point["interval"]
        assert manifest["accuracy"]["quantised"] == point["test"]


def test_the_same_search_is_not_run_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "search.toml").write_text(TOML)
    words = ["search", "--board", "ultra96", "--config", str(tmp_path / "search.toml"), "--fps", "200000"]
    words += ["--strategy", "uniform", "--out", str(tmp_path / "out"), "--json"]
    code, out, err = command(words, capfd)
    assert code == 0, err
    first = json.loads(out)
    code, out, err = command(words, capfd)
    assert code == 0, err
    assert json.loads(out) == first
    assert "unchanged" in err
    code, _, err = command([*words, "--strategy", "greedy"], capfd)
    assert code == 2
    assert "another search with another --name or --store" in err


def test_a_search_that_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qhw.search.evaluators.calibrated import Calibrated

    seen: list[Any] = []
    whole = Calibrated.quality_of

    def stops(self: Calibrated, point: Any) -> Any:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(point)
        return whole(self, point)

    settings: dict[str, Any] = {
        "board": "ultra96",
        "space": SPACE,
        "evaluations": 8,
        "training": {"float_epochs": 1},
        "strategy": "random",
        "fps": 200_000,
        "out": tmp_path / "out",
    }
    monkeypatch.setattr(Calibrated, "quality_of", stops)
    with pytest.raises(KeyboardInterrupt):
        qhw.search("digits-cnn", **settings)
    monkeypatch.setattr(
        Calibrated, "quality_of", lambda self, point: (seen.append(point), whole(self, point))[1]
    )
    with pytest.raises(InputError, match="resume"):
        qhw.search("digits-cnn", **settings)
    assert len(seen) == 5
    stopped = qhw.search("digits-cnn", resume=True, **settings)
    assert len(seen) == len(set(seen)) == 8
    monkeypatch.undo()
    at_once = qhw.search("digits-cnn", **settings | {"out": tmp_path / "other"})
    assert [t.point for t in stopped.trials] == [t.point for t in at_once.trials]
    assert [t.quality for t in stopped.trials] == [t.quality for t in at_once.trials]


def test_a_failed_evaluation_is_recorded_and_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qhw.search.evaluators.calibrated import Calibrated

    whole = Calibrated.quality_of

    def fails(self: Calibrated, point: Any) -> Any:
        found = whole(self, point)
        return found if point[0] else type(found)(float("nan"), 0.0, 0.0, 0.0)

    monkeypatch.setattr(Calibrated, "quality_of", fails)
    result = qhw.search(
        "digits-cnn",
        board="ultra96",
        space=SPACE,
        evaluations=10,
        strategy="random",
        training={"float_epochs": 1},
        fps=200_000,
        out=tmp_path / "out",
    )
    failed = [trial for trial in result.trials if trial.failed]
    assert failed
    assert all(trial.point[0] == 0 for trial in failed)
    assert result.front["failed"] == len(failed)
    assert np.isfinite([point["figure"] for point in result.front["points"]]).all()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [name for name in list_strategies() if name not in TRAINING])
def test_every_strategy_runs(strategy: str, tmp_path: Path) -> None:
    result = qhw.search(
        "digits-cnn",
        board="ultra96",
        space=SPACE,
        strategy=strategy,
        evaluations=12,
        training={"float_epochs": 3},
        fps=200_000,
        out=tmp_path / "out",
    )
    assert 1 <= result.front["evaluations"] <= 12
    assert result.front["strategy"] == strategy
    assert result.front["points"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", TRAINING)
def test_a_point_that_was_trained_builds_at_the_costs_of_the_front(strategy: str, tmp_path: Path) -> None:
    result = qhw.search(
        "digits-cnn",
        board="ultra96",
        space={"weights": ["e2m1", "fixed<4>"], "activations": ["e3m2", "fixed<5>"]},
        strategy=strategy,
        training={"float_epochs": 2, "quantised_epochs": 2},
        fps=200_000,
        out=tmp_path / "out",
    )
    point = result.front["points"][-1]
    manifest = qhw.build(design=f"{result.file}#{point['number']}", out=tmp_path / "built").manifest
    rows = [row for row in manifest["verification"] if "not_compared" not in row]
    assert all(row["mismatches"] == 0 for row in rows)
    assert manifest["resources"]["estimated"] == point["resources"]
    assert manifest["accuracy"]["quantised"] == point["test"]


def test_a_microcontroller_is_searched_by_instructions(tmp_path: Path) -> None:
    """Each point's model costs what the front says, by the estimate of its own design."""
    result = qhw.search(
        "digits-cnn",
        board="stm32h743",
        flow="mcu",
        space=SPACE,
        evaluations=10,
        training={"float_epochs": 4},
        out=tmp_path / "o",
    )
    front = fronts.read(result.file)
    assert (front["against"], front["fps"], front["lut_error"]) == ("instructions", None, None)
    assert "instructions modelled" in front["cost_model"]
    board, flow = load_board("stm32h743"), load_flow("mcu")
    for point in front["points"]:
        graph = lower_model(load_qonnx(result.folder / point["model"])).graph
        own = estimate(best_design(graph, board, flow))
        assert point["cost"] == own.figures["instructions"]
        assert point["resources"] == own.totals
        assert (point["interval"], point["energy_uj"]) == (own.initiation_interval, None)
    (table,) = result.tables()
    assert {"INSTRUCTIONS", "SRAM", "FLASH"} < set(table.columns)
    assert "INSTRUCTIONS" in result.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("against", ["instructions", "flash"])
def test_a_microcontroller_whose_memory_is_too_small(against: str, tmp_path: Path) -> None:
    """Told before a point is judged."""
    (tmp_path / "tiny.toml").write_text('based_on = "stm32f412"\nsram = 3000\ncontiguous_sram = 1000\n')
    with pytest.raises(CheckFailedError, match="does not fit tiny"):
        qhw.search(
            "digits-cnn",
            board=tmp_path / "tiny.toml",
            flow="mcu",
            space=SPACE,
            against=against,
            training={"float_epochs": 0},
            out=tmp_path / "o",
        )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fps": 1e9}, r"does not reach|reaches 1e\+09 images/s"),
        (
            {"budget": 0.001, "fps": 1000},
            r"No point of the space fits ultra96: the nearest one found needs [\d,]+ FF",
        ),
    ],
)
def test_what_no_point_meets(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match=says):
        qhw.search(
            "digits-cnn",
            board="ultra96",
            space=SPACE,
            training={"float_epochs": 0},
            out=tmp_path / "o",
            **options,
        )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--against", "watts"], "is nothing that a search minimises"),
        (["--against", "instructions"], "Allowed: lut, ff"),
        (["--board", "stm32h743", "--flow", "mcu", "--against", "lut"], "Allowed: instructions, interval"),
        (["--strategy", "luck"], "There is no strategy 'luck'"),
        (["--evaluator", "luck"], "There is no evaluator 'luck'"),
        (["--board", "stm32h743"], "stm32h743"),
        (["--data", "nothing"], "Unknown data set 'nothing'"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], "both given"),
    ],
)
def test_bad_options(
    arguments: list[str], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["search", "--board", "ultra96", "--float-epochs", "0", "--out", str(tmp_path / "o"), *arguments]
    code, _, err = command(words, capfd)
    assert code == 2
    assert says in err
    assert "Traceback" not in err


def test_methods_without_training_and_training_exclude_each_other(tmp_path: Path) -> None:
    for given in ({"evaluator": "short-qat"}, {"strategy": "gradient"}):
        with pytest.raises(InputError, match="gpfq quantise without training, but points are trained"):
            qhw.search("digits-cnn", board="ultra96", methods="gpfq", out=tmp_path, **given)
    assert not any(tmp_path.iterdir())


def test_an_empty_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="The search space is empty"):
        qhw.search(
            "digits-cnn",
            board="ultra96",
            space={"weights": ["fixed<4>"], "activations": ["fixed<4>"]},
            training={"float_epochs": 0},
            out=tmp_path / "o",
        )


def test_unrolled_layers_are_not_searched(capfd: pytest.CaptureFixture[str]) -> None:
    line = ["search", "mlp", "--board", "pynq-z2", "--flow", "rtl", "--unrolled", "auto"]
    code, _, err = command(line, capfd)
    assert code == 2
    assert "Unrolled layers are not searched" in err


def test_a_quantised_file_has_nothing_to_choose(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = command(["search", "model.onnx", "--board", "ultra96"], capfd)
    assert code == 2
    assert "is quantised already" in err


def test_strategies_and_evaluators_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(["search", "--strategy", "help"], capfd)
    assert code == 0, err
    for name in (
        "uniform",
        "greedy",
        "hessian",
        "ilp",
        "fliqs",
        "gradient",
        "boosted",
        "nsga2",
        "tpe",
        "full-qat",
    ):
        assert name in out


FILE = """
import torch
from torch import nn


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def not_finite():
    made = net()
    made[1].weight.data[0, 0] = float("nan")
    return made


def quantised():
    import qhw

    return qhw.convert(net(), qhw.QuantConfig(), torch.rand(2, 1, 8, 8))
"""


@pytest.mark.parametrize(
    ("function", "arguments", "says"),
    [
        ("net", ["--trained", "--expect", "97%"], "in float the network's top-1 is"),
        ("not_finite", ["--trained"], "are NaN or infinite"),
        ("quantised", [], "is quantised already"),
        ("net", ["--state", "nowhere.pt"], "nowhere.pt"),
    ],
)
def test_a_network_that_is_not_as_it_was_said(
    function: str, arguments: list[str], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    words = ["search", f"{tmp_path}/mine.py:{function}", "--board", "ultra96", "--data", "digits"]
    code, _, err = command([*words, "--out", str(tmp_path / "out"), *arguments], capfd)
    assert code == 2, err
    assert says in err
    assert not (tmp_path / "out").exists()


def test_data_of_several_inputs_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = ((rng.random((20, 4), np.float32), rng.random((20, 2), np.float32)), np.arange(20) % 2)
    with pytest.raises(UnsupportedError, match="has 2 inputs"):
        qhw.search("digits-cnn", board="ultra96", data=data, out=tmp_path / "out")
