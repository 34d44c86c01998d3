"""Firmware of exact graphs for tests: planned, compiled, run, compared with the interpreter by map."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from qhw.boards import load_board
from qhw.flows.mcu import McuFlow
from qhw.flows.mcu.design import layout_of
from qhw.flows.mcu.layout import Layout
from qhw.flows.mcu.toolchain import compile_firmware, core_named
from qhw.formats.modes import IntArray
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph

H743 = load_board("stm32h743")

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
needs_qemu = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None or shutil.which("qemu-system-arm") is None,
    reason="arm-none-eabi-gcc or qemu-system-arm is not installed",
)

BOARD_OF_CORE = {"cortex-m7": "stm32h743", "cortex-m4": "stm32f412", "cortex-m33": "rp2350"}


def layout(graph: ExactGraph, patches: str = "none", board: str = "stm32h743") -> Layout:
    """The layout that the flow chooses, whatever fits."""
    flow = McuFlow(patches=patches)
    return layout_of(flow.best(flow.prepare(graph, load_board(board)), budget=1.0))


def differing(
    graph: ExactGraph,
    inputs: Mapping[str, IntArray],
    *,
    core: str = "",
    patches: str = "none",
) -> list[str]:
    """The tensors that firmware computes otherwise than the interpreter; in QEMU, or on this machine.

    Every map that the firmware holds is compared, and every output.
    """
    flow = McuFlow(patches=patches, run_on="qemu" if core else "host")
    board = load_board(BOARD_OF_CORE[core]) if core else H743
    design = flow.best(flow.prepare(graph, board), budget=1.0)
    with tempfile.TemporaryDirectory() as folder:
        project = flow.write(design, Path(folder) / "project", vectors=inputs)
        found = flow.simulate(project, inputs, trace="all")
    expected = interpret(graph, inputs, keep="all")
    assert set(graph.outputs) <= set(found)
    return [name for name, value in found.items() if name in expected and not _equal(expected[name], value)]


def static_ram(graph: ExactGraph, patches: str) -> int:
    """Bytes of ``.data`` and ``.bss`` of a graph's firmware for a Cortex-M7, as the linker placed them."""
    flow = McuFlow(patches=patches, run_on="qemu")
    design = flow.best(flow.prepare(graph, H743), budget=1.0)
    with tempfile.TemporaryDirectory() as folder:
        project = flow.write(design, Path(folder) / "project")
        program = compile_firmware(
            [
                project.folder / "model.c",
                project.folder / "test" / "harness.c",
                *sorted((project.folder / "kernels").glob("*.c")),
            ],
            Path(folder) / "firmware.elf",
            core_named("cortex-m7"),
            includes=[project.folder, project.folder / "kernels"],
            platform=project.folder / "test",
            optimisation="-O0",
        )
    return program.static_ram


def _equal(expected: IntArray, found: IntArray) -> bool:
    return np.array_equal(expected.reshape(found.shape).astype(object), found.astype(object))
