"""The kernels keep within the instructions that they are meant to take, counted exactly by QEMU."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from qhw.flows.mcu.toolchain import COMPILER, CORES, EMULATOR

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "mcu_kernels.py"
MOST = {(8, 8): 1.6, (4, 8): 1.6, (2, 2): 1.1}
"""Instructions per multiply-accumulate by the bits of weights and inputs; CMSIS-NN takes 2.30 at 8 bits."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mcu_kernels_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_instructions_of_a_convolution(script: ModuleType, tmp_path: Path) -> None:
    """3 x 3, 16 x 16 x 16 to 32: the results are the exact graph's, and the counts are below the bounds."""
    for tool in (COMPILER, EMULATOR):
        if shutil.which(tool.program) is None:
            pytest.skip(f"{tool.program} is not installed")
    layers = [script.layer_of(script.SHAPES[0], *bits) for bits in MOST]
    cases = [script.conv_case(layer, x, script.kernel_of(layer)) for layer, x in layers]
    firmware = script.compiled(tmp_path, CORES["cortex-m7"])
    found = dict(zip(MOST, script.per_mac(firmware, tmp_path, cases), strict=True))
    assert all(0.2 < found[bits] <= most for bits, most in MOST.items()), found


def test_weights_with_few_ones_need_no_multiplication(script: ModuleType, tmp_path: Path) -> None:
    """Sums by shifts are the exact graph's, also where powers of two or whole weights are missing."""
    for tool in (COMPILER, EMULATOR):
        if shutil.which(tool.program) is None:
            pytest.skip(f"{tool.program} is not installed")
    layers = [script.khot_layer(format) for format in script.KHOTS]
    cases = [script.conv_case(layer, x, script.kernel_of(layer)) for layer, x in layers]
    found = script.by_shifts(tmp_path, CORES["cortex-m7"], cases)
    ones = [script.terms(layer.weights).sum() for layer, _ in layers]
    assert np.argmax(found) == np.argmax(ones)
    assert np.argmin(found) == np.argmin(ones)


def test_weights_are_the_sums_of_their_terms(script: ModuleType) -> None:
    weights = np.arange(-128, 128).reshape(16, 16)
    powers, signs = 1 << np.arange(8), np.array([1, -1])
    assert np.array_equal(np.einsum("psij,p,s->ij", script.terms(weights), powers, signs), weights)


def test_the_hottest_loop_is_the_one_that_multiplies(script: ModuleType, tmp_path: Path) -> None:
    if shutil.which(COMPILER.program) is None:
        pytest.skip(f"{COMPILER.program} is not installed")
    firmware = script.compiled(tmp_path, CORES["cortex-m7"])
    loops = [script.hottest_loop(firmware.program, function) for function, *_ in script.LOOPS]
    assert [script.multiplied(loop) for loop in loops] == [32, 32, 16]
