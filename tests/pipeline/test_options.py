"""Options from the command line and from TOML files."""

from __future__ import annotations

from pathlib import Path

import pytest

from qhw.errors import InputError
from qhw.pipeline.options import BuildOptions, merge


def config(folder: Path, text: str) -> Path:
    path = folder / "build.toml"
    path.write_text(text)
    return path


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = config(tmp_path, 'board = "pynq-z1"\nseed = 3\nout = "here"\n')
    options = merge(path, {"board": "ultra96", "seed": None})
    assert options == BuildOptions(board="ultra96", seed=3, out=Path("here"))


def test_format_stands_for_both_and_yields_to_either(tmp_path: Path) -> None:
    path = config(tmp_path, 'format = "fixed<6>"\nweights = "fixed<4>"\n')
    options = merge(path, {})
    assert (options.weights, options.activations) == ("fixed<4>", "fixed<6>")
    options = merge(path, {"format": "fixed<8>"})
    assert (options.weights, options.activations) == ("fixed<8>", "fixed<8>")


def test_a_format_without_multipliers_is_one_for_factors(tmp_path: Path) -> None:
    quant = merge(config(tmp_path, 'format = "khot<8,2>"\n'), {}).quant_config()
    assert [str(f) for f in (quant.weights, quant.scales, quant.activations)] == [
        "khot<8,2>",
        "khot<8,2>",
        "fixed<8>",
    ]
    text = 'format = "khot<8,2>"\nactivations = "e4m3"\nquant = {scales = "fixed<6>"}\n'
    quant = merge(config(tmp_path, text), {}).quant_config()
    assert [str(f) for f in (quant.weights, quant.scales, quant.activations)] == [
        "khot<8,2>",
        "fixed<6>",
        "e4m3",
    ]
    minifloat = merge(None, {"format": "e3m2"}).quant_config()
    assert [str(f) for f in (minifloat.weights, minifloat.scales, minifloat.activations)] == [
        "e3m2",
        "fixed<8>",
        "e3m2",
    ]


def test_what_quant_states_wins_over_the_format_of_the_same_file(tmp_path: Path) -> None:
    path = config(tmp_path, 'format = "fixed<6>"\n[quant]\nweights = "fixed<4>"\n')
    quant = merge(path, {}).quant_config()
    assert (str(quant.weights), str(quant.activations)) == ("fixed<4>", "fixed<6>")
    quant = merge(path, {"format": "fixed<7>"}).quant_config()
    assert (str(quant.weights), str(quant.activations)) == ("fixed<7>", "fixed<7>")


def test_formats_by_layer(tmp_path: Path) -> None:
    path = config(
        tmp_path, '[quant]\nbiases = "fixed<12>"\n[quant.overrides."conv1*"]\nweights = "fixed<4>"\n'
    )
    quant = merge(path, {"weights": "fixed<6>"}).quant_config()
    assert str(quant.layer("conv1").weights) == "fixed<4>"
    assert str(quant.layer("conv2").weights) == "fixed<6>"
    assert str(quant.layer("conv2").biases) == "fixed<12>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bord = 'ultra96'", "did you mean board"),
        ("seed = 'one'", "seed is 'one'"),
        ("seed = true", "of type bool"),
        ("synth = 1", "synth is 1"),
        ("seed = -1", "seed is -1"),
        ("vectors = 0", "vectors is 0"),
        ("board = ", "is not a TOML file"),
        (f"seed = {'1' * 5000}", "is not a TOML file"),
        (f"seed = {'[' * 20000}", "is nested too deeply"),
        ("io_type = 'fifo'", "io_stream, io_parallel"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        merge(config(tmp_path, text), {})


def test_wrong_formats_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fixed<x>"):
        merge(config(tmp_path, "weights = 'fixed<x>'"), {}).quant_config()


def test_layers_of_the_command_line_win_over_the_files(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        '[quant.overrides.classify]\nweights = "fixed<4>"\nbiases = "fixed<12>"\n'
        '[quant.overrides."*"]\nactivations = "e2m1"\n',
    )
    layers = ["classify:weights=e3m2", "conv1:khot<8,2>", "conv?:activations=e4m3"]
    quant = merge(path, {"layer": layers}).quant_config()
    assert str(quant.layer("classify").weights) == "e3m2"
    assert str(quant.layer("classify").biases) == "fixed<12>"
    first = quant.layer("conv1")
    assert [str(f) for f in (first.weights, first.scales, first.activations)] == [
        "khot<8,2>",
        "khot<8,2>",
        "e4m3",
    ]


def test_the_scaling_of_the_command_line_wins(tmp_path: Path) -> None:
    path = config(tmp_path, "[quant]\nscaling = 'exponent_bias'\nweights = 'e4m3'")
    assert merge(path, {}).quant_config().scaling == "exponent_bias"
    quant = merge(path, {"scaling": "free"}).quant_config()
    assert (quant.scaling, str(quant.weights)) == ("free", "e4m3")
    with pytest.raises(InputError, match="scaling"):
        merge(None, {"scaling": "freely"}).quant_config()


@pytest.mark.parametrize(
    "text", ["classify", ":e4m3", "classify:", "classify:weights=", "a:colour=e4m3", "a:e"]
)
def test_a_layer_that_is_not_understood_is_named(text: str) -> None:
    with pytest.raises(InputError):
        merge(None, {"layer": [text]}).quant_config()


def test_where_it_trains_is_a_setting_of_training(tmp_path: Path) -> None:
    path = config(tmp_path, 'device = "cpu"\n[training]\nbatch_size = 32\nprecision = "bf16"\n')
    assert merge(path, {}).training == {"batch_size": 32, "precision": "bf16", "device": "cpu"}
    assert merge(path, {"device": "auto"}).training["device"] == "auto"
