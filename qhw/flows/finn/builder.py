"""What ``finn build`` needs to go on from a written project: its configuration, and a script that runs it.

The configuration starts behind FINN's own front: at ``hardware.onnx``, with the project's folding and
variants, so nothing is streamlined or folded again. FINN verifies with the project's vectors, exactly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qhw.boards import Board
from qhw.flows.finn.folding import FOLDING_FILE, VARIANTS_FILE
from qhw.flows.finn.project import HARDWARE
from qhw.flows.finn.tools import library

CONFIGURATION = "dataflow_build_config.yaml"
SCRIPT = "build.sh"
OUTPUT = "finn_build"
"""The folder that FINN builds into."""

STEPS = (
    "step_create_dataflow_partition",
    "step_specialize_layers",
    "step_apply_folding_config",
    "step_minimize_bit_width",
    "step_transpose_decomposition",
    "step_generate_estimate_reports",
    "step_assign_ddr_weight_offsets",
    "step_generate_hardware",
    "step_create_stitched_ip",
    "step_measure_rtlsim_performance",
    "step_out_of_context_synthesis",
    "step_prepare_synthesis",
    "step_synthesize_bitfile",
    "step_make_driver",
    "step_deployment_package",
)
"""finn-plus's ``default_build_dataflow_steps`` from the partition on, without the choice of a folding."""

_IN_SIMULATION = ("estimate_reports", "stitched_ip", "rtlsim_performance")
_ON_A_BOARD = ("bitfile", "pynq_driver", "deployment_package")
_OF_A_PART = ("out_of_context_synth",)

_HEADER = f"""\
# FINN's build of this network, from {HARDWARE} on. To run it where Vivado is installed: ./{SCRIPT}
# The model and the vectors are looked for in the working folder, which {SCRIPT} makes this one.
"""

_SCRIPT = f"""\
#!/bin/sh
# Builds this network with FINN, where Vivado, Vitis HLS (source their settings64.sh first) and finn-plus are.
# Results: {OUTPUT}/bitfile, {OUTPUT}/report, {OUTPUT}/deploy. Options are passed on to 'finn build':
# --stop step_generate_estimate_reports, --start step_create_stitched_ip, ...
set -eu
cd "$(dirname "$0")"
report={OUTPUT}/report/metadata_builder.json
rm -rf "$report" {OUTPUT}/verification_output

finn build --batch --build-path {OUTPUT}/temporary "$@" {CONFIGURATION} {HARDWARE}

# 'finn build' ends with exit code 0 also where it failed, and goes on where a verification did.
if ! grep -qs '"status": "ok"' "$report"; then
    echo "FINN's build failed: see {OUTPUT}/build_dataflow.log" >&2
    exit 1
fi
for result in {OUTPUT}/verification_output/*_FAIL*; do
    if [ -e "$result" ]; then
        echo "FINN's simulation gives other codes than vectors/expected_output.npy: see $result" >&2
        exit 1
    fi
done
if [ -d {OUTPUT}/deploy/driver ]; then
    cp driver/host.py driver/encoding.py driver/host.json {OUTPUT}/deploy/driver/
fi
"""


def finn_board(board: Board) -> str | None:
    """FINN's name of a board: of the same device, and of the same name or one that begins with it.

    None where FINN does not know it: a board of a known device may be wired otherwise.
    """
    parts = library("finn.util.basic")
    known = {**parts.pynq_part_map, **parts.alveo_part_map}
    same = [str(name) for name, part in known.items() if part.casefold() == board.part.casefold()]
    for name in same:
        if name.casefold() == board.name.casefold():
            return name
    return next((name for name in same if name.casefold().startswith(board.name.casefold())), None)


def is_alveo(name: str | None) -> bool:
    """Whether FINN builds for a board with Vitis, else with Vivado."""
    return name in library("finn.util.basic").alveo_part_map


def configuration(board: Board) -> dict[str, Any]:
    """FINN's build configuration of a project, as it is written.

    A board that FINN knows gets a bitstream and a driver. Of any other one, the device alone is stated: FINN
    makes an IP block, and places and routes it out of context.
    """
    name = finn_board(board)
    if name is None:
        target: dict[str, Any] = {"fpga_part": board.part}
    else:
        target = {"board": name, "shell_flow_type": "vitis_alveo" if is_alveo(name) else "vivado_zynq"}
    if not board.capacity.get("uram"):  # FINN would take it for every FIFO of more than 2,028 words
        target["large_fifo_mem_style"] = "block"
    return {
        "output_dir": OUTPUT,
        **target,
        "synth_clk_period_ns": board.clock_period_ns,
        "folding_config_file": FOLDING_FILE,
        "specialize_layers_config_file": VARIANTS_FILE,
        "generate_outputs": [*_IN_SIMULATION, *(_OF_A_PART if name is None else _ON_A_BOARD)],
        "steps": list(STEPS),
        "verify_steps": ["folded_hls_cppsim", "stitched_ip_rtlsim"],
        "verify_input_npy": "vectors/input.npy",
        "verify_expected_output_npy": "vectors/expected_output.npy",
        # Codes are compared: FINN's own tolerances would let a large sum be wrong.
        "verification_atol": 0.0,
        "verification_rtol": 0.0,
        "verification_mean_atol": 0.0,
        "verification_mean_rtol": 0.0,
    }


def write_build(board: Board, folder: Path) -> None:
    """Write FINN's build configuration, and the script that runs it."""
    text = library("yaml").safe_dump(configuration(board), sort_keys=False)
    (folder / CONFIGURATION).write_text(_HEADER + text)
    script = folder / SCRIPT
    script.write_text(_SCRIPT)
    script.chmod(0o755)
