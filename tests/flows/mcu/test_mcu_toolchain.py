"""Compiling and running: exact counts, what does not fit, and tools that are missing, fail or hang."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from firmware import needs_gcc, needs_qemu

from qhw.errors import CheckFailedError, InputError, ToolMissingError
from qhw.flows.mcu.toolchain import CORES, Memory, compile_firmware, core_named, run_firmware

COUNTING = """
#include "io.h"
static volatile uint8_t held[512];
int main(void) {
    uint8_t some[4] = {0};
    int in = qhw_open("in.bin", 0);
    uint32_t got = qhw_read(in, some, 4);
    qhw_close(in);
    uint32_t ticks = qhw_ticks();
    __asm__ volatile(".rept 1000\\n nop\\n .endr");
    ticks = qhw_ticks() - ticks;
    uint32_t words[3] = {got, ticks, qhw_stack_bytes()};
    int out = qhw_open("out.bin", 1);
    qhw_write(out, words, sizeof words);
    qhw_write(out, some, got);
    qhw_close(out);
    held[0] = some[0];
    qhw_say("done\\n");
    return held[0] == 'x' ? 9 : 0;
}
"""


def written(folder: Path, text: str, name: str = "app.c") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@needs_qemu
@pytest.mark.parametrize("core", CORES)
def test_files_and_counts_on_every_core(core: str, tmp_path: Path) -> None:
    source = written(tmp_path, COUNTING)
    firmware = compile_firmware([source], tmp_path / "app.elf", CORES[core])
    (tmp_path / "in.bin").write_bytes(b"abc")
    assert run_firmware(firmware, tmp_path) == "done\n"
    told = (tmp_path / "out.bin").read_bytes()
    got, ticks, stack = np.frombuffer(told[:12], dtype="<u4")
    assert (got, told[12:]) == (3, b"abc")
    # What reads the counter is counted with the thousand, and a tick is 0.6 instructions or so.
    assert 1000 <= CORES[core].instructions(int(ticks)) <= 1006
    assert 16 <= stack <= 512
    assert 512 <= firmware.static_ram < 1024
    assert 500 < firmware.flash < 8000


@needs_gcc
def test_the_same_source_runs_on_this_machine(tmp_path: Path) -> None:
    firmware = compile_firmware([written(tmp_path, COUNTING)], tmp_path / "app", None)
    (tmp_path / "in.bin").write_bytes(b"abcd")
    assert run_firmware(firmware, tmp_path) == "done\n"
    told = np.frombuffer((tmp_path / "out.bin").read_bytes()[:12], dtype="<u4")
    assert told.tolist() == [4, 0, 0]


@needs_qemu
def test_an_exit_code_is_told(tmp_path: Path) -> None:
    firmware = compile_firmware([written(tmp_path, COUNTING)], tmp_path / "app.elf", CORES["cortex-m7"])
    (tmp_path / "in.bin").write_bytes(b"x")
    with pytest.raises(CheckFailedError, match=r"app\.elf failed in QEMU: .* exit code 9:\ndone"):
        run_firmware(firmware, tmp_path)


@needs_qemu
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("for (;;) {}", "was stopped after 2 s"),
        ("*(volatile int *)0xF0000000 = 1; return 0;", "ran into a fault"),
    ],
)
def test_firmware_that_hangs_or_faults(body: str, said: str, tmp_path: Path) -> None:
    source = written(tmp_path, f"int main(void) {{ {body} }}\n")
    firmware = compile_firmware([source], tmp_path / "app.elf", CORES["cortex-m7"])
    with pytest.raises(CheckFailedError, match=said):
        run_firmware(firmware, tmp_path, timeout=2)


@needs_qemu
@pytest.mark.parametrize(
    ("memory", "said"),
    [(Memory(ram=1024, stack=800), "RAM overflows"), (Memory(flash=256), "flash overflows")],
)
def test_what_does_not_fit_is_told_by_the_linker(memory: Memory, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match=said):
        compile_firmware(
            [written(tmp_path, COUNTING)], tmp_path / "app.elf", CORES["cortex-m7"], memory=memory
        )


@needs_gcc
def test_a_source_that_does_not_compile(tmp_path: Path) -> None:
    with pytest.raises(
        CheckFailedError, match=r"app does not compile: gcc ended with exit code 1:\n(.|\n)*error"
    ):
        compile_firmware([written(tmp_path, "int main(void) { return x; }\n")], tmp_path / "app", None)


def fake(folder: Path, name: str, script: str) -> None:
    """A program of that name, first on the PATH."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_compiler_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for core, said in ((CORES["cortex-m4"], "arm-none-eabi-gcc"), (None, "needs gcc")):
        with pytest.raises(ToolMissingError, match=said) as caught:
            compile_firmware([written(tmp_path, COUNTING)], tmp_path / "app", core)
        assert "apt-get install" in str(caught.value)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exec sleep 30", "was stopped after 1 s"),
        ("kill -SEGV $$", "died of SIGSEGV"),
        ("exit 0", "wrote no app"),
        ("echo internal compiler error; exit 4", "exit code 4:\ninternal compiler error"),
    ],
)
def test_a_compiler_that_hangs_crashes_or_lies(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, "gcc", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises((CheckFailedError, ToolMissingError), match=said):
        compile_firmware([written(tmp_path, COUNTING)], tmp_path / "app", None, timeout=1)


def test_a_program_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gcc"
    path.write_bytes(b"\x7fELF nothing")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="gcc cannot be run"):
        compile_firmware([written(tmp_path, COUNTING)], tmp_path / "app", None)


@needs_qemu
def test_an_emulator_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    firmware = compile_firmware([written(tmp_path, COUNTING)], tmp_path / "app.elf", CORES["cortex-m7"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="needs qemu-system-arm"):
        run_firmware(firmware, tmp_path)


def test_an_unknown_core() -> None:
    with pytest.raises(InputError, match="no core 'cortex-m0'"):
        core_named("cortex-m0")
