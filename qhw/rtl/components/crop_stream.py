"""A part of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qhw.rtl.base import CountedStream, Parameter, Port, Ports, Values, Words
from qhw.rtl.components import places
from qhw.rtl.shared.walks import WALK, Masked, MaskMachine, check_walk, within


class Cropped(Masked):
    """Whether each word of an input image goes to the output."""

    kind = 4

    def machine(self) -> CropMachine:
        return CropMachine(self.within.tolist())


class CropMachine(MaskMachine):
    """The place in the input image."""

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (inputs[0] and self.within[self.place],)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        return (outputs[0] or not self.within[self.place],)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        if inputs[0] and self.ready(inputs, outputs)[0]:
            self.place = (self.place + 1) % len(self.within)


def _reference(values: Values, given: Words) -> Words:
    """The part of each image: slices of an array."""
    images = np.array(given["x"], dtype=object).reshape(-1, values["R"], values["N"], values["C"])
    for at, axis in enumerate("RNC", 1):
        taken = values[f"{axis}0"] + np.arange(values[f"{axis}1"]) * values[f"{axis}S"]
        images = images.take(taken, axis=at)
    return {"y": images.reshape(-1).tolist()}


UNIT = CountedStream(
    name="crop_stream",
    summary="a part of an image; the other words are dropped",
    ranges=(Parameter("W", 1, 1 << 14, "bits of a word"), *WALK),
    sources=("cycle", "place", "places", "crop_stream"),
    ports=lambda values: Ports((Port("x", values["W"]),), (Port("y", values["W"]),), ()),
    rule=lambda values: check_walk("crop_stream", values),
    image=lambda values: (values["R"] * values["N"] * values["C"],),
    reference=_reference,
    timing=lambda values: Cropped(within(values)),
    counted=places.counted,
    samples=tuple(dict(sample) | {"W": bits} for sample, bits, _ in places.FILLED),
)
