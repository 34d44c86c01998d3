"""FINN as a library: imported only when this flow writes or runs a project, with its own scratch folder."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qhw.errors import ToolMissingError

logger = logging.getLogger(__name__)

HOW_TO_GET = (
    "pip install 'qhw[finn,train]', then pip install --no-deps finn-plus, both with -c constraints.txt "
    "('make setup' in a checkout does both)"
)


@contextlib.contextmanager
def finn() -> Iterator[Path]:
    """FINN, ready to be called; yields its scratch folder, which is removed at the end.

    What it prints goes to the log. Its passes draw names of tensors at random: here, the same ones each time.

    Raises:
        ToolMissingError: finn-plus, or a package that it needs, is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="qhw-finn-") as scratch, _quiet():
        for variants in ("hls", "rtl"):  # they register some layers that have no file of their own there
            library(f"finn.custom_op.fpgadataflow.{variants}")
        settings = library("finn.util.settings")
        kind = library("finn.interface.settings").FINNSettings
        before, told = settings._SETTINGS, os.environ.get("FINN_BUILD_DIR")
        chance = random.getstate()
        random.seed(0)  # qonnx gives new tensors random names, which end up in what is written
        os.environ["FINN_BUILD_DIR"] = scratch
        settings._SETTINGS = kind.init(
            flow_config=Path(scratch) / "none.yaml", finn_build_dir=scratch, auto_set_environment_vars=False
        )
        try:
            yield Path(scratch)
        finally:
            random.setstate(chance)
            settings._SETTINGS = before
            if told is None:
                del os.environ["FINN_BUILD_DIR"]
            else:
                os.environ["FINN_BUILD_DIR"] = told


def library(name: str) -> Any:
    """A module of FINN, or of what it needs."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(error.name or name) from None


def check_installed() -> None:
    """Raise ToolMissingError without finn-plus; nothing of it is imported."""
    if importlib.util.find_spec("finn") is None:
        raise _missing("finn-plus")


def _missing(package: str) -> ToolMissingError:
    return ToolMissingError(
        f"The finn flow writes projects with FINN, which is not installed ({package} is missing)",
        hint=HOW_TO_GET,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Redirect what FINN prints, and its warnings, to the log."""
    said, log = io.StringIO(), logging.getLogger("finn_logger")
    before, propagates = log.level, log.propagate
    log.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(said):
            yield
    finally:
        log.setLevel(before)
        log.propagate = propagates
        for line in filter(None, said.getvalue().splitlines()):
            logger.debug("FINN: %s", line)
