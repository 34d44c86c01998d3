"""Runs samples on a board with FINN's accelerator, and computes what lies in front of it and behind it.

The accelerator takes integers and gives integers. What the network does before (the first quantizer) and
behind (the last bias, rounding to more than 8 bits) is computed here, exactly, from ``host.json``. NumPy is
all that it needs, and finn-plus-driver on the board:

    python3 host.py samples.npy values.npy --bitfile ../bitfile/finn-accel.bit

As a module: ``Host(folder).encode(samples)`` gives the accelerator's inputs, and ``.decode(results)`` the
network's outputs of the accelerator's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from qhw.zynq.encoding import Array, checked_samples, decoded, encoded


class Host:
    """The host's part of one network.

    Args:
        folder: the folder of ``host.json``.
    """

    def __init__(self, folder: str | Path = Path(__file__).parent) -> None:
        self._facts = json.loads((Path(folder) / "host.json").read_text())

    def encode(self, samples: Array) -> Array:
        """Samples as the network's user has them, (N, *shape), channels first: the accelerator's integers.

        Raises:
            ValueError: another shape, or numbers that the network does not take.
        """
        entry = self._facts["input"]
        return _travelling(encoded(checked_samples(samples, tuple(entry["shape"])), entry["encoding"]), entry)

    def decode(self, results: Array) -> Array:
        """The accelerator's integers (N, ...) as the network's output values (N, *shape), float64."""
        return decoded(self.mantissas(results), self._facts["output"])

    def mantissas(self, results: Array) -> Array:
        """The accelerator's integers (N, ...) as those that the output's values are made of, (N, *shape)."""
        x = _arrived(np.asarray(results), self._facts["stream"])
        for step in self._facts["steps"]:
            x = _STEPS[step["op"]](x, step)
        return x


def _travelling(mantissas: Array, entry: dict[str, Any]) -> Array:
    """Mantissas (N, *shape) in the order in which they travel; as bytes where the driver packs those fast."""
    moved = mantissas.transpose(0, *(axis + 1 for axis in entry["axes"]))
    if entry["order"] is not None:
        moved = moved[:, entry["order"]]
    integers = (moved - _integers(entry["offset"])) // _integers(entry["multiplier"])
    kind = {"UINT8": np.uint8, "INT8": np.int8}.get(entry["type"], np.float32)
    return np.ascontiguousarray(integers, dtype=kind).reshape(len(moved), *entry["stream_shape"])


def _arrived(integers: Array, entry: dict[str, Any]) -> Array:
    """The accelerator's integers as mantissas (N, *shape)."""
    shape, axes = entry["shape"], entry["axes"]
    rows = np.rint(integers).astype(np.int64).reshape(len(integers), *(shape[axis] for axis in axes))
    whole = rows * _integers(entry["multiplier"]) + _integers(entry["offset"])
    if entry["order"] is not None:
        back = np.empty_like(whole)
        back[..., entry["order"]] = whole
        whole = back
    return whole.transpose(0, *(axes.index(place) + 1 for place in range(len(axes))))


def _affine(x: Array, step: dict[str, Any]) -> Array:
    multiplier, offset = (_per_channel(_integers(step[name]), x.ndim) for name in ("multiplier", "offset"))
    return _with_room(x, _bits(multiplier) + 1, _bits(offset)) * multiplier + offset


def _requant(x: Array, step: dict[str, Any]) -> Array:
    dropped, found = np.array(step["dropped_bits"]), x
    for bits in np.unique(dropped):
        found = np.where(dropped == bits, _bounded(x, int(bits), step), found)
    return found


def _bounded(x: Array, bits: int, step: dict[str, Any]) -> Array:
    """``x * 2**-bits`` rounded, then saturated or wrapped."""
    low, high, overflow = step["low"], step["high"], step["overflow"]
    rounded = _with_room(_rounded(x, bits, step["rounding"]), 1, (high - low).bit_length())
    if overflow in ("SAT", "SAT_SYM"):
        return np.clip(rounded, low, high)
    if overflow == "SAT_ZERO":
        return np.where((rounded < low) | (rounded > high), 0, rounded)
    span = high - low + 1  # a power of two: the bounds are the format's
    wrapped = (rounded - low) % span + low
    if overflow == "WRAP":
        return wrapped
    floor = _with_room(_rounded(x, bits, "TRN"), 1, span.bit_length())
    above_sign = (floor // span) % 2 == 1
    return np.where((wrapped != rounded) & (above_sign != (wrapped < 0)), ~wrapped, wrapped)


def _rounded(x: Array, bits: int, rounding: str) -> Array:
    """``x * 2**-bits`` as an integer: what a mode rounds up is what this addend carries over."""
    if bits <= 0:
        return _with_room(x, -bits) * (1 << -bits)
    x = _with_room(x, 1, bits)
    half, whole, negative = 1 << (bits - 1), (1 << bits) - 1, (x < 0).astype(x.dtype)
    addend = {
        "TRN": 0,
        "CEIL": whole,
        "TRN_ZERO": negative * whole,
        "UP": (1 - negative) * whole,
        "RND": half,
        "RND_MIN_INF": half - 1,
        "RND_INF": half - negative,
        "RND_ZERO": half - 1 + negative,
        "RND_CONV": half - 1 + ((x >> bits) & 1),
    }
    return (x + addend[rounding]) >> bits


def _table(x: Array, step: dict[str, Any]) -> Array:
    table = _integers(step["table"])
    index = (x - step["first"]).astype(np.int64)
    if len(table) == 1:
        return table[0][index]
    return table[_per_channel(np.arange(len(table)), x.ndim), index]


def _threshold(x: Array, step: dict[str, Any]) -> Array:
    thresholds, levels = _integers(step["thresholds"]), _integers(step["levels"])
    found = np.empty(x.shape, dtype=levels.dtype)
    for channel in range(x.shape[1] if x.ndim > 1 else 1):
        where = (slice(None), channel)[: x.ndim]
        reached = np.searchsorted(thresholds[channel % len(thresholds)], x[where], side="right")
        found[where] = levels[channel % len(levels)][reached]
    return found


def _reshape(x: Array, step: dict[str, Any]) -> Array:
    return x.reshape(len(x), *step["shape"])


def _transpose(x: Array, step: dict[str, Any]) -> Array:
    return x.transpose(0, *(axis + 1 for axis in step["axes"]))


_STEPS = {
    "Affine": _affine,
    "Requant": _requant,
    "Table": _table,
    "Threshold": _threshold,
    "Reshape": _reshape,
    "Transpose": _transpose,
}


def _per_channel(values: Array, rank: int) -> Array:
    """Numbers (C,) or (1,) as they broadcast over (N, C, ...)."""
    return values.reshape(1, -1, *[1] * (rank - 2)) if rank > 1 else values


def _integers(values: Any) -> Array:
    """Nested lists of integers as an array: int64 where they fit it."""
    array = np.array(values, dtype=object)
    return array.astype(np.int64) if _bits(array) < 63 else array


def _with_room(x: Array, more: int, least: int = 0) -> Array:
    """The array, as Python integers where sums of that many more bits go beyond int64."""
    return x if max(_bits(x) + more, least + 1) < 63 else x.astype(object)


def _bits(values: Array) -> int:
    """Bits of the largest magnitude."""
    return max(int(values.max(initial=0)).bit_length(), int(values.min(initial=0)).bit_length())


def _run(host: Host, samples: Array, bitfile: str, settings: str, batch: int) -> Array:
    """Samples through the accelerator, batch by batch."""
    from finn_plus_driver import get_driver_class

    driver = json.loads(Path(settings).read_text())["driver_information"]
    accelerator = get_driver_class(driver["driver_type"])(bitfile, **{**driver, "batch_size": batch})
    inputs, results = host.encode(samples), []
    for start in range(0, len(inputs), batch):
        part = inputs[start : start + batch]
        missing = [(0, batch - len(part))] + [(0, 0)] * (part.ndim - 1)
        results.append(accelerator.execute(np.pad(part, missing))[: len(part)])
    return host.decode(np.concatenate(results))


def main() -> None:
    """The command line: samples from a file, values to a file."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description="Runs samples on a board with FINN's accelerator.")
    parser.add_argument("samples", help="a .npy file: (N, *shape), channels first, as in training")
    parser.add_argument("values", help="the .npy file to write: the network's outputs, float64")
    parser.add_argument("--bitfile", default=str(here.parent / "bitfile" / "finn-accel.bit"))
    parser.add_argument("--settings", default=str(here / "settings.json"), help="FINN's, beside this script")
    parser.add_argument("--batch", type=int, default=1, help="samples that the accelerator takes at once")
    given = parser.parse_args()
    samples = np.load(given.samples, allow_pickle=False)
    np.save(given.values, _run(Host(here), samples, given.bitfile, given.settings, given.batch))


if __name__ == "__main__":
    main()
