"""The closed forms of units that keep words: against real synthesis, and against a FIFO's tiles by Vivado."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from qhw.cost.oracle.synth import Circuit, Yosys
from qhw.rtl import UNITS, closed_forms
from qhw.rtl.fifo import shift_register_luts
from qhw.rtl.shared.memories import BLOCK_RAM, LUT_MEMORY, SHIFT_REGISTER, block_ram, lut_memory, ultra_ram

DESIGNS = [
    ("ultrascale-plus", "fifo", {"D": 3, "W": 5, "STYLE": 0}),
    ("ultrascale-plus", "fifo", {"D": 100, "W": 1, "STYLE": 1}),
    ("ultrascale-plus", "fifo", {"D": 600, "W": 51, "STYLE": 2}),
    ("ultrascale-plus", "weight_memory", {"D": 300, "W": 10, "STYLE": 1}),
    ("ultrascale-plus", "weight_memory", {"D": 32, "W": 40, "STYLE": 3}),
    ("ultrascale-plus", "line_buffer", {"K": 3, "W": 5, "N": 140, "STYLE": 1}),
    ("7series", "line_buffer", {"K": 4, "W": 9, "N": 70, "STYLE": 0}),
    ("7series", "weight_memory", {"D": 32, "W": 9, "STYLE": 1}),
    ("7series", "max_pool", {"W": 5, "N": 5, "S": 1}),
    ("ecp5", "line_buffer", {"K": 2, "W": 20, "N": 600, "STYLE": 2}),
    ("ecp5", "fifo", {"D": 4096, "W": 27, "STYLE": 2}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "unit", "values"), DESIGNS)
def test_flip_flops_and_memories_are_those_of_the_circuit(
    family: str, unit: str, values: dict[str, int]
) -> None:
    pytest.importorskip("pyosys")
    given = UNITS[unit]
    design = Circuit(given.top, given.files, tuple(values.items()), memories=given.memories, srl=given.srl)
    counts = Yosys(family).synthesise(design).counts
    model = closed_forms(unit, family)
    assert counts is not None
    assert (counts.ff, counts.bram18, counts.uram) == (
        model.flip_flops(values),
        model.bram18(values, family),
        model.uram(values, family),
    )
    assert counts.lutram == model.features(values).get("memory LUTs", 0)
    assert bool(counts.lutram) == (values.get("STYLE") in (SHIFT_REGISTER, LUT_MEMORY))
    assert bool(counts.bram18) == (values.get("STYLE") == BLOCK_RAM)


@pytest.fixture(scope="module")
def finn() -> ModuleType:
    """FINN's model of its FIFO, fitted to Vivado, as a plain file: the package would start the whole flow."""
    package = importlib.util.find_spec("finn")
    if package is None or not package.submodule_search_locations:
        pytest.skip("finn-plus is not installed")
    path = Path(package.submodule_search_locations[0]) / "util" / "resource_models.py"
    spec = importlib.util.spec_from_file_location("finn_resource_models", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("width", [1, 8, 20, 36, 37, 64, 72, 128])
@pytest.mark.parametrize("words", [512, 1024, 2048])
def test_block_rams_are_what_vivado_takes(finn: ModuleType, words: int, width: int) -> None:
    """FINN counts the word in the output register as depth."""
    vivado = finn._fifo_cost(words + 1, width, "block")
    assert block_ram(words, width, "ultrascale-plus").units == vivado.bram


@pytest.mark.parametrize("width", [1, 40, 72, 100, 144])
def test_ultra_rams_are_what_vivado_takes(finn: ModuleType, width: int) -> None:
    assert ultra_ram(4096, width).units == finn._fifo_cost(4096, width, "ultra").uram


@pytest.mark.parametrize("words", [32, 64, 256, 1024])
def test_luts_of_memory_are_near_what_vivado_takes(finn: ModuleType, words: int) -> None:
    """FINN's figure has the decoding of the banks in it: a quarter of the memory itself."""
    ours, vivado = lut_memory(words, 64, "ultrascale-plus"), finn._lutram_luts(words, 64)
    assert 0.9 * vivado <= ours <= vivado


def test_shift_registers_hold_32_bits_a_lut() -> None:
    assert [shift_register_luts(words, 3) for words in (2, 3, 32, 33, 200)] == [0, 3, 3, 6, 21]
