"""Runs samples on a Zynq board with PYNQ: encodes them, moves them by DMA, decodes what comes back.

    from driver import Accelerator
    values = Accelerator().run(images)

``images`` are a batch as the network's user has it, (N, *shape), channels first; ``values`` are its outputs,
float64. The folder holds this script, ``encoding.py``, ``accelerator.json``, ``accelerator.bit`` and
``accelerator.hwh``. NumPy is all that it needs, and PYNQ on the board. :class:`Network` needs no board.
From the command line:

    sudo -E python3 driver.py samples.npy values.npy
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qhw.zynq.encoding import Array, checked_samples, decoded, encoded

HERE = Path(__file__).resolve().parent

IDENTITY, VERSION, CONTROL, PACKET, STATUS, IMAGES, CYCLES = 0x00, 0x08, 0x0C, 0x10, 0x14, 0x18, 0x1C
"""Offsets of the registers."""

LARGEST_TRANSFER = (1 << 26) - 1
"""Bytes of the longest transfer that the DMA engines are built for."""


class Network:
    """What goes into a design and comes out of it, in the order in which it travels.

    Args:
        folder: the folder of ``accelerator.json``.
    """

    def __init__(self, folder: str | Path = HERE) -> None:
        self.facts: dict[str, Any] = json.loads((Path(folder) / "accelerator.json").read_text())
        self.inputs = {port["tensor"]: port for port in self.facts["inputs"]}
        self.outputs = {port["tensor"]: port for port in self.facts["outputs"]}

    def encode(self, samples: Array | Mapping[str, Array]) -> dict[str, Array]:
        """Samples (N, *shape), of several inputs by name, as the codes (N, *shape) that the design takes.

        Integers of two's complement are their own codes.

        Raises:
            ValueError: another shape, other names, or numbers that the network does not take.
        """
        return {
            name: _codes(
                encoded(checked_samples(x, tuple(port["shape"]), f"samples of '{name}'"), port["encoding"]),
                port,
            )
            for name, port, x in self._by_input(samples)
        }

    def decode(self, codes: Mapping[str, Array]) -> dict[str, Array]:
        """Codes of the outputs (N, *shape), by name, as their values, float64."""
        return {name: decoded(_mantissas(codes[name], port), port) for name, port in self.outputs.items()}

    def pack(self, codes: Mapping[str, Array]) -> list[Array]:
        """Codes of the inputs as they lie in memory: (N, elements of an image), an array for each input."""
        return [_packed(np.asarray(codes[name]), port) for name, port in self.inputs.items()]

    def unpack(self, memories: list[Array]) -> dict[str, Array]:
        """What was written to memory for each output, as codes (N, *shape) by name."""
        pairs = zip(memories, self.outputs.items(), strict=True)
        return {name: _unpacked(memory, port) for memory, (name, port) in pairs}

    def checked_codes(self, codes: Array | Mapping[str, Array]) -> dict[str, Array]:
        """Codes of the inputs (N, *shape) by name.

        Raises:
            ValueError: another shape, other names, or numbers that are no codes of the inputs.
        """
        found = {}
        for name, port, x in self._by_input(codes):
            array = checked_samples(x, tuple(port["shape"]), f"codes of '{name}'")
            bits, signed = port["bits"], not port["dtype"].startswith("u")
            low, high = (-1 << bits - 1, (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
            if array.dtype.kind == "f" or (array < low).any() or (array > high).any():
                raise ValueError(f"codes of '{name}' hold other numbers than integers from {low} to {high}")
            found[name] = array
        return found

    def _by_input(self, given: Array | Mapping[str, Array]) -> list[tuple[str, dict[str, Any], Array]]:
        """Each input's name, facts and array."""
        if isinstance(given, Mapping):
            arrays = {name: np.asarray(x) for name, x in given.items()}
        else:
            if len(self.inputs) != 1:
                raise ValueError(f"the network has inputs {', '.join(self.inputs)}: give a dict of arrays")
            arrays = dict.fromkeys(self.inputs, np.asarray(given))
        if set(arrays) != set(self.inputs):
            raise ValueError(f"arrays are given for {', '.join(arrays)}: {', '.join(self.inputs)} are needed")
        counts = {len(np.atleast_1d(x)) for x in arrays.values()}
        if len(counts) != 1:
            raise ValueError(f"the inputs have {sorted(counts)} samples: as many of each are needed")
        return [(name, port, arrays[name]) for name, port in self.inputs.items()]


def _codes(mantissas: Array, port: dict[str, Any]) -> Array:
    listed = port["codes"]
    if listed is None:
        return mantissas
    numbers = np.array(listed["numbers"])
    place = np.minimum(np.searchsorted(numbers, mantissas), len(numbers) - 1)
    if (numbers[place] != mantissas).any():
        raise ValueError(f"samples of '{port['tensor']}' hold numbers that its format does not have")
    return np.array(listed["codes"])[place]


def _mantissas(codes: Array, port: dict[str, Any]) -> Array:
    listed = port["codes"]
    if listed is None:
        return codes
    known = {int(code): number for code, number in listed["mantissas"].items()}
    found, where = np.unique(codes, return_inverse=True)
    if missing := [int(code) for code in found if int(code) not in known]:
        raise ValueError(f"the output '{port['tensor']}' holds the code {missing[0]}, which is no number")
    return np.array([known[int(code)] for code in found])[where].reshape(codes.shape)


def _packed(codes: Array, port: dict[str, Any]) -> Array:
    count, lanes, words, room = len(codes), port["lanes"], port["words"], port["word_elements"]
    if port["axes"] is None:
        flat = codes.reshape(count, words * lanes)[:, port["order"]]
    else:
        flat = codes.transpose(0, *(axis + 1 for axis in port["axes"]))
    memory = np.zeros((count, port["image_elements"]), dtype=port["dtype"])
    memory[:, : words * room].reshape(count, words, room)[:, :, :lanes] = flat.reshape(count, words, lanes)
    return memory


def _unpacked(memory: Array, port: dict[str, Any]) -> Array:
    count, shape = len(memory), port["shape"]
    lanes, words, room = port["lanes"], port["words"], port["word_elements"]
    flat = memory[:, : words * room].reshape(count, words, room)[:, :, :lanes].reshape(count, words * lanes)
    flat = flat.astype(object if port["dtype"] == "uint64" else np.int64)
    if port["axes"] is None:
        codes = np.empty_like(flat)
        codes[:, port["order"]] = flat
        return codes.reshape(count, *shape)
    axes = port["axes"]
    moved = flat.reshape(count, *(shape[axis] for axis in axes))
    return moved.transpose(0, *(axes.index(place) + 1 for place in range(len(axes))))


class Accelerator(Network):
    """The accelerator on the board that this script runs on.

    Args:
        bitfile: the bitstream; its ``.hwh`` lies beside it. Loading it resets everything.
        batch: images that a transfer moves at most.
        seconds: without an answer that are too many.
        folder: the folder of ``accelerator.json``.

    Raises:
        RuntimeError: the bitstream is that of another design.
    """

    def __init__(
        self,
        bitfile: str | Path | None = None,
        *,
        batch: int = 64,
        seconds: float = 10.0,
        folder: str | Path = HERE,
    ) -> None:
        super().__init__(folder)
        import pynq

        path = Path(folder) / "accelerator.bit" if bitfile is None else Path(bitfile)
        for needed in (path, path.with_suffix(".hwh")):
            if not needed.is_file():
                raise FileNotFoundError(
                    f"{needed} is not there: zynq/build.sh of the project makes it, with Vivado"
                )
        ports = [*self.facts["inputs"], *self.facts["outputs"]]
        longest = max(port["image_elements"] * np.dtype(port["dtype"]).itemsize for port in ports)
        if not 1 <= batch <= LARGEST_TRANSFER // longest:
            raise ValueError(f"batch is {batch}: 1 to {LARGEST_TRANSFER // longest} images fit a transfer")
        self.batch, self.seconds = batch, seconds
        overlay = pynq.Overlay(str(path))
        self._registers = getattr(overlay, self.facts["registers"])
        self._check_identity(path)
        self._sending = [getattr(overlay, f"dma_{i}").sendchannel for i in range(len(self.inputs))]
        self._receiving = [getattr(overlay, f"dma_{i}").recvchannel for i in range(len(self.outputs))]
        self._given, self._taken = (
            [pynq.allocate((batch, port["image_elements"]), dtype=port["dtype"]) for port in self.facts[kind]]
            for kind in ("inputs", "outputs")
        )

    def run(self, samples: Array | Mapping[str, Array]) -> Array | dict[str, Array]:
        """The network's outputs (N, *shape), float64, for samples (N, *shape); of several outputs by name.

        Raises:
            ValueError: samples that the network does not take; nothing was sent then.
            RuntimeError: the accelerator does not answer.
        """
        values = self.decode(self._run(self.encode(samples)))
        return values if len(values) > 1 else next(iter(values.values()))

    def run_codes(self, codes: Array | Mapping[str, Array]) -> Array | dict[str, Array]:
        """The same for codes, as :meth:`Network.encode` gives them: the outputs' codes."""
        found = self._run(self.checked_codes(codes))
        return found if len(found) > 1 else next(iter(found.values()))

    @property
    def counters(self) -> dict[str, int]:
        """Images since the last reset, and clock cycles in which one was inside."""
        read = self._registers.read
        return {"images": read(IMAGES), "cycles": read(CYCLES) | read(CYCLES + 4) << 32}

    def reset(self) -> None:
        """Empty the network, and begin its counters anew; transfers that hang need the bitstream anew."""
        self._registers.write(CONTROL, 1)
        self._until(lambda: not self._registers.read(CONTROL) & 1, "the network's reset is not over")

    def _check_identity(self, path: Path) -> None:
        words = [self._registers.read(IDENTITY), self._registers.read(IDENTITY + 4)]
        found = "".join(f"{word:08x}" for word in words)
        if found != self.facts["identity"]:
            raise RuntimeError(
                f"{path} holds the design {found}, accelerator.json describes {self.facts['identity']}: "
                "copy the folder of one build"
            )
        if (version := self._registers.read(VERSION)) != 1:
            raise RuntimeError(f"{path} has registers of version {version}, this script knows version 1")

    def _run(self, codes: dict[str, Array]) -> dict[str, Array]:
        memories = self.pack(codes)
        count = len(memories[0])
        parts: list[list[Array]] = [[np.empty((0, b.shape[1]), b.dtype)] for b in self._taken]
        for start in range(0, count, self.batch):
            size = min(self.batch, count - start)
            for buffer, memory in zip(self._given, memories, strict=True):
                buffer[:size] = memory[start : start + size]
            self._transfer(size)
            for part, buffer in zip(parts, self._taken, strict=True):
                part.append(np.array(buffer[:size]))
        return self.unpack([np.concatenate(part) for part in parts])

    def _transfer(self, size: int) -> None:
        """That many images through the network, from and to the buffers."""
        self._registers.write(PACKET, size)
        before = self._registers.read(IMAGES)
        moves = [
            *zip(self._receiving, self._taken, strict=True),
            *zip(self._sending, self._given, strict=True),
        ]
        for channel, buffer in moves:  # who receives is ready before anything is sent
            channel.transfer(buffer, nbytes=size * (buffer.nbytes // len(buffer)))
        self._until(lambda: all(channel.idle for channel, _ in moves), "the accelerator does not answer")
        for channel, _ in moves:
            channel.wait()
        left = (self._registers.read(IMAGES) - before) % (1 << 32)
        if left != size or self._registers.read(STATUS) & 2:
            raise RuntimeError(
                f"{left} of {size} images came back, or a transfer ended within an image: "
                "load the bitstream again"
            )

    def _until(self, over: Any, complaint: str) -> None:
        end = time.monotonic() + self.seconds
        while not over():
            if time.monotonic() > end:
                status, images = self._registers.read(STATUS), self._registers.read(IMAGES)
                raise RuntimeError(
                    f"{complaint} within {self.seconds:g} s (status {status:#x}, {images} images left the "
                    "network): load the bitstream again, or allow more seconds"
                )


def main() -> None:
    """The command line: samples from a file, values to a file."""
    parser = argparse.ArgumentParser(description="Runs samples on a Zynq board.")
    parser.add_argument("samples", help="a .npy file: (N, *shape), channels first, as in training")
    parser.add_argument("values", help="the .npy file to write (.npz for several outputs): values, float64")
    parser.add_argument("--bitfile", default=str(HERE / "accelerator.bit"))
    parser.add_argument("--batch", type=int, default=64, help="images that a transfer moves")
    given = parser.parse_args()
    accelerator = Accelerator(given.bitfile, batch=given.batch)
    samples = np.load(given.samples, allow_pickle=False)
    started = time.perf_counter()
    values = accelerator.run(dict(samples) if hasattr(samples, "files") else samples)
    seconds = time.perf_counter() - started
    if isinstance(values, dict):
        np.savez(given.values, **values)
    else:
        np.save(given.values, values)
    counted = accelerator.counters
    spent = counted["cycles"] / accelerator.facts["clock_mhz"] / 1e6
    print(f"{counted['images']} images: {spent:.6f} s in the network, {seconds:.3f} s in all")


if __name__ == "__main__":
    main()
