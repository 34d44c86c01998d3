"""The weights of an hls4ml project, which it has twice."""

from __future__ import annotations

from pathlib import Path


def write_weights(text_file: Path, text: str) -> None:
    """Change weights where the simulation reads them, and where synthesis does."""
    header = text_file.with_suffix(".h")
    before, numbers = header.read_text().split(" = {", 1)
    header.write_text(f"{before} = {{{text}}}{numbers.split('}', 1)[1]}")
    text_file.write_text(text)
