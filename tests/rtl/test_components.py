"""Components: a file each beside its Verilog, what they take, and Verilator against their references."""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import qhw.rtl.components
from qhw.devices import fabrics
from qhw.errors import CheckFailedError, InputError
from qhw.rtl import UNITS
from qhw.rtl.base import COMPONENTS_FOLDER, CountedStream, Values, Words, verilog_files
from qhw.rtl.components import COMPONENTS, LANE_COMPONENTS, STREAMS
from qhw.rtl.components.gearbox import Gear
from qhw.rtl.shared.counting import Columns, Counting
from qhw.rtl.simulation.composed import COMPOSED
from qhw.rtl.simulation.proof import Case, check, prove
from qhw.rtl.simulation.streams import StreamCase, check_streams, prove_streams
from qhw.rtl.simulation.verilator import Simulator

PROOFS = Path(__file__).parents[2] / "benchmarks" / "results" / "rtl_proofs.md"
BETWEEN_STREAMS = {**STREAMS, **COMPOSED}

FEW = 2_000
"""Steps, or clock cycles, of the proofs that run each time; those of the committed table are longer."""


def test_a_component_is_one_file_of_its_name_and_verilog_is_beside_it() -> None:
    modules = [module.name for module in pkgutil.iter_modules(qhw.rtl.components.__path__)]
    assert modules == list(COMPONENTS)
    assert all(COMPONENTS[name].name == name for name in modules)
    shared = {"delay"}  # measured units have it, too
    assert {path.stem for path in COMPONENTS_FOLDER.glob("*.v")} == set(modules) - shared
    assert not set(COMPONENTS) & set(UNITS)


@pytest.mark.parametrize("name", COMPONENTS)
def test_its_sources_hold_its_module(name: str) -> None:
    files = COMPONENTS[name].files
    assert files[-1].stem == name
    assert f"module {name} " in files[-1].read_text()


def test_a_module_has_one_file() -> None:
    measured = Path(verilog_files()["fifo"]).parent
    assert not {path.stem for path in measured.glob("*.v")} & {p.stem for p in COMPONENTS_FOLDER.glob("*.v")}


@pytest.mark.parametrize("family", fabrics())
@pytest.mark.parametrize("name", COMPONENTS)
def test_what_it_takes_is_counted_in_every_family(name: str, family: str) -> None:
    unit = COMPONENTS[name]
    for sample in unit.samples:
        values = unit.checked(sample)
        words = list(unit.constants(values)) if unit.constants else []
        columns = Columns.of(words, max(word.bit_length() for word in words) or 1) if words else None
        taken = unit.counted(values, Counting(family, columns))
        assert all(math.isfinite(one) and one >= 0 for one in (taken.lut, taken.ff, taken.bram18))


def test_timings_have_numbers_of_their_own() -> None:
    """By which the schedule's kernel tells them apart."""
    kinds = [unit.timing(unit.checked(unit.samples[0])).kind for unit in BETWEEN_STREAMS.values()]
    assert sorted(kinds) == list(range(len(BETWEEN_STREAMS)))


@pytest.mark.parametrize("name", [*COMPONENTS, *COMPOSED])
def test_it_stands_in_the_table_of_proofs(name: str) -> None:
    unit = COMPONENTS.get(name) or COMPOSED[name]
    lines = [line.strip("| ").split(" | ") for line in PROOFS.read_text().splitlines()]
    found = [line for line in lines if line[:2] == [name, unit.summary]]
    assert [(int(line[2]), line[-1]) for line in found] == [(len(unit.samples), "0")]


def test_components_compute_what_their_references_say(simulator: Simulator) -> None:
    cases = [Case(unit, values) for unit in LANE_COMPONENTS.values() for values in unit.samples]
    check(prove(cases, simulator, vectors=FEW))


def stream_cases() -> list[StreamCase]:
    return [StreamCase(unit, values) for unit in BETWEEN_STREAMS.values() for values in unit.samples]


def test_streams_carry_the_right_words_in_the_right_cycles(simulator: Simulator) -> None:
    proofs = prove_streams(stream_cases(), simulator, cycles=FEW)
    check_streams(proofs)
    assert all(proof.words > 10 for proof in proofs)


GEARBOX = STREAMS["gearbox"]
GEARED = {"A": 2, "B": 3, "W": 4}


def swapped(values: Values, given: Words) -> Words:
    words = list(GEARBOX.reference(values, given)["y"])
    words[20], words[21] = words[21], words[20]
    return {"y": words}


FAULTS: Sequence[CountedStream] = (
    replace(GEARBOX, reference=swapped),
    replace(GEARBOX, timing=lambda values: Gear(values["B"], values["A"])),
    replace(STREAMS["gather_stream"], constants=lambda values: [0] * values["L"]),
)


def test_a_fault_is_found_and_named(simulator: Simulator) -> None:
    """Two words swapped, other cycles, other constants."""
    given = GEARED, GEARED, STREAMS["gather_stream"].samples[0]
    cases = [StreamCase(unit, values) for unit, values in zip(FAULTS, given, strict=True)]
    proofs = prove_streams(cases, simulator, cycles=FEW)
    assert all(proof.differences for proof in proofs)
    with pytest.raises(CheckFailedError, match=r"gearbox A=2 B=3 W=4: \d+ cycles differ"):
        check_streams(proofs)


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("pad_stream", {"R1": 9}, "R of pad_stream is 3: the part ends beyond the image"),
        ("place", {"COUNT": 40}, "D of place is 1: the part ends beyond it"),
        ("clamp", {"LOW": 64}, "LOW of clamp is 64"),
        ("sliding_window", {"OM": 9}, "M of sliding_window is 5: a window lies beyond the image"),
        ("sliding_window", {"D": 16}, "D of sliding_window is 16: the memory does not hold"),
        ("gearbox", {"A": 0}, "A of gearbox .* is 0"),
    ],
)
def test_parameters_that_do_not_go_together_are_named(
    name: str, changed: Mapping[str, int], said: str
) -> None:
    unit = COMPONENTS[name]
    with pytest.raises(InputError, match=said):
        unit.checked({**unit.samples[0], **changed})
