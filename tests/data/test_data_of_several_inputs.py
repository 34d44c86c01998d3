"""Data of networks with several inputs: an array for each, by order or by name, from wherever data come."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from qhw.data import Dataset, Reading, as_dataset, load_dataset
from qhw.errors import InputError

IMAGES = np.arange(10 * 1 * 2 * 3, dtype=np.uint8).reshape(10, 1, 2, 3)
ROWS = np.arange(40, dtype=np.float64).reshape(10, 4) / 8
Y = np.arange(10) % 2
NAMED = {"image": IMAGES, "rows": ROWS}


class Samples(TorchDataset):  # type: ignore[type-arg]
    """A map-style data set, whose samples are pairs or mappings of tensors."""

    def __init__(self, *, named: bool) -> None:
        self.named = named

    def __len__(self) -> int:
        return len(Y)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        parts = torch.from_numpy(IMAGES[index]), torch.from_numpy(ROWS[index])
        return (dict(zip(NAMED, parts, strict=True)) if self.named else parts), int(Y[index])


@pytest.mark.parametrize(
    "given",
    [
        ((IMAGES, ROWS), Y),
        ((torch.from_numpy(IMAGES), ROWS.tolist()), Y.tolist()),
        (NAMED, Y),
        Samples(named=False),
        Samples(named=True),
        DataLoader(Samples(named=False), batch_size=3, shuffle=True),
    ],
    ids=["arrays", "tensor and list", "mapping", "Dataset", "Dataset of mappings", "DataLoader"],
)
def test_every_input_is_split_alike(given: Any) -> None:
    data = as_dataset(given).for_inputs(("image", "rows"), "the network")
    images, rows = data.inputs("test")
    np.testing.assert_array_equal(images[..., 0, 0].ravel() // 6, [0, 1])
    np.testing.assert_array_equal(images, IMAGES[:2])
    np.testing.assert_array_equal(rows, ROWS[:2].astype(np.float32))
    assert [part.dtype for part in data.inputs("train")] == [np.uint8, np.float32]
    assert [len(part) for part in data.inputs("train")] == [8, 8]
    assert (data.has_pixels, data.holds_pixels) == (False, True)


def arrays(**inputs: np.ndarray) -> Mapping[str, np.ndarray]:
    """The arrays of both splits, as an .npz file has them."""
    return {
        f"{split}_{name}": part[rows]
        for split, rows in (("train", slice(3, None)), ("test", slice(3)))
        for name, part in {**inputs, "y": Y}.items()
    }


@pytest.mark.parametrize(
    ("stored", "names"),
    [
        (arrays(x0=IMAGES, x1=ROWS), ()),
        (arrays(x1=ROWS, x0=IMAGES), ()),
        (arrays(rows=ROWS, image=IMAGES), ("rows", "image")),
    ],
    ids=["numbered", "numbered, in another order", "named"],
)
def test_a_file_of_arrays_by_number_or_by_name(
    stored: Mapping[str, np.ndarray], names: tuple[str, ...], tmp_path: Path
) -> None:
    np.savez(tmp_path / "data.npz", **stored)
    for data in (load_dataset(str(tmp_path / "data.npz")), as_dataset(stored)):
        assert data.names == names
        images, rows = data.for_inputs(("image", "rows"), "the network").inputs("test")
        np.testing.assert_array_equal(images, IMAGES[:3])
        np.testing.assert_array_equal(rows, ROWS[:3].astype(np.float32))


def test_eleven_inputs_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    parts = {f"x{place}": np.full((10, 2), place) for place in (10, *range(10))}
    np.savez(tmp_path / "data.npz", **arrays(**parts))
    data = load_dataset(str(tmp_path / "data.npz"))
    assert [int(part[0, 0]) for part in data.inputs("train")] == list(range(11))


def test_other_arrays_beside_the_samples_of_one_input_are_not_read() -> None:
    stored = {**arrays(x=ROWS, weights=IMAGES), "train_note": "anything"}
    assert len(as_dataset(stored).inputs("train")) == 1


def test_both_splits_in_python_and_channels_that_come_last() -> None:
    last = np.moveaxis(IMAGES, 1, -1)
    train, test = slice(3, None), slice(3)
    splits = (
        ({"rows": ROWS[train], "image": last[train]}, Y[train]),
        ({"image": last[test], "rows": ROWS[test]}, Y[test]),
    )
    data = as_dataset(splits, Reading(layout="nhwc")).for_inputs(("image", "rows"), "the network")
    np.testing.assert_array_equal(data.inputs("test")[0], IMAGES[:3])
    np.testing.assert_array_equal(data.inputs("test")[1], ROWS[:3].astype(np.float32))


def test_names_are_found_as_the_exporter_writes_them() -> None:
    data = as_dataset(({"Rows": ROWS, "image": IMAGES}, Y))
    images, rows = data.for_inputs(("image", "rows_1"), "the network").inputs("test")
    assert (images.ndim, rows.ndim) == (4, 2)
    assert data.pixel_inputs(("rows", "image"), "the network") == {"image"}


def test_the_hash_depends_on_every_input_and_on_the_names() -> None:
    other = ROWS.copy()
    other[4, 2] += 1
    hashes = {as_dataset((x, Y)).sha256 for x in ((IMAGES, ROWS), (IMAGES, other), (ROWS, IMAGES), NAMED)}
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (((IMAGES, ROWS[:4]), Y), "its inputs have 10, 4 samples"),
        (((IMAGES, np.where(ROWS == 2, np.nan, ROWS)), Y), r"input 1: sample \d+ holds nan"),
        (({"image": IMAGES, "rows": np.array(["a"] * 10)}, Y), "input rows: samples are <U1"),
        (((IMAGES, ROWS), None), "has 2 inputs and no targets"),
        ((((IMAGES, ROWS), Y), (IMAGES, Y)), "training samples have 2 inputs, test samples 1"),
        (
            ((NAMED, Y), ((IMAGES, ROWS), Y)),
            "are image, rows in the training split, and not named in the test",
        ),
        (((NAMED, Y), ({"image": IMAGES, "rows": ROWS[:, :3]}, Y)), "input rows: training samples are float"),
        ({"train_a": ROWS, "train_b": ROWS, "test_a": ROWS}, "the data lack test_b"),
        ({"train_a": ROWS, "test_a": ROWS}, "the data lack train_x, test_x"),
        ({"train_images": IMAGES, "test_images": IMAGES, "train_y": Y}, "the data lack test_y"),
    ],
)
def test_what_does_not_fit_together_is_refused(given: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        as_dataset(given)


def test_a_file_without_samples_says_how_they_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=IMAGES, labels=Y)
    with pytest.raises(InputError, match="lacks train_x, test_x") as caught:
        load_dataset(str(tmp_path / "data.npz"))
    assert "train_NAME" in str(caught.value.allowed)


@pytest.mark.parametrize(
    ("given", "wanted", "says"),
    [
        (
            (IMAGES, Y),
            ("image", "rows"),
            r"the network takes 2 inputs \(image, rows\), data set tuple has one",
        ),
        (((IMAGES, ROWS), Y), ("image",), r"takes 1 input \(image\), data set tuple has 2 inputs"),
        ((NAMED, Y), ("image", "row"), "has no input 'row': its inputs are image, rows"),
    ],
)
def test_another_networks_data_are_refused(given: Any, wanted: tuple[str, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        as_dataset(given).for_inputs(wanted, "the network")


def test_a_built_in_model_takes_one_input() -> None:
    data = as_dataset(((IMAGES, IMAGES), Y))
    assert isinstance(data, Dataset)
    with pytest.raises(InputError, match="data set tuple holds samples uint8"):
        _ = data.image_shape
