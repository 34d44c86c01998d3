"""The kernels for cores with DSP instructions give what the exact graph's interpreter gives, code by code."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import (
    ROUNDINGS,
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
from qhw.flows.mcu.containers import Container
from qhw.flows.mcu.kernels import conv_kernel
from qhw.flows.mcu.program import ConvLayer, Finish
from qhw.flows.mcu.toolchain import COMPILER, CORES, EMULATOR, Core
from qhw.formats.modes import Rounding, round_shift


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


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7", "cortex-m33"])
@pytest.mark.parametrize("optimisation", ["-O2", "-O0"])
def test_random_layers_in_qemu(tmp_path: Path, core: str, optimisation: str) -> None:
    for tool in (COMPILER, EMULATOR):
        if shutil.which(tool.program) is None:
            pytest.skip(f"{tool.program} is not installed")
    assert_exact(tmp_path, CORES[core], random_cases(2, 300), optimisation=optimisation)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("is_signed", [False, True])
def test_sums_as_large_as_they_can_be(tmp_path: Path, bits: int, is_signed: bool) -> None:
    """Weights and inputs at the ends of their ranges, and more taps than a field of a register holds."""
    x, weight = Container(8, is_signed), Container(bits, True)
    cases = []
    for weights, inputs in itertools.product((weight.low, weight.high), (x.low, x.high)):
        for channels in (24, 700):
            values = np.full((6, 1, 1, channels), weights)
            sums = Finish(Container(32, True))
            layer = ConvLayer(x, weight, channels, 1, (1, 1), (1, 1), (0, 0), values, False, sums)
            kernel = conv_kernel(layer)
            assert kernel.function.startswith("qhw_conv_dsp")
            cases.append(conv_case(layer, np.full((channels, 1, 3), inputs), kernel.function))
    assert any(dsp.chunk_of(bits, case.layer) * dsp.UNIT < 700 for case in cases[1::2])
    assert_exact(tmp_path, None, cases)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_one_multiplication_rounds_as_the_exact_graph_does(data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(ROUNDINGS))
    out = Container(data.draw(st.sampled_from([2, 4, 8, 16])), data.draw(st.booleans()))
    shift, bits = data.draw(st.integers(-4, 32)), data.draw(st.sampled_from([0, 4]))
    multiplier, addend = data.draw(st.integers(-300, 300)), data.draw(st.integers(-(2**40), 2**40))
    sums = np.array(data.draw(st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=20)), dtype=object)
    # Sums that end in the middle between two codes, too.
    sums = np.concatenate([sums, (sums >> 4 << 4) + 8])
    finish = Finish(
        out,
        "ROUND",
        True,
        mode,
        multiplier=(multiplier,),
        addend=(addend,),
        shift=(shift,),
        low=out.low,
        high=out.high,
    )
    found = dsp.fast_rounding(finish, np.array([sums.min()]), np.array([sums.max()]), bits)
    if found is None:
        return
    products = (sums << bits) * found.multiplier[0] + found.addend[0]
    assert all(-(2**63) <= v < 2**63 for v in products)
    upper = products >> 32
    if found.ties_to_even:
        upper = np.where(products % 2**32 == 0, upper & ~1, upper)
    expected = round_shift(sums * multiplier + addend, shift, Rounding(mode))
    np.testing.assert_array_equal(np.clip(upper, out.low, out.high), np.clip(expected, out.low, out.high))


def test_usual_roundings_are_one_multiplication() -> None:
    relu, signed = Container(8, False), Container(8, True)
    ends = np.array([-(2**22)]), np.array([2**22])
    for mode in ROUNDINGS:
        finish = Finish(
            relu, "ROUND", True, mode, multiplier=(77,), addend=(5,), shift=(16,), low=0, high=255
        )
        assert dsp.fast_rounding(finish, *ends) is not None, mode
    to_even = Finish(signed, "ROUND", True, "RND_CONV", multiplier=(77,), shift=(16,), low=-128, high=127)
    assert dsp.fast_rounding(to_even, *ends) is not None
    assert (
        dsp.fast_rounding(replace(to_even, rounding="RND_INF"), *ends) is None
    )  # another half for negatives
    assert dsp.fast_rounding(replace(to_even, overflow="WRAP"), *ends) is None
    assert (
        dsp.fast_rounding(replace(to_even, multiplier=(2**31,), shift=(1,)), *ends) is None
    )  # 64 bits do not hold it


def test_layers_for_portable_kernels() -> None:
    """Inputs of 16 bits, sums of 64 bits."""
    weights = np.ones((4, 1, 1, 8), dtype=np.int64)
    layer = ConvLayer(
        Container(8, False),
        Container(8, True),
        8,
        1,
        (1, 1),
        (1, 1),
        (0, 0),
        weights,
        False,
        Finish(Container(32, True)),
    )
    assert conv_kernel(layer).function == "qhw_conv_dsp2"  # weights of 1 need no more
    assert conv_kernel(replace(layer, x=Container(16, True))).function == "qhw_conv"
    assert conv_kernel(replace(layer, wide_sum=True)).function == "qhw_conv_wide"
    assert (
        conv_kernel(replace(layer, weights=weights * 200, weight=Container(8, False))).function == "qhw_conv"
    )


def test_weights_take_the_flash_that_their_bits_do() -> None:
    random = np.random.default_rng(0)
    for bits in (8, 4, 2):
        layer, _ = random_conv(random)
        weight = Container(bits, True)
        weights = random.integers(weight.low, weight.high + 1, (16, 3, 3, 16))
        layer = replace(
            layer,
            x=Container(8, False),
            weight=weight,
            in_channels=16,
            groups=1,
            weights=weights,
            finish=Finish(Container(32, True)),
        )
        assert len(dsp.pack_conv(layer)) == 8 + weights.size * bits // 8
