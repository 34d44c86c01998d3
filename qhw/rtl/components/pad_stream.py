"""An image within a larger one: pixels around it or between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qhw.rtl.base import CountedStream, Parameter, Port, Ports, Values, Words
from qhw.rtl.components import places
from qhw.rtl.shared.counting import Counting, Taken
from qhw.rtl.shared.walks import WALK, Masked, MaskMachine, check_walk, part_words, within


class Padded(Masked):
    """Whether each word of an output image comes from the input."""

    kind = 3

    def machine(self) -> PadMachine:
        return PadMachine(self.within.tolist())


class PadMachine(MaskMachine):
    """The place in the output image."""

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (inputs[0] or not self.within[self.place],)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        return (outputs[0] and self.within[self.place],)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        if outputs[0] and self.valid(inputs)[0]:
            self.place = (self.place + 1) % len(self.within)


def _reference(values: Values, given: Words) -> Words:
    """Images of the fill, with what came in their parts: by slices of an array."""
    images = len(given["x"]) // part_words(values)
    larger = np.full((images, values["R"], values["N"], values["C"]), values["FILL"], dtype=object)
    starts, counts, steps = ([values[f"{axis}{which}"] for axis in "RNC"] for which in "01S")
    rows, pixels, words = map(slice, starts, np.add(starts, np.multiply(counts, steps)), steps)
    shape = images, values["R1"], values["N1"], values["C1"]
    larger[:, rows, pixels, words] = np.array(given["x"], dtype=object).reshape(shape)
    return {"y": larger.reshape(-1).tolist()}


def _counted(values: Values, counting: Counting) -> Taken:
    return places.counted(values, counting) + Taken(lut=float(values["W"]))


UNIT = CountedStream(
    name="pad_stream",
    summary="an image within a larger one, filled up",
    ranges=(
        Parameter("W", 1, 1 << 14, "bits of a word"),
        *WALK,
        Parameter("FILL", 0, (1 << 62) - 1, "the word in all other places", default=0),
    ),
    sources=("cycle", "place", "places", "pad_stream"),
    ports=lambda values: Ports((Port("x", values["W"]),), (Port("y", values["W"]),), ()),
    rule=lambda values: check_walk("pad_stream", values),
    image=lambda values: (part_words(values),),
    reference=_reference,
    timing=lambda values: Padded(within(values)),
    counted=_counted,
    samples=tuple(dict(sample) | {"W": bits, "FILL": fill} for sample, bits, fill in places.FILLED),
)
