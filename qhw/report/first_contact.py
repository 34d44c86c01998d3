"""What ``qhw`` alone says: where to begin, or how to go on with what is there."""

from __future__ import annotations

from pathlib import Path

from qhw.report import FILE_NAME

MOST = 3
"""Folders of builds and searches that are told of at most, the newest first."""

_BEGIN = """\
From a PyTorch model to bit-exact hardware, with the precision chosen by what the hardware costs.

Begin with one of these:
  qhw build --board ultra96                       train, quantise, write and verify the default network
  qhw search --board ultra96 --evaluations 40     choose each layer's format by accuracy and cost
  qhw build net.py:make_net --board pynq-z2 --data digits    the same with your own network
  qhw cost model.onnx --board kv260               what a QONNX file would take of a board
"""

_MORE = """\
  qhw boards                      the boards that are known
  qhw doctor                      optional tools: what is missing, what it unlocks, how to get it
  qhw --install-completion        completion of commands, boards and flows in your shell
  qhw --help                      every command
"""


def what_next(here: Path) -> str:
    """A text for somebody who typed nothing but the name.

    Args:
        here: the working folder; builds and searches in their default places below it are told of.
    """
    made = _made(here)
    told = [f"  open {page}" for page in made]
    return "\n".join(
        [_BEGIN, *(["Go on with what you have made here:", *told, ""] if told else []), _MORE.rstrip()]
    )


def _made(here: Path) -> list[Path]:
    """The newest reports below the default folders."""
    found = [page for folder in ("qhw-build", "qhw-search") for page in here.glob(f"{folder}/*/{FILE_NAME}")]
    return sorted(found, key=lambda page: (-page.stat().st_mtime, str(page)))[:MOST]
