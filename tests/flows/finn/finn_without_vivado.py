"""``finn build`` where Vivado is not installed: FINN's own command and builder, without Vivado's simulator.

A program for a stand-in ``finn`` on the PATH; it takes ``finn``'s arguments, and runs what needs no Vivado.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import finn.util.settings
import finn.xsi

finn.xsi.SimEngine = object
from finn.builder.build_dataflow_config import DataflowBuildConfig  # noqa: E402
from finn.builder.build_dataflow_steps import step_hw_codegen, verify_step  # noqa: E402
from finn.interface import run_finn  # noqa: E402
from qonnx.core.modelwrapper import ModelWrapper  # noqa: E402
from qonnx.custom_op.registry import getCustomOp  # noqa: E402

LAST = "step_assign_ddr_weight_offsets"
"""The last step before FINN generates hardware, which starts Vitis."""


def take_settings(settings: finn.util.settings.FINNSettings, *_: object) -> None:
    """What FINN's preparation does, but for its search of Vivado and its downloads."""
    finn.util.settings._SETTINGS = settings


def nothing_simulated(_: DataflowBuildConfig) -> list[object]:
    """The steps after which FINN verifies: none, since its C++ simulation needs Vitis's headers."""
    return []


def generate_sources(project: Path) -> None:
    """The layers' sources, which the next step writes before it calls Vitis: listed in ``sources.json``."""
    config = DataflowBuildConfig.construct_from(project / "dataflow_build_config.yaml")
    made = step_hw_codegen(built(project), config)
    folders = {n.name: Path(getCustomOp(n).get_nodeattr("code_gen_dir_ipgen")) for n in made.graph.node}
    files = {name: sorted(path.name for path in folder.iterdir()) for name, folder in folders.items()}
    (project / "finn_build" / "sources.json").write_text(json.dumps(files))


def verify(project: Path) -> None:
    """FINN's own check of the model in its parent, with the project's vectors and tolerances, in Python.

    The variants of the layers cannot be executed in Python, what they are variants of can.
    """
    config = DataflowBuildConfig.construct_from(project / "dataflow_build_config.yaml")
    config.output_dir = str(project / config.output_dir)
    model = built(project)
    for node in model.graph.node:
        node.op_type = node.op_type.removesuffix("_rtl").removesuffix("_hls")
        node.domain = "finn.custom_op.fpgadataflow"
    verify_step(model, config, "python", need_parent=True)


def built(project: Path) -> ModelWrapper:
    """What FINN's builder made of the project."""
    return ModelWrapper(str(project / "finn_build" / "intermediate_models" / f"{LAST}.onnx"))


if __name__ == "__main__":
    run_finn.prepare_finn = take_settings
    DataflowBuildConfig._resolve_verification_steps = nothing_simulated
    assert sys.argv[1] == "build"
    run_finn.build.main([*sys.argv[2:], "--stop", LAST], standalone_mode=False)
    generate_sources(Path.cwd())
    verify(Path.cwd())
