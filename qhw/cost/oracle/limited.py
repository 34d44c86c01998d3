"""Runs a tool within limits of time and memory."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path


def run_limited(command: Sequence[str], given: str, folder: Path, seconds: float) -> tuple[str, str]:
    """Run a tool and everything that it starts, within a time.

    Returns:
        Why there is no result ("time", "memory" or ""), and the end of what the tool said.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=folder,
        start_new_session=True,
    )
    try:
        log, _ = process.communicate(given, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "time", ""
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return "memory" if _ran_out_of_memory(process.returncode, log) else "", log[-2000:]


def _ran_out_of_memory(code: int, log: str) -> bool:
    said = ("bad_alloc", "MemoryError", "out of memory", "cannot allocate memory", "temporarily unavailable")
    # Only the system kills a tool that has not run out of time: it ran out of memory itself.
    return code == -signal.SIGKILL or (code != 0 and any(text in log for text in said))
