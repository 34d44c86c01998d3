"""The folder ``zynq/`` of a project: from its Verilog or C++ to a board that runs PYNQ."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qhw.boards import Board
from qhw.graph.ir import ExactGraph
from qhw.zynq import driver, encoding
from qhw.zynq.block_design import (
    CONSTRAINTS,
    MOST_STREAMS,
    block_design_text,
    build_text,
    has_processing_system,
)
from qhw.zynq.facts import driver_facts
from qhw.zynq.layout import BEAT_BITS, DmaTensor
from qhw.zynq.shell import LIBRARY, SHELL, shell_text

FOLDER = "zynq"
DRIVER = "zynq/driver"
PRODUCTS = ("vivado", "bitstream")
"""What the scripts make in a project."""


@dataclass(frozen=True)
class Network:
    """A network behind the DMA engines.

    Args:
        inputs, outputs: its ends.
        identity: 8 bytes that the board answers with when it is asked for its design.
        inside: Verilog that goes into the shell, see :func:`qhw.zynq.shell.shell_text`.
        core: the network as a core of its own, where it is no Verilog: ``vendor:library:name:version``.
        sources: patterns of the project's Verilog beside that in ``zynq/``.
        first: a command of ``build.sh`` in front of Vivado's, as lines of a POSIX shell.
    """

    inputs: Sequence[DmaTensor]
    outputs: Sequence[DmaTensor]
    identity: bytes
    inside: str | None = None
    core: str | None = None
    sources: tuple[str, ...] = ()
    first: str = ""


def takes(board: Board, inputs: Sequence[DmaTensor], outputs: Sequence[DmaTensor]) -> bool:
    """Whether there is a way from a board's memory into a design and back."""
    return has_processing_system(board) and not why_not(inputs, outputs)


def why_not(inputs: Sequence[DmaTensor], outputs: Sequence[DmaTensor]) -> str:
    """Why a design cannot lie behind DMA engines; empty where it can."""
    if wide := [end for end in (*inputs, *outputs) if not end.is_carried]:
        named = ", ".join(f"'{end.tensor}' has {end.bits}" for end in wide)
        return f"elements have up to {BEAT_BITS} bits in memory, and {named}"
    if max(len(inputs), len(outputs)) > MOST_STREAMS:
        return (
            f"it has {len(inputs)} inputs and {len(outputs)} outputs, and there are up to {MOST_STREAMS} DMA "
            "engines"
        )
    return ""


def write_zynq(network: Network, graph: ExactGraph, board: Board, folder: Path) -> None:
    """Write ``zynq/`` into a project's folder; the same design gives the same bytes."""
    target = folder / FOLDER
    (target / "verilog").mkdir(parents=True)
    inputs, outputs = network.inputs, network.outputs
    text = shell_text(inputs, outputs, network.identity, network.inside)
    (target / "verilog" / f"{SHELL}.v").write_text(text)
    for file in sorted(LIBRARY.glob("*.v")):
        shutil.copyfile(file, target / "verilog" / file.name)
    design = block_design_text(board, len(inputs), len(outputs), network.core)
    (target / "block_design.tcl").write_text(design)
    sources = (*network.sources, f"{FOLDER}/verilog/*.v")
    (target / "build.tcl").write_text(build_text(board, sources, cores=network.core is not None))
    (target / "constraints.xdc").write_text(CONSTRAINTS)
    script = target / "build.sh"
    script.write_text(_BUILD_SH.replace("FIRST\n", network.first))
    script.chmod(0o755)
    (target / "README.md").write_text(_readme(network, graph, board))
    (folder / DRIVER).mkdir()
    write_script(driver.__file__, folder / DRIVER)
    write_script(encoding.__file__, folder / DRIVER)
    facts = driver_facts(
        graph,
        inputs,
        outputs,
        identity=network.identity,
        registers="accelerator",
        clock_mhz=board.clock_mhz,
    )
    (folder / DRIVER / "accelerator.json").write_text(json.dumps(facts, indent=1) + "\n")


def write_script(source: str, folder: Path) -> None:
    """Copy a module that runs on a board, where what it imports of this package lies beside it."""
    text = Path(source).read_text().replace("from qhw.zynq.encoding import", "from encoding import")
    (folder / Path(source).name).write_text(text)


_BUILD_SH = """\
#!/bin/sh
# From this project to bitstream/, on a machine with AMD's tools. Exit code 1 where one of them fails.
set -eu
cd "$(dirname "$0")/.."
mkdir -p vivado
FIRST
cd vivado
vivado -mode batch -notrace -nojournal -source ../zynq/build.tcl
"""


def _plain(name: str) -> str:
    """A readable part of a name, which may come from a file."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:40] or "_"


def _readme(network: Network, graph: ExactGraph, board: Board) -> str:
    rows = "\n".join(
        f"| {way} `{_plain(end.tensor)}` | {' x '.join(map(str, end.shape)) or '1'} | {end.bits} bits"
        f"{' of codes of ' + str(end.format) if end.format else ', signed' if end.signed else ''} "
        f"| {end.container_bits // 8} | {end.beats * 8} |"
        for way, ends in (("input", network.inputs), ("output", network.outputs))
        for end in ends
    )
    needed = "Vitis HLS and Vivado" if network.core else "Vivado"
    return f"""\
# {_plain(graph.name)} on {board.title}

| | |
|---|---|
| `build.sh` | from this project to `../bitstream/`, on a machine with {needed} |
| `build.tcl`, `block_design.tcl`, `constraints.xdc` | what Vivado runs |
| `verilog/` | the module `{SHELL}`: registers, counted images, TLAST |
| `driver/` | what runs on the board, in PYNQ's environment |

```
./zynq/build.sh
scp -r bitstream xilinx@pynq:accelerator
```

On the board:

```
cd accelerator && sudo -E python3 driver.py samples.npy values.npy
```

```python
from driver import Accelerator
values = Accelerator().run(images)      # (N, *shape) as the network's user has them
```

The driver refuses a bitstream of another design: this one is `{network.identity.hex()}`.

| | shape | element | bytes of an element | bytes of an image |
|---|---|---|---|---|
{rows}

The clock is {board.clock_mhz:g} MHz. `Accelerator(batch=64)` sets how many images one transfer moves, and
`counters` tells the images and the clock cycles that the network took for them.

The wrapper and the driver were simulated together, by the tests of qhw. Vivado and the board were not at
hand: the scripts were checked against the names of the Verilog's ports and of AMD's documents, and no more.
"""
