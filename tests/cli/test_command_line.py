"""The command line as a user meets it: start-up time, messages, exit codes, JSON."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from qonnx_factory import Net

from qhw.boards import list_boards
from qhw.cli import main
from qhw.flows import list_flows


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command line, in this process."""
    with pytest.raises(SystemExit) as exit_info:
        main(list(arguments))
    out, err = capfd.readouterr()
    return int(exit_info.value.code or 0), out, err


def float_model(path: Path) -> Path:
    """An ONNX file in which nothing is quantised."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 2], np.ones(8, np.float32))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")],
        "float",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    return path


def test_help_lists_every_command() -> None:
    command = [sys.executable, "-m", "qhw", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for verb in ("build", "simulate", "run", "cost", "diff", "boards", "doctor"):
        assert verb in done.stdout


def test_help_names_every_flow_and_its_options(capfd: pytest.CaptureFixture[str]) -> None:
    for verb in ("build", "cost"):
        code, out, _ = run(capfd, verb, "--help")
        text = " ".join(out.split())
        assert code == 0
        assert all(flow in text for flow in list_flows())
        assert "--io-type" in text
        assert "hls4ml: io_stream, io_parallel, auto" in text


def test_help_takes_less_than_three_tenths_of_a_second() -> None:
    """Processor time, the least of three runs: other work on the machine does not count."""

    def processor_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    seconds = []
    for _ in range(3):
        before = processor_seconds()
        subprocess.run([sys.executable, "-m", "qhw", "--help"], capture_output=True, check=True)
        seconds.append(processor_seconds() - before)
    assert min(seconds) < 0.3


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, qhw.cli; print(sorted({'numpy', 'onnx', 'torch', 'rich', 'hls4ml'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_boards(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "boards")
    assert code == 0
    assert all(name in out for name in list_boards())
    code, out, _ = run(capfd, "boards", "ultra96", "--json")
    board = json.loads(out)
    assert (board["lut"], board["ff"], board["dsp"], board["bram18"]) == (70560, 141120, 360, 432)
    assert set(board["sources"]) >= {"part", "lut", "dsp", "bram18"}


def test_doctor_tells_what_each_tool_unlocks(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "doctor", "--json")
    tools = {tool["name"]: tool for tool in json.loads(out)["tools"]}
    assert code == 0
    assert {"g++", "hls4ml", "Vitis HLS"} <= set(tools)
    assert all(tool["unlocks"] and tool["how_to_get"] for tool in tools.values())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["build", "--board", "ultra69"], ["'ultra69'", "ultra96"]),
        (["build", "digit-cnn", "--board", "ultra96"], ["'digit-cnn'", "digits-cnn", "file.py:function"]),
        (["build"], ["No board", "--board", "ultra96"]),
        (["build", "--board", "ultra96", "--data", "fashion"], ["'fashion'", "fashion-mnist"]),
        (["build", "--board", "ultra96", "--flow", "hls4all"], ["hls4all", "hls4ml"]),
        (["build", "--board", "ultra96", "--format", "fixed<0>"], ["fixed<0>"]),
        (["build", "--board", "ultra96", "--io-type", "stream"], ["'stream'", "io_stream, io_parallel"]),
        (["build", "--board", "ultra96", "--clock-mhz", "0"], ["0.0 MHz", "1 to 2000"]),
        (["build", "--board", "ultra96", "--fps", "-1"], ["images per second above 0"]),
        (["build", "--board", "ultra96", "--budget", "170%"], ["above 0 and up to 1, not 1.7"]),
        (["build", "--board", "ultra96", "--budget", "lots"], ["'lots' is not a share"]),
        (["build", "--board", "ultra96", "--multipliers", "packed"], ["'packed'", "auto, lut, dsp"]),
        (["build", "--board", "ultra96", "--input", "float32"], ["'float32'", "uint1 to uint16"]),
        (["build", "--board", "ultra96", "--device", "gpu"], ["'gpu'", "cpu, cuda, cuda:N, auto"]),
        (["build", "--board", "ultra96", "--device", "cuda:999"], ["cuda:999 is not there", "cpu, auto"]),
        (["build", "--board", "ultra96", "--precision", "fp8"], ["'fp8'", "float32, bf16"]),
        (["simulate", "x.onnx", "--device", "cuda", "--backend", "qonnx"], ["qonnx runs on the CPU"]),
        (
            ["build", "--board", "ulx3s", "--flow", "rtl", "--multipliers", "packed"],
            ["'packed'", "auto, lut, dsp"],
        ),
        (["build", "--board", "ulx3s"], ["hls4ml flow", "ulx3s", "Lattice ECP5", "--flow rtl"]),
        (["build", "--board", "stm32h743"], ["hls4ml flow", "stm32h743", "Cortex-M7", "--flow mcu"]),
        (["simulate", "x.onnx", "--input", "uint8", "--input", "int4"], ["uint8 and int4", "one type"]),
        (["build", "nowhere/model.onnx", "--board", "ultra96"], ["nowhere/model.onnx", "does not exist"]),
        (["build", "nowhere.py:net", "--board", "ultra96"], ["nowhere.py", "does not exist"]),
        (["build", "net.py", "--board", "ultra96"], ["net.py is a Python file", "net.py:NAME"]),
        (["build", "--board", "ultra96", "--config", "none.toml"], ["none.toml", "cannot be read"]),
        (["simulate", "nowhere.onnx"], ["nowhere.onnx", "does not exist"]),
        (["simulate", "digits-cnn"], ["digits-cnn", "qhw build digits-cnn --board"]),
        (["cost", "nowhere.onnx", "--board", "ultra96"], ["nowhere.onnx"]),
        (["diff", "a.onnx@fast", "a.onnx"], ["'fast'", "exact", "qonnx"]),
        (["boards", "zcu10"], ["'zcu10'", "zcu102"]),
    ],
)
def test_bad_input_is_one_message_and_exit_2(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capfd, *arguments)
    assert code == 2
    assert out == ""
    assert err.count("Error: ") == 1
    assert "Traceback" not in err
    assert [text for text in expected if text not in err] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs = 3", "did you mean float_epochs"),
        ("learning_rate = 'fast'", "learning_rate is 'fast'"),
        ("quantised_epochs = 1.5", "quantised_epochs is 1.5"),
    ],
)
def test_a_wrong_recipe_is_refused_before_training(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, text: str, expected: str
) -> None:
    path = tmp_path / "build.toml"
    path.write_text(f"[training]\n{text}\n")
    arguments = ("build", "--board", "ultra96", "--config", str(path), "--out", str(tmp_path / "out"))
    code, _, err = run(capfd, *arguments)
    assert code == 2
    assert expected in err
    assert "train " not in err
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_onnx(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"this is a text, not a model" * 10)
    code, _, err = run(capfd, "build", str(path), "--board", "ultra96", "--out", str(tmp_path / "out"))
    assert code == 2
    assert "broken.onnx" in err
    assert "ONNX" in err
    assert list(tmp_path.iterdir()) == [path]


def test_an_onnx_file_without_quantisation(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = float_model(tmp_path / "float.onnx")
    code, _, err = run(capfd, "build", str(path), "--board", "ultra96", "--out", str(tmp_path / "out"))
    assert code == 2
    assert "quantis" in err
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_folder_of_somebody_else(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    code, _, err = run(capfd, "build", "--board", "ultra96", "--out", str(tmp_path))
    assert code == 2
    assert "belongs to something else" in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_missing_compiler(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = run(capfd, "build", "--board", "ultra96", "--out", str(tmp_path / "out"))
    assert code == 2
    assert "g++" in err
    assert "apt-get install g++" in err
    assert not (tmp_path / "out").exists()


def test_json_errors_are_one_document(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "build", "--board", "ultra69", "--json")
    document = json.loads(out)
    assert code == document["exit_code"] == 2
    assert "ultra96" in document["error"]
    assert err.startswith("Error: ")


def test_unknown_commands_and_options_offer_the_closest(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, offered in ((["biuld"], "build"), (["build", "--borad", "ultra96"], "--board")):
        code, _, err = run(capfd, *arguments)
        assert code == 2
        assert offered in err


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qhw", "boards", "nowhere", "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback" in done.stderr
    assert done.returncode != 0


def test_a_full_device_under_the_json_document_is_one_message() -> None:
    command = [sys.executable, "-m", "qhw", "boards", "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "Error: the JSON document cannot be written: No space left on device\n"


@pytest.mark.parametrize("header", ["{'descr': '<f4', 'shape': (2, 64", "{'descr': '\0"])
def test_an_array_with_a_damaged_header_is_one_message(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, header: str
) -> None:
    text = header.ljust(117).encode() + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    net = Net((64,))
    onnx.save(net.model(net.quant("x", 4, 0.5)), tmp_path / "m.onnx")
    code, _, err = run(capfd, "simulate", str(tmp_path / "m.onnx"), "--input", str(tmp_path / "x.npy"))
    assert code == 2
    assert "is not a .npy file of numbers" in err
    assert "Traceback" not in err


def test_a_file_that_only_quantises_its_input_is_not_built(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    net = Net((4,))
    onnx.save(net.model(net.quant("x", 4, 0.5)), tmp_path / "one.onnx")
    assert run(capfd, "simulate", str(tmp_path / "one.onnx"))[0] == 0
    given = ("build", str(tmp_path / "one.onnx"), "--board", "zcu102", "--out", str(tmp_path / "out"))
    code, _, err = run(capfd, *given)
    assert code == 2
    assert "computes nothing: there is no hardware to build" in err


def test_a_terminal_of_ascii_gets_everything_else_replaced() -> None:
    """The tables tell µs and µJ, and folders and boards may be called anything."""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = (
        "import sys; from qhw.cli import main; print(sys.stdout.encoding); main(['boards', 'gr\\xf6\\xdfe'])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ascii_only)
    assert done.stdout.lower() in ("ascii\n", "ansi_x3.4-1968\n")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: There is no board 'gr??e'")
