"""Data sets: shapes, splits that never meet, and what happens to damaged files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhw.data import Dataset, Reading, dataset_names, holdout, load_dataset
from qhw.data.fashion_mnist import DEBIAN_FOLDER
from qhw.data.idx import FILES, read
from qhw.errors import InputError


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for stem, array in zip(
        FILES,
        (
            rng.integers(0, 256, (20, 6, 5)),
            np.arange(20) % 4,
            rng.integers(0, 256, (8, 6, 5)),
            np.arange(8) % 4,
        ),
        strict=True,
    ):
        write_idx(tmp_path / stem, array)
    return tmp_path


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


@pytest.mark.parametrize(
    ("name", "sizes", "image", "top"),
    [("digits", (1433, 364), (1, 8, 8), 16), ("mnist", (4000, 1000), (1, 28, 28), 255)],
)
def test_small_sets_are_split_by_class(name, sizes, image, top):
    data = load_dataset(name)
    assert (len(data.train_x), len(data.test_x)) == sizes
    assert data.image_shape == image
    assert data.train_x.max() == top
    assert top * 2.0**data.normalisation <= 1.0
    per_class = np.bincount(data.test_y) / np.bincount(np.concatenate([data.train_y, data.test_y]))
    assert np.all(abs(per_class - 0.2) < 0.01)
    assert not rows(data.train_x) & rows(data.test_x)


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_whole():
    data = load_dataset("fashion-mnist")
    assert data.train_x.shape == (60000, 1, 28, 28)
    assert np.array_equal(np.bincount(data.test_y), np.full(10, 1000))
    assert data.classes == 10


def test_fashion_mnist_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("qhw.data.fashion_mnist.DEBIAN_FOLDER", Path("/nowhere"))
    with pytest.raises(InputError, match="apt-get install dataset-fashion-mnist"):
        load_dataset("fashion-mnist")


@pytest.mark.parametrize("call", [lambda p: load_dataset("mnist", p), lambda p: load_dataset(str(p))])
def test_folder_of_idx_files(idx_folder, call):
    data = call(idx_folder)
    assert data.train_x.shape == (20, 1, 6, 5)
    assert data.classes == 4
    assert np.array_equal(data.test_y, np.arange(8) % 4)


@given(shape=st.lists(st.integers(0, 5), min_size=1, max_size=4), compressed=st.booleans())
def test_idx_round_trip(tmp_path_factory, shape, compressed):
    array = np.arange(np.prod(shape), dtype=np.int64).astype(np.uint8).reshape(shape)
    path = tmp_path_factory.mktemp("idx") / "array"
    write_idx(path, array)
    if compressed:
        path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes()))
        path = path.with_suffix(".gz")
    assert np.array_equal(read(path), array)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:-1], "cut short"),
        (lambda data: data[:6], "the header says"),
        (lambda data: b"PK" + data[2:], "not an idx file"),
        (lambda data: data[:2] + b"\x0d" + data[3:], "idx type 0x0d"),
        (lambda data: b"", "not an idx file"),
    ],
)
def test_damaged_idx_files(idx_folder, damage, says):
    path = idx_folder / FILES[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=says):
        load_dataset(str(idx_folder))


def test_damaged_gzip(idx_folder):
    path = idx_folder / FILES[0]
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    path.with_name(path.name + ".gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        load_dataset(str(idx_folder))


def test_npz(tmp_path):
    arrays = {
        "train_x": np.zeros((4, 1, 3, 3), np.uint8),
        "train_y": np.arange(4),
        "test_x": np.zeros((2, 1, 3, 3), np.uint8),
        "test_y": np.arange(2),
    }
    np.savez(tmp_path / "mine.npz", **arrays)
    data = load_dataset(str(tmp_path / "mine.npz"))
    assert (data.name, data.classes) == ("mine", 4)
    del arrays["test_y"]
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(InputError, match="lacks test_y"):
        load_dataset(str(tmp_path / "mine.npz"))


def test_targets_of_a_regression_are_no_classes(tmp_path):
    images = np.zeros((4, 1, 4, 4), dtype=np.uint8)
    targets = {"train_y": np.linspace(0, 3, 4), "test_y": np.linspace(0, 3, 4)}
    np.savez(tmp_path / "mine.npz", train_x=images, test_x=images, **targets)
    assert load_dataset(str(tmp_path / "mine.npz")).task == "regression"
    with pytest.raises(InputError, match=r"float64 numbers, not classes[\s\S]*--task regression"):
        load_dataset(str(tmp_path / "mine.npz"), reading=Reading(task="classification"))


def test_npz_is_never_unpickled(tmp_path):
    np.savez(
        tmp_path / "bad.npz",
        **dict.fromkeys(("train_x", "train_y", "test_x", "test_y"), np.array([object()])),
    )
    with pytest.raises(InputError, match="is not a file of arrays"):
        load_dataset(str(tmp_path / "bad.npz"))


def test_unknown_name_offers_the_closest():
    with pytest.raises(InputError, match="did you mean digits"):
        load_dataset("digit")
    assert dataset_names() == ("digits", "mnist", "fashion-mnist")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"train_x": np.zeros((4, 3, 3), np.uint8)}, "one type and one shape"),
        ({"train_x": np.zeros((4, 1, 3, 3), np.float32)}, "samples are float32"),
        ({"train_x": np.full((4, 1, 3, 3), np.nan, np.float32)}, r"sample 0 holds nan at \(0, 0, 0\)"),
        ({"train_x": np.full((4, 1, 3, 3), "a")}, "samples are <U1"),
        ({"test_y": np.array([0, 5])}, "run from 0 to 5"),
        ({"test_x": np.zeros((2, 1, 3, 4), np.uint8)}, "test samples"),
        ({"train_y": np.zeros(3, np.int64)}, "for 4 samples"),
        ({"train_y": np.zeros((4, 2, 2, 2), np.float32)}, "fit no task"),
        ({"test_y": None}, "one split has targets"),
        ({"metric": "rmse"}, "not a metric of classification"),
        ({"task": "sorting"}, "not a task"),
    ],
)
def test_wrong_arrays_are_refused(change, says):
    good = {
        "train_x": np.zeros((4, 1, 3, 3), np.uint8),
        "train_y": np.zeros(4, np.int64),
        "test_x": np.zeros((2, 1, 3, 3), np.uint8),
        "test_y": np.zeros(2, np.int64),
    }
    with pytest.raises(InputError, match=says):
        Dataset(name="mine", source="here", classes=2, normalisation=-8, **(good | change))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(2, 7))
def test_holdout_partitions(labels, every):
    train, test = holdout(np.array(labels), every)
    assert sorted([*train, *test]) == list(range(len(labels)))
    for label in set(labels):
        count = labels.count(label)
        assert sum(labels[index] == label for index in test) == -(-count // every)
