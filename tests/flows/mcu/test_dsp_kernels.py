"""The kernels for cores with DSP instructions give what the exact graph's interpreter gives, code by code."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from kernel_cases import (
    Case,
    compiled,
    conv_case,
    random_add,
    random_codes,
    random_conv,
    run_cases,
    with_kernel,
)

from qhw.flows.mcu import dsp
from qhw.flows.mcu.toolchain import COMPILER, CORES, EMULATOR, Core


def random_cases(seed: int, count: int) -> list[Case]:
    """Layers of every kernel: each one also by the portable kernel."""
    random = np.random.default_rng(seed)
    cases = [random_add(random) for _ in range(count // 5)]
    while len(cases) < count:
        depthwise = random.random() < 0.25
        layer, shape = random_conv(random, depthwise)
        bits = dsp.weight_bits(layer)
        name = "qhw_depthwise_dsp" if depthwise and dsp.takes_depthwise(layer) else f"qhw_conv_dsp{bits}"
        if bits is not None:
            cases.append(conv_case(layer, random_codes(random, layer.x, shape), name))
    return cases


def portable(case: Case) -> Case:
    name = {"qhw_add_dsp": "qhw_add", "qhw_depthwise_dsp": "qhw_depthwise"}.get(case.kernel, "qhw_conv")
    return with_kernel(case, name)


def assert_exact(folder: Path, core: Core | None, cases: list[Case], **options: str) -> None:
    firmware = compiled(folder, core, **options)
    for case, ran in zip(cases, run_cases(firmware, folder, cases), strict=True):
        assert ran.in_bounds, case
        np.testing.assert_array_equal(ran.out, case.expected, err_msg=f"{case.kernel} {case.layer}")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_random_layers_on_this_machine(tmp_path: Path) -> None:
    cases = random_cases(1, 400)
    used = Counter(case.kernel for case in cases)
    assert min(used[f"qhw_conv_dsp{bits}"] for bits in (2, 4, 8)) >= 30
    assert used["qhw_depthwise_dsp"] >= 30
    rounded = sum(dsp.fast_rounding(c.layer.finish, *dsp.sum_bounds(c.layer)) is not None for c in cases[80:])
    assert 100 <= rounded <= 300  # both ways to end a sum
    assert_exact(tmp_path, None, cases + [portable(case) for case in cases])


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7"])
@pytest.mark.parametrize("optimisation", ["-O2", "-O0"])
def test_random_layers_in_qemu(tmp_path: Path, core: str, optimisation: str) -> None:
    for tool in (COMPILER, EMULATOR):
        if shutil.which(tool.program) is None:
            pytest.skip(f"{tool.program} is not installed")
    assert_exact(tmp_path, CORES[core], random_cases(2, 300), optimisation=optimisation)
