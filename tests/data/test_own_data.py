"""A user's own data: tables, folders of images, arrays and torch data sets; nothing is cast silently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from qhw.data import Reading, as_dataset, load_dataset
from qhw.errors import InputError

X = np.arange(40, dtype=np.float64).reshape(10, 4)
Y = np.arange(10) % 2


class Pairs(TorchDataset):  # type: ignore[type-arg]
    """A map-style data set."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(X[index]).float(), int(Y[index])


@pytest.mark.parametrize(
    "given",
    [
        (X, Y),
        (X.tolist(), Y.tolist()),
        ([*X], [*Y]),
        (torch.from_numpy(X), torch.from_numpy(Y)),
        TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
        Pairs(),
        DataLoader(Pairs(), batch_size=3, shuffle=True),
    ],
    ids=["arrays", "lists", "lists of arrays", "tensors", "TensorDataset", "Dataset", "DataLoader"],
)
def test_what_comes_in_one_piece_is_split_by_class(given: object) -> None:
    data = as_dataset(given)
    assert (data.task, data.classes) == ("classification", 2)
    assert (len(data.train_x), len(data.test_x)) == (8, 2)
    assert data.train_x.dtype == np.float32
    np.testing.assert_array_equal(np.concatenate([data.test_x, data.train_x]).sum(axis=0), X.sum(axis=0))
    np.testing.assert_array_equal(data.test_x, X[:2])
    np.testing.assert_array_equal(data.test_y, [0, 1])


@pytest.mark.parametrize(
    "given",
    [
        ((X[:7], Y[:7]), (X[7:], Y[7:])),
        {"train_x": X[:7], "train_y": Y[:7], "test_x": X[7:], "test_y": Y[7:]},
        tuple(TensorDataset(*map(torch.from_numpy, (X[part], Y[part]))) for part in (slice(7), slice(7, 10))),
    ],
    ids=["pairs", "mapping", "data sets"],
)
def test_splits_that_are_given_stay(given: object) -> None:
    data = as_dataset(given)
    np.testing.assert_array_equal(data.train_x, X[:7])
    np.testing.assert_array_equal(data.test_y, Y[7:])


def test_samples_without_targets_are_an_autoencoders() -> None:
    data = as_dataset((X, None))
    assert data.task == "autoencoder"
    np.testing.assert_array_equal(data.test_targets, data.test_x)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (3, "the data are of type int"),
        ((X, Y[:4]), "10 samples have 4 targets"),
        ({"train_x": X}, "lack test_x"),
        ((X, np.full(10, np.nan)), "target 0 holds nan\n"),
        ((np.where(X == 7, np.inf, X), Y), r"data set tuple: sample 1 holds inf at \(3,\)"),
        (((np.where(X == 7, np.inf, X), Y), (X, Y)), r"training split: sample 1 holds inf at \(3,\)"),
        ((X, np.array([None] * 10, dtype=object)), "other things than numbers"),
        ([(X, Y, Y), (X, Y)], "a split of the data is of type tuple"),
    ],
)
def test_other_things_are_refused(given: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        as_dataset(given)


def test_channels_that_come_last_are_turned() -> None:
    images = np.arange(2 * 10 * 3, dtype=np.uint8).reshape(10, 2, 1, 3)
    data = as_dataset((images, Y), Reading(layout="nhwc"))
    assert data.train_x.shape[1:] == (3, 2, 1)
    np.testing.assert_array_equal(data.test_x, images[:2].transpose(0, 3, 1, 2))
    with pytest.raises(InputError, match="no channels"):
        as_dataset((X, Y), Reading(layout="nhwc"))
    with pytest.raises(InputError, match="layout is 'hwc'"):
        Reading(layout="hwc")  # type: ignore[arg-type]


# --- tables


def test_a_csv_file_of_classes_in_words(tmp_path: Path) -> None:
    file = tmp_path / "flowers.csv"
    lines = [f"{i / 10},{i},{['rose', 'aster'][i % 2]}" for i in range(10)]
    file.write_text("\n".join(["width,leaves,kind", *lines]) + "\n")
    data = load_dataset(str(file))
    assert (data.task, data.classes, data.train_x.shape) == ("classification", 2, (8, 2))
    np.testing.assert_array_equal(data.test_y, [1, 0])
    np.testing.assert_array_equal(data.test_x, np.float32([[0, 0], [0.1, 1]]))


def test_a_csv_file_of_numbers_to_predict(tmp_path: Path) -> None:
    file = tmp_path / "houses.csv"
    rows = [f"{i},{i}.5,{i % 3},{'test' if i > 6 else 'train'}" for i in range(9)]
    file.write_text("\n".join(["area,price,rooms,split", *rows]))
    data = load_dataset(str(file), reading=Reading(target=("price",)))
    assert data.task == "regression"
    np.testing.assert_array_equal(data.test_y, np.float32([7.5, 8.5]))
    np.testing.assert_array_equal(data.test_x, [[7, 1], [8, 2]])
    whole = load_dataset(str(file), reading=Reading(target=("rooms",), task="regression"))
    assert whole.task == "regression"
    assert whole.train_y is not None
    assert whole.train_y.dtype == np.float32
    both = load_dataset(str(file), reading=Reading(target=("area", "price")))
    assert both.outputs == (2,)


def test_a_parquet_file_is_read_as_its_csv(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install pyarrow")
    from pyarrow import csv, parquet

    text = "a,b,y\n" + "".join(f"{i},{i / 4},{i % 2}\n" for i in range(10))
    (tmp_path / "t.csv").write_text(text)
    parquet.write_table(csv.read_csv(pyarrow.BufferReader(text.encode())), tmp_path / "t.parquet")
    one, other = load_dataset(str(tmp_path / "t.csv")), load_dataset(str(tmp_path / "t.parquet"))
    assert one.sha256 == other.sha256
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        load_dataset(str(tmp_path / "t.parquet"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds 0 lines"),
        ("a,b\n", "holds 1 lines"),
        ("a,b\n1,2\n3\n", "row 3: 1 fields, the header has 2"),
        ("a,a\n1,2\n3,4\n", "empty or equal names"),
        ("a,b\nred,2\nblue,4\n", "the column 'a' holds words, as in 'red'"),
        ("a\n1\n2\n", "no features beside its targets"),
        ("a,b\n1,0\n,1\n" + "3,1\n" * 8, r"sample \d+ holds nan"),
        ('a,b\n"1,2\n', "is not a table"),
        ("a,b\n\xff,2\n", "is no text: byte 4 is 0xff"),
        ("a,b,split\n1,2,train\n3,4,validation\n", "the column 'split' holds other words"),
    ],
)
def test_broken_tables(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=says):
        load_dataset(str(tmp_path / "t.csv"))


def test_a_column_that_there_is_not(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("width,kind\n1,0\n2,1\n")
    with pytest.raises(InputError, match=r"no column 'kin'[\s\S]*did you mean kind"):
        load_dataset(str(tmp_path / "t.csv"), reading=Reading(target=("kin",)))


# --- folders of images


def _image(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_a_folder_with_a_folder_for_each_class(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, 5, 4, 3), dtype=np.uint8)
    for index, pixels in enumerate(images):
        split = "test" if index % 4 == 0 else "train"
        _image(tmp_path / split / ["cat", "dog"][index % 2] / f"{index:02}.png", pixels)
    data = load_dataset(str(tmp_path))
    assert (data.task, data.classes, data.train_x.shape) == ("classification", 2, (9, 3, 5, 4))
    np.testing.assert_array_equal(data.test_x, images[[0, 4, 8]].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.test_y, [0, 0, 0])
    _image(tmp_path / "train" / "dog" / "99.png", images[0][:3])
    with pytest.raises(InputError, match=r"99\.png has the shape"):
        load_dataset(str(tmp_path))


def test_images_beside_masks(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    masks = random.integers(0, 3, (10, 6, 6), dtype=np.uint8)
    for index, mask in enumerate(masks):
        _image(tmp_path / "images" / f"{index}.png", mask * 80)
        _image(tmp_path / "masks" / f"{index}.png", mask)
    data = load_dataset(str(tmp_path))
    assert (data.task, data.classes, data.outputs) == ("segmentation", 3, (3, 6, 6))
    np.testing.assert_array_equal(data.test_x[:, 0], data.test_targets * 80)
    (tmp_path / "masks" / "3.png").unlink()
    with pytest.raises(InputError, match=r"no mask for 3\.png"):
        load_dataset(str(tmp_path))
    (tmp_path / "masks" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    with pytest.raises(InputError, match=r"3\.png' cannot be read"):
        load_dataset(str(tmp_path))
