"""Folders of images: one folder per class, or images beside masks for segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.data.base import Dataset
from qhw.data.reading import Reading
from qhw.errors import InputError, ToolMissingError
from qhw.outside import opened

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
SPLITS = ("train", "test")
MASKS = ("images", "masks")
MAX_BYTES = 1 << 30

LAYOUT = (
    "train/CLASS/*.png and test/CLASS/*.png; or CLASS/*.png, of which every fifth is for testing; or images/ "
    "and masks/ of equal names in place of the classes"
)


def holds_images(folder: Path) -> bool:
    """Whether a folder has images two or three levels down, as :data:`LAYOUT` says."""
    return any(path.suffix.lower() in SUFFIXES for depth in ("*/*", "*/*/*") for path in folder.glob(depth))


def load_image_folder(folder: Path, reading: Reading) -> Dataset:
    """A data set from a folder of images of one size, uint8 (N, C, H, W): grey or RGB as the first one is.

    Raises:
        InputError: the folder is laid out otherwise, an image is damaged, or of another size.
        ToolMissingError: Pillow is not installed.
    """
    source = f"images in {folder.name}"
    if all((folder / split).is_dir() for split in SPLITS):
        classes = _classes([folder / split for split in SPLITS])
        train, test = (_split(folder / split, classes) for split in SPLITS)
        return reading.dataset(folder.name, source, train, test)
    x, y = _split(folder, _classes([folder]))
    return reading.split(folder.name, source, x, y)


def _classes(folders: Sequence[Path]) -> list[str]:
    return sorted({path.name for folder in folders for path in folder.iterdir() if path.is_dir()})


def _split(folder: Path, classes: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if set(classes) == set(MASKS):
        files = _files(folder / MASKS[0])
        masks = {path.stem: path for path in _files(folder / MASKS[1])}
        if missing := [path.name for path in files if path.stem not in masks]:
            raise InputError(f"{folder / MASKS[1]} has no mask for {missing[0]}", allowed=LAYOUT)
        images = _read(files)
        labels = _read([masks[path.stem] for path in files], grey=True)[:, 0]
        return images, labels.astype(np.int64)
    found = [(path, index) for index, name in enumerate(classes) for path in _files(folder / name)]
    if not found:
        raise InputError(f"{folder} holds no images", allowed=LAYOUT)
    return _read([path for path, _ in found]), np.array([index for _, index in found], dtype=np.int64)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _read(files: Sequence[Path], grey: bool = False) -> NDArray[np.uint8]:
    first = _pixels(files[0], "L" if grey else "")
    mode = "L" if first.ndim == 2 else "RGB"
    if first.nbytes * len(files) > MAX_BYTES:
        raise InputError(
            f"{len(files)} images of {first.nbytes} bytes are too many", allowed=f"{MAX_BYTES} bytes in all"
        )
    images = np.empty((len(files), *first.shape), dtype=np.uint8)
    for place, path in enumerate(files):
        pixels = _pixels(path, mode)
        if pixels.shape != first.shape:
            raise InputError(
                f"{path} has the shape {pixels.shape}, {files[0].name} {first.shape}",
                allowed="images of one size",
                hint="resize them first",
            )
        images[place] = pixels
    return images[:, None] if images.ndim == 3 else np.ascontiguousarray(np.moveaxis(images, -1, 1))


def _pixels(path: Path, mode: str) -> NDArray[Any]:
    """One image, (H, W) or (H, W, 3)."""
    try:
        from PIL import Image
    except ImportError:
        raise ToolMissingError("A folder of images needs Pillow", hint="pip install pillow") from None
    try:
        with opened(path, "image", MAX_BYTES) as file, Image.open(file) as image:
            wanted = mode or ("L" if image.mode in ("1", "L", "LA", "I", "I;16", "F") else "RGB")
            # Masks may be stored with a palette: their indices are the classes.
            return np.asarray(image if mode == "L" and image.mode == "P" else image.convert(wanted))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from None
