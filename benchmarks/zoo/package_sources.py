"""The ONNX files of the packages' source distributions, as far as the installed packages lack them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from zoo import package_data
from zoo.entries import AbsentError, Entry

DISTRIBUTIONS = ("hls4ml", "qonnx", "finn-plus", "brevitas")


def download(folder: Path, name: str) -> Path:
    """A distribution's sources, of the version that is installed.

    Raises:
        AbsentError: pip reaches no index that has it.
    """
    pattern = f"{name.replace('-', '_')}-{version(name)}.tar.gz"
    if not (folder / pattern).exists():
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--quiet", "--disable-pip-version-check", "--no-binary", ":all:", "--no-deps"]
        command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder)]
        done = subprocess.run([*command, f"{name}=={version(name)}"], capture_output=True, text=True)
        if done.returncode or not (folder / pattern).exists():
            raise AbsentError(f"the sources of {name} {version(name)} cannot be downloaded")
    return folder / pattern


def files(folder: Path, name: str) -> list[Path]:
    """The ONNX files of a distribution, unpacked.

    Raises:
        AbsentError: the distribution cannot be had.
    """
    with tarfile.open(download(folder, name)) as tar:
        members = [m for m in tar.getmembers() if m.isfile() and m.name.endswith(".onnx")]
        tar.extractall(folder, members, filter="data")
    return sorted(folder / member.name for member in members)


def entries(cache: Path) -> Iterator[Entry]:
    """Every file that no installed package has as data."""
    installed = {path.read_bytes() for _, path in package_data.files()}
    for distribution in DISTRIBUTIONS:
        try:
            found = files(cache / "sources", distribution)
        except AbsentError as error:
            yield Entry(f"{distribution} sources/all", "other", None, note=str(error))
            continue
        new = [path for path in found if path.read_bytes() not in installed]
        yield from (package_data.entry(f"{distribution} sources", path) for path in new)
        if not new:
            more = "no other than the package's data" if found else "none"
            yield Entry(f"{distribution} sources/none", "other", None, note=f"ONNX files in them: {more}")
