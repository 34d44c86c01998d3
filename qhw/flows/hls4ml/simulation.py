"""Compiles a project's test bench and runs it, as child processes that may fail without taking us along."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qhw.errors import CheckFailedError, InputError, ToolMissingError
from qhw.flows.base import Execution, Project, Trace
from qhw.flows.hls4ml.carry import logical
from qhw.flows.hls4ml.project import Description, SimulatedTensor, batch, read_description
from qhw.flows.hls4ml.weights import check_weights
from qhw.flows.sealed import SealedProgram
from qhw.formats.modes import IntArray
from qhw.native import compiler_version, told_by
from qhw.outside import inside, refuse_link

logger = logging.getLogger(__name__)

COMPILE_FLAGS = (
    "-O1",
    "-std=c++17",
    "-w",
    "-Ifirmware/ap_types",
    '-DWEIGHTS_DIR="firmware/weights"',
)
"""-O1: the simulation is nearly as fast as at -O3."""

_BENCH_FLAG = "-O0"
"""The test bench reads and writes files: compiled without optimisation it takes half the time."""

_SUFFIXES = frozenset({".c", ".cc", ".cpp", ".h", ".hh", ".hpp", ".inc"})
_COMPILE_TIMEOUT = 1800.0
_MOST_WORDS = 2000
"""Characters of a compiler's complaints that are passed on."""
_BASE_TIMEOUT = 120.0
_TIMEOUT_PER_SAMPLE = 10.0


def compile_project(project: Project) -> float:
    """Compile the test bench, unless this user compiled it from the same sources before; seconds spent.

    Raises ToolMissingError without g++, CheckFailedError (with the compiler's words) where it does not build.
    """
    started = time.monotonic()
    compiler = shutil.which("g++")
    program = _program(project)
    version = "" if compiler is None else compiler_version(compiler).decode(errors="replace")
    if program.is_vouched_for(version):
        return 0.0
    if compiler is None:
        raise ToolMissingError(
            "g++ is not installed: the C-simulation is compiled with it", hint="apt-get install g++"
        )
    program.file.parent.mkdir(exist_ok=True)
    # The function between beats goes into the test bench's unit: another would read the same headers again.
    wrapper = f"firmware/{project.name}_axi.cpp"
    included = ("-include", wrapper) if inside(project.folder, wrapper).is_file() else ()
    units = {
        f"firmware/{project.name}.cpp": ("firmware.o",),
        f"{project.name}_test.cpp": ("test.o", _BENCH_FLAG, *included),
    }
    for source in units:
        inside(project.folder, source)
    with (
        tempfile.TemporaryDirectory(dir=program.file.parent, prefix="build-") as name,
        ThreadPoolExecutor() as pool,
    ):
        scratch = Path(name).absolute()
        jobs = [
            pool.submit(
                _run, [compiler, *COMPILE_FLAGS, *more, "-c", source, "-o", str(scratch / target)], project
            )
            for source, (target, *more) in units.items()
        ]
        for job in jobs:
            job.result()
        built = scratch / "program"
        # Of a function that both hold, the linker takes the first: the design's, which is optimised.
        objects = [str(scratch / target) for target, *_ in units.values()]
        _run([compiler, *objects, "-o", str(built)], project)
        program.keep(built, version)
    return time.monotonic() - started


def _program(project: Project) -> SealedProgram:
    flags = (*COMPILE_FLAGS, _BENCH_FLAG)
    return SealedProgram(
        project.folder, f"csim/{project.name}", "hls4ml program", source_files(project.folder), flags
    )


def source_files(folder: Path) -> list[str]:
    """The files of a project folder that the compiler may read, relative to it.

    Weights are read when the program runs. Raises InputError for a link: it would hide what is compiled.
    """
    found = [path for path in folder.iterdir() if path.suffix in _SUFFIXES]
    found += (folder / "firmware").rglob("*")
    for path in (folder / "firmware", *found):
        refuse_link(path)
    names = (path.relative_to(folder).as_posix() for path in sorted(found) if path.is_file())
    return [name for name in names if not (name.startswith("firmware/weights/") and name.endswith(".txt"))]


def _run(command: Sequence[str], project: Project) -> None:
    """Run the compiler in the project's folder."""
    try:
        done = subprocess.run(
            command,
            cwd=project.folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMPILE_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise ToolMissingError(
            f"g++ cannot be run: {error.strerror} ({command[0]})",
            hint="install g++, or put it first on the PATH",
        ) from None
    except subprocess.TimeoutExpired as error:
        raise CheckFailedError(
            f"g++ was stopped after {_COMPILE_TIMEOUT:g} s on the C-simulation of {project.folder}",
            hint="a design that is less unrolled compiles faster: use io_stream",
        ) from error
    if done.returncode:
        words = done.stderr
        if len(words) > _MOST_WORDS:
            words = "\n".join(line for line in words.splitlines() if "error" in line) or words[-_MOST_WORDS:]
        raise CheckFailedError(
            f"the C-simulation of {project.folder} does not compile: g++ "
            f"{told_by(done.returncode, words[:_MOST_WORDS])}"
        )
    if not Path(project.folder, command[-1]).is_file() and "-o" in command:
        raise ToolMissingError(
            f"g++ wrote no {command[-1]}, though it succeeded", hint="check what g++ is here"
        )


def simulate_project(
    project: Project, inputs: Mapping[str, IntArray], trace: Trace, timeout: float | None
) -> Execution:
    """Run input mantissas (N, *shape) through the compiled project; mantissas by tensor name.

    The samples are shared out over as many processes as there are cores.
    Raises CheckFailedError, naming the project, where a process crashes, ends with an error, or takes longer
    than ``timeout`` seconds.
    """
    description = read_description(project.folder)
    for port in description.inputs:
        if port.tensor not in inputs:
            raise InputError(f"no array is given for input '{port.tensor}'")
        if np.shape(inputs[port.tensor])[1:] != port.shape:
            raise InputError(
                f"input '{port.tensor}' has shape {np.shape(inputs[port.tensor])}",
                allowed=f"(N, *{port.shape})",
            )
    check_weights(project.folder)
    compile_project(project)
    traced = _wanted(description, trace)
    samples = batch(description.inputs, inputs)
    limit = timeout or _BASE_TIMEOUT + _TIMEOUT_PER_SAMPLE * len(samples)
    parts = np.array_split(samples, max(1, min(os.cpu_count() or 1, len(samples))))
    with ThreadPoolExecutor(len(parts)) as pool:
        jobs = [pool.submit(_simulate_part, project, description, part, traced, limit) for part in parts]
        results = [job.result() for job in jobs]
    merged = {name: np.concatenate([part[name] for part in results]) for name in results[0]}
    if trace == "outputs" or trace == "all":
        return merged
    return {name: merged[name] for name in merged if name in set(trace)}


def _wanted(description: Description, trace: Trace) -> tuple[SimulatedTensor, ...]:
    """The tensors to trace; InputError where no layer of the project carries one."""
    if trace == "outputs":
        return ()
    if trace == "all":
        return description.traced
    known = {port.tensor for port in (*description.traced, *description.outputs)}
    missing = sorted(set(trace) - known)
    if missing:
        raise InputError(
            f"the project has no layer for the tensors {', '.join(missing)} alone",
            allowed=", ".join(sorted(known)),
        )
    return tuple(port for port in description.traced if port.tensor in set(trace))


def _simulate_part(
    project: Project,
    description: Description,
    samples: NDArray[np.float64],
    traced: Sequence[SimulatedTensor],
    timeout: float,
) -> Execution:
    with tempfile.TemporaryDirectory(dir=project.folder / "csim", prefix="run-") as name:
        folder = Path(name).absolute()  # the child runs in the project's folder
        np.ascontiguousarray(samples).tofile(folder / "in")
        files = [str(folder / part) for part in ("in", "out", "trace")]
        _child(
            [str(_program(project).file), *files, *(port.carried.layer for port in traced)], project, timeout
        )
        outputs = _split(folder / "out", description.outputs, len(samples), project)
        # The program writes the layers in its own order, which is the description's.
        return outputs | _split(folder / "trace", traced, len(samples), project)


def _child(command: Sequence[str], project: Project, timeout: float) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=project.folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CheckFailedError(
            f"the C-simulation of {project.folder} was stopped after {timeout:.0f} s",
            hint="simulate fewer samples, or allow more time",
        ) from error
    if done.returncode:
        raise CheckFailedError(
            f"the C-simulation of {project.folder} {told_by(done.returncode, done.stderr)}"
        )
    if "ERROR" in done.stderr:
        raise CheckFailedError(f"the C-simulation of {project.folder} says:\n{done.stderr.strip()[-2000:]}")


def _split(path: Path, ports: Sequence[SimulatedTensor], samples: int, project: Project) -> Execution:
    """A file of float64 rows as mantissas by tensor."""
    width = sum(port.carried.size for port in ports)
    values = np.fromfile(path, dtype=np.float64)
    if values.size != samples * width:
        raise CheckFailedError(
            f"the C-simulation of {project.folder} returned {values.size} numbers, not {samples * width}"
        )
    rows = values.reshape(samples, width)
    parts = np.split(rows, np.cumsum([port.carried.size for port in ports])[:-1], axis=1) if ports else []
    return {
        port.tensor: logical(port.carried, part, port.shape) for port, part in zip(ports, parts, strict=True)
    }
