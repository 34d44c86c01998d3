"""The whole design in Verilator, with its own test bench, in a child process."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qhw.errors import CheckFailedError, InputError, ToolMissingError
from qhw.flows.base import Execution, Project, Trace
from qhw.flows.rtl.project import (
    BENCH,
    CELLS,
    SIMULATION_TOP,
    SOURCES,
    UNIT_SOURCES,
    Travelling,
    checked_inputs,
    packed,
    read_description,
    unpacked,
    weights_image,
)
from qhw.flows.sealed import SealedProgram
from qhw.formats.modes import IntArray
from qhw.native import compiler_version, told_by
from qhw.outside import refuse_link
from qhw.rtl.simulation.runtime import FLAGS as COMPILE_FLAGS
from qhw.rtl.simulation.runtime import compile_program, verilator_folder

FLAGS = ("--cc", "-O3", "--x-initial", "unique", "--top-module", "simulated", "--prefix", "Vsimulated")
_QUIET = ("-Wno-fatal", "-Wno-WIDTH", "-Wno-DECLFILENAME", "-Wno-PINMISSING", "-Wno-UNOPTFLAT")
_TIMEOUT = 3600.0
_COMPILE_TIMEOUT = 1800.0
FOLDER = "verilated"
SEED = 1


@dataclass(frozen=True)
class Run:
    """What a simulation gave.

    Args:
        values: mantissas (N, *shape) by tensor.
        begins, ends: clock cycles of each image's first word in, and last word out.
    """

    values: Execution
    begins: IntArray
    ends: IntArray


def compile_project(project: Project) -> float:
    """Verilate the design and compile it, unless this user did so from the same sources; seconds spent.

    Raises ToolMissingError without Verilator or g++, CheckFailedError (with the tool's words) where it fails.
    """
    started = time.monotonic()
    root, compiler = verilator_folder(), shutil.which("g++")
    program = _program(project)
    version = "" if compiler is None else compiler_version(compiler).decode(errors="replace")
    if program.is_vouched_for(version):
        return 0.0
    if compiler is None:
        raise ToolMissingError(
            "g++ is not installed: the simulation is compiled with it", hint="apt-get install g++"
        )
    folder = project.folder / FOLDER
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as name:
        scratch = Path(name).absolute()
        inputs = [source for source in source_files(project.folder) if source.endswith((".v", ".sv"))]
        tool = [str(root / "bin" / "verilator"), *FLAGS, *_QUIET, "-Mdir", str(scratch), *inputs]
        _call(tool, project, {**os.environ, "VERILATOR_ROOT": str(root)})
        sources = [*sorted(scratch.glob("Vsimulated*.cpp")), project.folder.absolute() / BENCH]
        built = scratch / "program"
        compile_program(compiler, sources, scratch, built, lambda command: _call(command, project))
        program.keep(built, version)
    return time.monotonic() - started


def _program(project: Project) -> SealedProgram:
    flags = (*FLAGS, *_QUIET, *COMPILE_FLAGS)
    return SealedProgram(
        project.folder, f"{FOLDER}/program", "rtl program", source_files(project.folder), flags
    )


def source_files(folder: Path) -> list[str]:
    """The files that the simulation is compiled from, relative to a project's folder.

    Memories are read when the program runs. Raises InputError for a link: it would hide what is compiled.
    """
    found = []
    for name, pattern in ((SOURCES, "*.v"), (UNIT_SOURCES, "*.v"), (CELLS, "*.v")):
        refuse_link(folder / name)
        found += sorted((folder / name).glob(pattern))
    found += [folder / SIMULATION_TOP, folder / BENCH]
    for path in found:
        refuse_link(path)
    return [path.relative_to(folder).as_posix() for path in found]


def _call(command: Sequence[str], project: Project, environment: Mapping[str, str] | None = None) -> None:
    tool = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            cwd=project.folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMPILE_TIMEOUT,
            env=None if environment is None else dict(environment),
            check=False,
        )
    except OSError as error:
        raise ToolMissingError(f"{tool} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired as error:
        raise CheckFailedError(
            f"{tool} was stopped after {_COMPILE_TIMEOUT:g} s on {project.folder}",
            hint="a smaller folding gives a smaller design: give --fps or --budget",
        ) from error
    if done.returncode:
        raise CheckFailedError(
            f"{project.folder} does not compile: {tool} "
            f"{told_by(done.returncode, done.stderr or done.stdout)}"
        )


def simulate_project(
    project: Project,
    inputs: Mapping[str, IntArray],
    trace: Trace,
    timeout: float | None,
    seed: int = SEED,
    weights: Sequence[bytes] | None = None,
) -> Run:
    """Run input mantissas (N, *shape) through the compiled design, with random stalls at both ends.

    Args:
        seed: of the stalls; 0: none.
        weights: sets of weights, each loaded in front of as many of the images; None: the project's own.

    Raises:
        InputError: an array is missing or has another shape.
        CheckFailedError: the design gets stuck, marks a wrong word as the last, or takes longer than
            ``timeout`` seconds.
    """
    description = read_description(project.folder)
    images = checked_inputs(description, inputs)
    compile_project(project)
    wanted = [i for i, port in enumerate(description.traced) if _is_wanted(port.tensor, trace)]
    with tempfile.TemporaryDirectory(dir=project.folder / FOLDER, prefix="run-") as name:
        folder = Path(name).absolute()
        for index, port in enumerate(description.inputs):
            codes = port.codes(np.asarray(inputs[port.tensor]))
            (folder / f"in{index}").write_bytes(packed(codes, port.element.width, 8 * port.axis_bytes))
        if description.weights:
            sets = [weights_image(project.folder, description)] if weights is None else weights
            if any(len(each) != description.weights for each in sets) or images % len(sets):
                raise InputError(
                    f"{len(sets)} sets of weights of {sorted({len(each) for each in sets})} bytes are given "
                    f"for {images} images",
                    allowed=f"sets of {description.weights:,} bytes, as many images for each",
                )
            (folder / "weights").write_bytes(b"".join(sets))
        arguments = [str(folder), str(seed), str(images), *map(str, wanted)]
        _run([str(_program(project).file), *arguments], project, timeout or _TIMEOUT)
        values = {}
        for index in wanted:
            port = description.traced[index]
            values[port.tensor] = _read(folder / f"trace{index}", port, port.bits, images)
        for index, port in enumerate(description.outputs):
            if trace in ("outputs", "all") or port.tensor in set(trace):
                values[port.tensor] = _read(folder / f"out{index}", port, 8 * port.axis_bytes, images)
        stamps = (np.fromfile(folder / name, dtype=np.uint64).astype(np.int64) for name in ("begins", "ends"))
        return Run(values, *stamps)


def _is_wanted(tensor: str, trace: Trace) -> bool:
    return trace == "all" or (trace != "outputs" and tensor in set(trace))


def _run(command: Sequence[str], project: Project, timeout: float) -> None:
    try:
        code = subprocess.run(command, cwd=project.folder, timeout=timeout, check=False).returncode
    except subprocess.TimeoutExpired as error:
        raise CheckFailedError(
            f"the simulation of {project.folder} was stopped after {timeout:.0f} s",
            hint="simulate fewer samples, or allow more time",
        ) from error
    if code == _STUCK:
        raise CheckFailedError(f"the design in {project.folder} is stuck: no word moves any more")
    if code == _WRONG_LAST:
        raise CheckFailedError(f"the design in {project.folder} marks a wrong word as an image's last")
    if code:
        raise CheckFailedError(f"the simulation of {project.folder} {told_by(code, '')}")


_STUCK, _WRONG_LAST = 3, 4


def _read(path: Path, port: Travelling, bits: int, images: int) -> IntArray:
    """The words of a stream as mantissas; those of images that came in later are not whole."""
    codes = unpacked(path.read_bytes(), port.element.width, port.lanes, bits)
    whole = images * port.words
    if len(codes) < whole:
        raise CheckFailedError(f"the stream of '{port.tensor}' gave {len(codes)} words, not {whole}")
    return port.mantissas(codes[:whole])
