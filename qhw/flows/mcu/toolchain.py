"""Compiles firmware with GCC and runs it in QEMU, or on the host; counts its instructions and its memory.

QEMU counts instructions, not cycles. With ``-icount shift=6`` an instruction takes 64 ns of the emulated
clock, and the counter of an MPS2 board runs at that clock: instructions follow from its ticks exactly.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from qhw.errors import CheckFailedError, InputError, ToolMissingError
from qhw.flows.base import Tool
from qhw.native import told_by
from qhw.resources import resource_dir

COMPILER = Tool(
    "arm-none-eabi-gcc",
    "Compiling firmware for a Cortex-M",
    "install it (Debian: apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi)",
)
EMULATOR = Tool("qemu-system-arm", "Running firmware", "install it (Debian: apt-get install qemu-system-arm)")
HOST_COMPILER = Tool("gcc", "Compiling firmware for this machine", "install it (Debian: apt-get install gcc)")

COMPILE_SECONDS = 600.0
RUN_SECONDS = 300.0
_MOST_WORDS = 2000
_WARNINGS = ("-std=c99", "-Wall", "-Wextra")
OPTIMISATION = "-O2"


@dataclass(frozen=True)
class Core:
    """A processor core: how it is compiled for, and what emulates it.

    Args:
        name: the core that firmware runs on: ``cortex-m7``.
        title: its name in messages.
        flags: the compiler's.
        machine: QEMU's board with that core.
        flash_start, ram_start: where that board has memory, 4 MiB of each.
        counter: the address of its counter.
        counter_mhz: the clock of the counter.
    """

    name: str
    title: str
    flags: tuple[str, ...]
    machine: str
    flash_start: int = 0x0
    ram_start: int = 0x2000_0000
    counter: int = 0x4002_8018
    counter_mhz: int = 25

    def instructions(self, ticks: int) -> int:
        """Instructions that passed in ticks of the counter: one takes 64 ns."""
        return int(Fraction(ticks * 1000, 64 * self.counter_mhz))


CORES = {
    core.name: core
    for core in (
        Core(
            "cortex-m4",
            "Arm Cortex-M4",
            ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
            "mps2-an386",
        ),
        Core(
            "cortex-m7",
            "Arm Cortex-M7",
            ("-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-d16", "-mfloat-abi=hard"),
            "mps2-an500",
        ),
        Core(
            "cortex-m33",
            "Arm Cortex-M33",
            ("-mcpu=cortex-m33", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
            "mps2-an505",
            flash_start=0x1000_0000,
            ram_start=0x3800_0000,
            counter=0x4030_2018,
            counter_mhz=20,
        ),
    )
}


@dataclass(frozen=True)
class Memory:
    """What a target offers, in bytes."""

    flash: int = 4 << 20
    ram: int = 4 << 20
    stack: int = 16 << 10


@dataclass(frozen=True)
class Firmware:
    """A compiled program.

    Args:
        program: the ELF file, or the host's executable.
        core: None where it runs on the host.
        flash: bytes of code, constants and initial values; 0 on the host.
        static_ram: bytes of variables, the stack left out; 0 on the host.
    """

    program: Path
    core: Core | None
    flash: int = 0
    static_ram: int = 0


def platform_folder() -> Path:
    """The package's own start-up code, linker script and test firmware."""
    return resource_dir("mcu") / "platform"


def compile_firmware(
    sources: Sequence[Path],
    program: Path,
    core: Core | None,
    *,
    includes: Sequence[Path] = (),
    defines: Sequence[str] = (),
    memory: Memory = Memory(),
    platform: Path | None = None,
    optimisation: str = OPTIMISATION,
    timeout: float = COMPILE_SECONDS,
) -> Firmware:
    """Compile C sources with the platform's own to a program.

    Args:
        program: the file that is written.
        core: what it is for; None for the host.
        includes: folders of headers, in front of the kernels' and the platform's.
        defines: macros, as ``NAME`` or ``NAME=VALUE``.
        memory: the target's; the linker refuses what does not fit.
        platform: the folder of the start-up code and linker script; None: the package's own.

    Raises:
        ToolMissingError: the compiler is missing or cannot be run.
        CheckFailedError: it fails, hangs, or the program does not fit.
    """
    tool = HOST_COMPILER if core is None else COMPILER
    tool.check()
    platform = platform or platform_folder()
    command = [
        *_compiling(tool, core, [*includes, platform], optimisation),
        *(f"-D{name}" for name in defines),
    ]
    command += map(str, (*sources, platform / ("host.c" if core is None else "semihosting.c")))
    if core is not None:
        command += ["-nostartfiles", "-Wl,--gc-sections", "-T", str(platform / "mps2.ld")]
        symbols = {"flash_start": core.flash_start, "ram_start": core.ram_start, "flash_size": memory.flash}
        symbols |= {"ram_size": memory.ram, "stack_size": memory.stack}
        command += [f"-Wl,--defsym=__{name}={value}" for name, value in symbols.items()]
    _run(tool, [*command, "-o", str(program)], program.parent, timeout, f"{program.stem} does not compile")
    if not program.is_file():
        raise ToolMissingError(
            f"{tool.program} wrote no {program.name}, though it succeeded", hint=tool.how_to_get
        )
    if core is None:
        return Firmware(program, None)
    sizes = _symbols(program)
    return Firmware(program, core, sizes["__flash_used"], sizes["__ram_static"])


def compile_objects(
    sources: Sequence[Path],
    folder: Path,
    core: Core | None,
    *,
    includes: Sequence[Path] = (),
    optimisation: str = OPTIMISATION,
    timeout: float = COMPILE_SECONDS,
) -> list[Path]:
    """Compile C sources to object files in a folder, to be linked into several programs.

    Raises:
        ToolMissingError, CheckFailedError: as :func:`compile_firmware`.
    """
    tool = HOST_COMPILER if core is None else COMPILER
    tool.check()
    command = [
        *_compiling(tool, core, includes, optimisation),
        "-c",
        *(str(path.absolute()) for path in sources),
    ]
    _run(tool, command, folder, timeout, "the kernels do not compile")
    return [folder / f"{path.stem}.o" for path in sources]


def _compiling(tool: Tool, core: Core | None, includes: Sequence[Path], optimisation: str) -> list[str]:
    """The compiler with what is the same for every file."""
    mcu = resource_dir("mcu")
    folders = [*includes, mcu / "include", mcu / "src", platform_folder()]
    command = [tool.program, *_WARNINGS, optimisation, *(f"-I{folder}" for folder in folders)]
    if core is not None:
        command += [*core.flags, f"-DQHW_COUNTER={core.counter:#x}", "-ffunction-sections", "-fdata-sections"]
    return command


def run_firmware(firmware: Firmware, folder: Path, *, timeout: float = RUN_SECONDS) -> str:
    """Run a program in a folder, whose files it reads and writes; returns what it said.

    Raises:
        ToolMissingError: the emulator is missing or cannot be run.
        CheckFailedError: it ends with an error, or hangs.
    """
    what = f"the firmware {firmware.program.name}"
    program = str(firmware.program.absolute())
    if firmware.core is None:
        return _run(HOST_COMPILER, [program], folder, timeout, f"{what} failed on this machine")
    EMULATOR.check()
    command = [EMULATOR.program, "-M", firmware.core.machine, "-nographic", "-monitor", "none"]
    command += ["-serial", "none", "-semihosting-config", "enable=on,target=native", "-icount", "shift=6"]
    return _run(EMULATOR, [*command, "-kernel", program], folder, timeout, f"{what} failed in QEMU")


def _symbols(program: Path) -> dict[str, int]:
    """The sizes that the linker script puts down."""
    nm = Tool("arm-none-eabi-nm", "Measuring firmware", "it comes with arm-none-eabi-gcc: install that again")
    nm.check()
    told = _run(nm, [nm.program, str(program)], program.parent, 60.0, f"{program.name} cannot be measured")
    found = dict(re.findall(r"^([0-9a-f]+) \w (__flash_used|__ram_static)$", told, re.MULTILINE))
    sizes = {name: int(value, 16) for value, name in found.items()}
    if len(sizes) != 2:
        raise CheckFailedError(f"{program.name} does not say what flash and RAM it takes")
    return sizes


def _run(tool: Tool, command: Sequence[str], folder: Path, timeout: float, failed: str) -> str:
    """Run a program; its words, both streams."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except OSError as error:
        raise ToolMissingError(
            f"{command[0]} cannot be run: {error.strerror}", hint=tool.how_to_get
        ) from None
    except subprocess.TimeoutExpired:
        raise CheckFailedError(
            f"{failed}: {Path(command[0]).name} was stopped after {timeout:.0f} s",
            hint="run fewer samples, or look at what it waits for",
        ) from None
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if "error" in line or "overflows" in line]
        words = "\n".join(lines) if len(done.stdout) > _MOST_WORDS and lines else done.stdout
        raise CheckFailedError(f"{failed}: {Path(command[0]).name} {told_by(done.returncode, words)}")
    return done.stdout


def core_named(name: str) -> Core:
    """A core by its name; raises InputError for one that there is not."""
    if name not in CORES:
        raise InputError(f"There is no core {name!r}", allowed=", ".join(CORES))
    return CORES[name]
