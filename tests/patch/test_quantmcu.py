"""QuantMCU's formulas by hand, its search by brute force, its graphs by both executors."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from finn_nets import Network
from test_plan import images, network

from qhw.errors import CheckFailedError, InputError, UnsupportedError
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.patch import (
    OutputErrors,
    PatchPlan,
    Settings,
    bit_operations,
    feature_maps,
    make_plan,
    narrowed,
    plans,
    quantmcu,
    run_by_patches,
    uniform,
    with_patches,
)
from qhw.patch.outliers import outlier_shares
from qhw.patch.plan import front_of, live_sets, patches_of, peak_bytes
from qhw.patch.quantmcu import QuantMcu
from qhw.patch.regions import regions_of
from qhw.patch.search import Choice, best_bits, entropy
from qhw.patch.widths import Width
from qhw.sim.fast import FastExecutor

WITHOUT_OUTLIERS = Settings(sigmas=None)


def small() -> ExactGraph:
    """Three convolutions of 8-bit feature maps, the first two strided, and a classifier."""
    n = Network(5, (2, 12, 12))
    x = n.act("a", n.conv("a_c", n.last, 4, (3, 3), strides=(2, 2), pads=(1,) * 4, bits=8), 8)
    x = n.act("b", n.conv("b_c", x, 6, (3, 3), pads=(1,) * 4, bits=8), 8, signed=True)
    x = n.act("c", n.conv("c_c", x, 4, (3, 3), strides=(2, 2), pads=(1,) * 4, bits=8), 8)
    return n.finish(n.matmul("fc", n.flat("flat", x), 3, bits=8))


def test_entropy_by_hand() -> None:
    assert entropy(np.array([4, 4, 4, 4])) == 2
    assert entropy(np.array([0, 7, 0])) == 0
    assert entropy(np.array([2, 1, 1])) == 1.5
    assert entropy(np.zeros(4, dtype=np.int64)) == 0


def test_bit_operations_by_hand() -> None:
    graph = small()
    macs = {"a_c": 6 * 6 * 4 * 9 * 2, "b_c": 6 * 6 * 6 * 9 * 4, "c_c": 3 * 3 * 4 * 9 * 6, "fc": 36 * 3}
    assert bit_operations(graph) == sum(macs.values()) * 8 * 8
    exponents = {name: graph.tensors[name].exponent.values[0] for name in "abc"}
    mixed = narrowed(graph, {"a": Width(4, exponents["a"] + 4), "b": Width(2, exponents["b"] + 6)})
    expected = 8 * (8 * macs["a_c"] + 4 * macs["b_c"] + 2 * macs["c_c"] + 8 * macs["fc"])
    assert bit_operations(mixed) == expected


@pytest.mark.parametrize(("measure", "weight"), [("entropy", 0.3), ("error", 0.8)])
def test_scores_by_hand(measure: Literal["entropy", "error"], weight: float) -> None:
    """Ω and Φ of every feature map, from its codes, its MACs and nothing else."""
    graph = small()
    inputs, plan = images(graph, 6), make_plan(graph, "a", (1, 1))
    settings = Settings(omega_weight=weight, measure=measure, sigmas=None)
    found = quantmcu(graph, inputs, plan=plan, settings=settings)
    macs = {"a": 6 * 6 * 6 * 9 * 4, "b": 3 * 3 * 4 * 9 * 6, "c": 36 * 3}
    codes = interpret(graph, inputs, keep="all")
    exponents = {
        bits: {
            c.tensor: c.exponent
            for c in quantmcu(graph, inputs, plan=plan, settings=only(bits)).record.choices
        }
        for bits in (8, 4, 2)
    }
    for choice in found.record.choices:
        name, wide, scores = choice.tensor, codes[choice.tensor], {}
        for bits in (8, 4, 2):
            shift = exponents[bits][name] - graph.tensors[name].exponent.values[0]
            narrow = _requantised(graph, codes, name, bits, shift)
            if measure == "entropy":
                omega = (_entropy(wide) - _entropy(narrow)) / _entropy(wide)
            else:
                omega = np.sum((narrow * 2**shift - wide) ** 2) / np.sum(wide**2)
            phi = macs[name] * (8 - bits) / (8 * macs["a"])
            scores[bits] = -weight * omega + (1 - weight) * phi
            if bits == choice.bits:
                assert (choice.omega, choice.phi) == pytest.approx((omega, phi))
                assert choice.score == pytest.approx(scores[bits])
        assert choice.bits == max(scores, key=lambda bits: scores[bits])


@pytest.mark.parametrize("sigmas", [None, 1.7])
def test_what_a_feature_map_does_to_the_outputs(sigmas: float | None) -> None:
    """Ω by outputs against the interpreter, map by map; with outliers, in the patches that have none."""
    graph = small()
    inputs, plan = images(graph, 6), make_plan(graph, "b", (3, 3))
    if sigmas is not None:
        inputs = with_outlier(6, (0, 0))
    settings = Settings(omega_weight=0.6, measure="outputs", sigmas=sigmas)
    observed = OutputErrors(graph, inputs)
    found = quantmcu(graph, inputs, plan=plan, settings=settings, observed=observed)
    assert found.record.copies == (sigmas is not None)
    base = with_patches(graph, plan) if found.record.copies else graph
    (name,) = graph.outputs
    wide = interpret(graph, inputs)[name]
    assert {choice.tensor for choice in found.record.choices} == {"a", "b", "c"}
    for choice in found.record.choices:
        patches = choice.patches or (range(9) if choice.tensor == plan.cut else ())
        names = [f"{choice.tensor}.patch{p}" for p in patches] if found.record.copies else []
        width = Width(choice.bits, choice.exponent)
        narrow = narrowed(base, dict.fromkeys(names or [choice.tensor], width))
        finer = graph.tensors[name].exponent.values[0] - narrow.tensors[name].exponent.values[0]
        error = (interpret(narrow, inputs)[name] * 2.0**-finer - wide) ** 2
        assert choice.omega == pytest.approx(error.sum() / ((wide - wide.mean(axis=0)) ** 2).sum())
    assert min(choice.bits for choice in found.record.choices) < 8
    # Another λ measures nothing anew.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("qhw.patch.observed.OutputErrors._outputs", None)
        again = replace(settings, omega_weight=0.2)
        quantmcu(graph, inputs, plan=plan, settings=again, observed=observed)


def _entropy(codes: np.ndarray) -> float:
    _, counts = np.unique(codes, return_counts=True)
    return -sum(n / codes.size * math.log2(n / codes.size) for n in counts)


def _requantised(graph: ExactGraph, codes: dict, name: str, bits: int, shift: int) -> np.ndarray:
    """The wide codes rounded to fewer bits, one Requant behind the other."""
    builder, kind, node = GraphBuilder("again"), graph.tensors[name], graph.producer(name)
    x = builder.input("x", kind.shape, kind.format, kind.exponent)
    narrow = type(kind.format)(bits, kind.format.signed)
    y = builder.requant("y", x, narrow, kind.exponent.values[0] + shift, rounding=node.rounding)
    return interpret(builder.finish([y]), {"x": codes[name]})["y"]


@pytest.mark.parametrize("seed", range(20))
def test_bits_within_a_memory_are_the_best_of_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    names = [f"m{i}" for i in range(5)]
    choices = {
        name: Choice((8, 4, 2), tuple(np.cumsum(random.normal(0, 1, 3)) if i else (0.0, 1.0, 2.0)))
        for i, name in enumerate(names)
    }
    sizes = dict(zip(names, random.integers(1, 60, 5).tolist(), strict=True))
    live = [
        [(name, sizes[name], 8) for name in random.permutation(names)[:3].tolist()] + [(None, 9, 8)]
        for _ in range(4)
    ]

    def peak(bits: dict[str, int]) -> int:
        return max(sum(-(-n * bits.get(key, width) // 8) for key, n, width in held) for held in live)

    every = [dict(zip(names, bits, strict=True)) for bits in itertools.product((8, 4, 2), repeat=5)]

    def total(bits: dict[str, int]) -> float:
        return sum(choices[name].scores[choices[name].bits.index(b)] for name, b in bits.items())

    for memory in sorted({peak(bits) for bits in every})[:: 1 + seed % 3]:
        found = best_bits(choices, live, memory)
        assert peak(found) <= memory
        assert total(found) == pytest.approx(max(total(bits) for bits in every if peak(bits) <= memory))
    least = min(peak(bits) for bits in every)
    with pytest.raises(CheckFailedError, match=f"{least:,} bytes of SRAM are needed, 1 more than"):
        best_bits(choices, live, least - 1)
    assert best_bits(choices, live) == max(every, key=total)


def test_every_memory_of_a_network_is_kept_to_by_the_best_widths() -> None:
    """Brute force over all widths of all feature maps, each as a graph of its own with a plan of its own."""
    graph = small()
    inputs, plan = images(graph, 6), make_plan(graph, "b", (2, 2))
    free = quantmcu(graph, inputs, plan=plan, settings=WITHOUT_OUTLIERS)
    scores = {
        bits: {c.tensor: c for c in quantmcu(graph, inputs, plan=plan, settings=only(bits)).record.choices}
        for bits in (8, 4, 2)
    }
    assert {c.tensor for c in free.record.choices} == {"a", "b", "c"} == set(feature_maps(graph))
    tried = {}
    for bits in itertools.product((8, 4, 2), repeat=3):
        widths = {n: Width(b, scores[b][n].exponent) for n, b in zip("abc", bits, strict=True)}
        narrow = narrowed(graph, widths)
        total = sum(scores[b][n].score for n, b in zip("abc", bits, strict=True))
        tried[bits] = make_plan(narrow, "b", (2, 2)).peak_bytes, total
    peaks = sorted({peak for peak, _ in tried.values()})
    assert len(peaks) > 4
    for memory in peaks:
        found = quantmcu(graph, inputs, plan=plan, memory=memory, settings=WITHOUT_OUTLIERS).record
        best = max(total for peak, total in tried.values() if peak <= memory)
        assert sum(c.score for c in found.choices) == pytest.approx(best)
        chosen = {c.tensor: c.bits for c in found.choices}
        assert found.peak_bytes == tried[chosen["a"], chosen["b"], chosen["c"]][0] <= memory
    with pytest.raises(CheckFailedError, match="1 more than"):
        quantmcu(graph, inputs, plan=plan, memory=peaks[0] - 1, settings=WITHOUT_OUTLIERS)


def only(bits: int) -> Settings:
    return Settings(bit_widths=(bits,), sigmas=None)


def with_outlier(count: int, place: tuple[int, int], every: int = 1) -> dict[str, np.ndarray]:
    """Samples of a narrow noise, some of which have one bright pixel."""
    noise = np.random.default_rng(3).normal(100, 6, (count, 2, 12, 12)).round().clip(80, 120).astype(int)
    noise[::every, 1, place[0], place[1]] = 255
    return {"x": noise}


@pytest.mark.parametrize("place", [(0, 0), (5, 7), (6, 6), (11, 3)])
def test_patches_that_see_an_outlier_keep_their_bits(place: tuple[int, int]) -> None:
    graph = small()
    plan = make_plan(graph, "b", (3, 3))
    front, _ = front_of(graph, plan)
    seeing = [
        index
        for index, patch in enumerate(patches_of(graph, "b", (3, 3)))
        if all(
            a <= at < b for at, (a, b) in zip(place, regions_of(graph, front, "b", patch)["x"], strict=True)
        )
    ]
    assert 0 < len(seeing) < 9
    settings = Settings(omega_weight=0.0, sigmas=6.0)
    found = quantmcu(graph, with_outlier(8, place), plan=plan, settings=settings)
    assert list(found.record.outlier_patches) == seeing
    kinds = {patch: found.graph.tensors[f"a.patch{patch}"] for patch in range(9)}
    assert all(kinds[patch].format == graph.tensors["a"].format for patch in seeing)
    assert all(kinds[patch].format.width == 2 for patch in kinds if patch not in seeing)
    (choice,) = (choice for choice in found.record.choices if choice.tensor == "a")
    assert choice.patches == tuple(patch for patch in range(9) if patch not in seeing)
    _check(found, with_outlier(8, place))


def test_a_patch_belongs_to_the_class_that_it_is_usually_in() -> None:
    graph = small()
    plan = make_plan(graph, "b", (3, 3))
    inputs = with_outlier(9, (0, 0), every=3)
    assert outlier_shares(graph, plan, inputs, 6.0) == [3 / 9] + [0.0] * 8
    for share, expected in ((0.5, ()), (0.3, (0,))):
        settings = Settings(sigmas=6.0, outlier_share=share)
        assert quantmcu(graph, inputs, plan=plan, settings=settings).record.outlier_patches == expected


def _check(found: QuantMcu, inputs: dict[str, np.ndarray]) -> None:
    expected = interpret(found.graph, inputs)
    fast = FastExecutor(found.graph)(inputs)
    for name, values in expected.items():
        assert np.array_equal(values, fast[name])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "settings",
    [
        Settings(omega_weight=0.2, measure="entropy", sigmas=1.7),
        Settings(omega_weight=0.5, sigmas=1.7, measure="error"),
        Settings(
            omega_weight=0.1,
            sigmas=None,
            per_patch=True,
            correct_bias=False,
            phi="own",
            measure="entropy",
            omega="sum",
        ),
        uniform(2),
    ],
)
def test_mixed_patches_are_exact_and_cost_what_the_record_says(seed: int, settings: Settings) -> None:
    graph = network(seed)
    inputs, plan = images(graph, 12), make_plan(graph, "join", (2, 2))
    found = quantmcu(graph, inputs, plan=plan, settings=settings)
    _check(found, inputs)
    record = found.record
    spelled_out = with_patches(found.graph, found.plan)
    assert record.bit_operations == bit_operations(spelled_out) < record.wide_bit_operations
    assert record.peak_bytes <= record.wide_peak_bytes == plan.peak_bytes
    if not record.copies:  # one width per feature map: patch by patch or as a whole, the codes are the same
        assert found.patches == "join:2x2"
        by_patches, whole = run_by_patches(found.graph, plan, inputs), interpret(found.graph, inputs)
        for name, values in interpret(spelled_out, inputs).items():
            assert np.array_equal(values, whole[name])
            assert np.array_equal(values, by_patches[name])
    for choice in record.choices:
        inside = choice.patches or (range(4) if choice.tensor == plan.cut else ())
        copies = [f"{choice.tensor}.patch{patch}" for patch in inside] or [choice.tensor]
        for copy in copies:
            kind = spelled_out.tensors[copy]
            assert (kind.format.width, kind.exponent.values[0]) == (choice.bits, choice.exponent)
    stored = json.loads(json.dumps(record.to_json()))
    assert stored["choices"][0]["tensor"] == record.choices[0].tensor


def test_a_plan_is_found_for_a_memory_that_only_narrow_feature_maps_fit() -> None:
    graph = small()
    inputs = images(graph, 4)
    with pytest.raises(InputError, match="neither a memory nor a patch plan"):
        quantmcu(graph, inputs)
    tight = quantmcu(graph, inputs, memory=370, among=list(plans(graph, 3)))
    assert tight.record.peak_bytes <= 370 < tight.record.wide_peak_bytes
    wide = quantmcu(graph, inputs, memory=4000)
    assert not wide.record.plan.cut
    assert {choice.patches for choice in wide.record.choices} == {()}


def test_what_a_footprint_counts_beside_feature_maps_is_kept_free() -> None:
    """A footprint of feature maps and 40 bytes more: the same widths as with 40 bytes less."""
    graph = small()
    inputs, among = images(graph, 4), list(plans(graph, 3))

    def footprint(graph: ExactGraph, plan: PatchPlan) -> int | None:
        return None if plan.cut == "c" else peak_bytes(graph, live_sets(graph, plan.cut, plan.grid)) + 40

    counted = list(plans(graph, 3, footprint))
    fewer = [plan for plan in among if plan.cut != "c"]
    assert [plan.peak_bytes - 40 for plan in counted] == [plan.peak_bytes for plan in fewer]
    for memory in (380, 450, 700):
        found = quantmcu(graph, inputs, memory=memory, among=counted, footprint=footprint).record
        bare = quantmcu(graph, inputs, memory=memory - 40, among=fewer).record
        assert found.choices == bare.choices
        assert found.peak_bytes == bare.peak_bytes + 40 <= memory
    with pytest.raises(UnsupportedError, match="cut at 'c'"):
        quantmcu(graph, inputs, plan=make_plan(graph, "c", (2, 2)), footprint=footprint)


def test_behind_the_cut_widths_may_be_left_alone() -> None:
    graph = small()
    plan = make_plan(graph, "a", (2, 2))
    found = quantmcu(graph, images(graph, 4), plan=plan, settings=Settings(behind=False, sigmas=None))
    assert found.record.choices == ()
    assert found.record.bit_operations == found.record.wide_bit_operations


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bit_widths": ()}, "bit_widths is"),
        ({"bit_widths": (16,)}, "integers from 1 to 8"),
        ({"omega_weight": 1.5}, "omega_weight is 1.5"),
        ({"outlier_share": -1}, "outlier_share is -1"),
        ({"sigmas": 0}, "sigmas is 0"),
        ({"omega": "none"}, "omega is 'none'"),
        ({"measure": "loss"}, "measure is 'loss'"),
        ({"measure": "error", "omega": "sum"}, "have different units"),
        ({"per_patch": True}, "per_patch and correct_bias are both set"),
    ],
)
def test_settings_out_of_range_are_refused(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**given)


def test_no_samples_are_refused() -> None:
    graph = small()
    with pytest.raises(InputError, match="no samples"):
        quantmcu(graph, {"x": np.zeros((0, 2, 12, 12), dtype=int)}, plan=make_plan(graph, "a", (2, 2)))
