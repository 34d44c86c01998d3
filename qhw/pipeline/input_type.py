"""The integer type of a model's input, where its file states none: annotated before lowering."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qhw.errors import InputError, closest

if TYPE_CHECKING:
    from onnx import NodeProto
    from qonnx.core.modelwrapper import ModelWrapper

    from qhw.data import Dataset

LARGEST_BITS = 16
"""Bits up to which a table may look up an input."""

_NAME = re.compile(r"u?int([1-9][0-9]?)")
_MOVES = ("Cast", "Dropout", "Flatten", "Identity", "Pad", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_OF_THE_DATA = "uint8"
"""The integer type of every data set's images."""


@dataclass(frozen=True)
class Annotation:
    """An integer type that was given to an input of a file; ``why`` says by whom."""

    input: str
    type: str
    why: str

    def to_json(self) -> dict[str, str]:
        """The annotation as the manifest stores it."""
        return {"input": self.input, "type": self.type, "why": self.why}


def is_type_name(text: str) -> bool:
    """Whether a text names an integer type, as in ``uint8``, or one for each input, as in ``image=uint8``."""
    return all(_NAME.fullmatch(part.rpartition("=")[2]) is not None for part in text.split(","))


def check_type(text: str) -> None:
    """Refuse a text that is not an integer type for an input, nor one for each input."""
    for part in text.split(","):
        _check_one(part.rpartition("=")[2])


def _check_one(text: str) -> None:
    found = _NAME.fullmatch(text)
    if found is None or int(found[1]) > LARGEST_BITS:
        raise InputError(
            f"{text!r} is not an integer type for an input",
            allowed=f"uint1 to uint{LARGEST_BITS}, int2 to int16; of several inputs image=uint8,depth=int12",
        )
    if text == "int1":
        raise InputError("int1 holds only 0 and -1", allowed="int2, or uint1")


def input_names(model: ModelWrapper) -> tuple[str, ...]:
    """The inputs of a file, in order, without constants that are listed among them."""
    initial = {tensor.name for tensor in model.graph.initializer}
    return tuple(value.name for value in model.graph.input if value.name not in initial)


def annotate(model: ModelWrapper, given: str | None, has_images: bool | Collection[str]) -> list[Annotation]:
    """Say what integers the inputs of a model hold, in the model; nothing where nothing needs to be said.

    Args:
        given: the type that the user named, or one for each of some inputs: ``image=uint8,depth=int12``.
        has_images: the inputs that the images of a data set go into (True: every one): those that nothing
            quantises then have the images' type.

    Raises:
        InputError: the user named a type, and the model has no such input, several, or has it annotated
            otherwise.
    """
    from qonnx.core.datatype import DataType

    inputs = input_names(model)
    images = inputs if has_images is True else has_images or ()
    found = _given(given, inputs) or [
        Annotation(name, _OF_THE_DATA, "the data set's images, and nothing quantises the input")
        for name in inputs
        if name in images and _is_unquantised(model, name)
    ]
    for annotation in found:
        present = model.get_tensor_datatype(annotation.input)
        wanted = DataType[annotation.type.upper()]
        if present not in (DataType["FLOAT32"], wanted):
            raise InputError(
                f"The input '{annotation.input}' is annotated as {present.name} in the file, not as "
                f"{wanted.name}",
                hint="leave the type out (--input), or change the file's annotation",
            )
        model.set_tensor_datatype(annotation.input, wanted)
    return found


def _given(text: str | None, inputs: Collection[str]) -> list[Annotation]:
    """What a user said of a model's inputs."""
    if text is None:
        return []
    check_type(text)
    found = []
    for part in text.split(","):
        name, equals, type_name = part.rpartition("=")
        if not equals and len(inputs) != 1:
            raise InputError(
                f"One input type is given, but the model has {len(inputs)} inputs ({', '.join(inputs)})",
                hint=f"name the input: --input {next(iter(inputs), 'NAME')}={text}",
            )
        if equals and name not in inputs:
            raise InputError(
                f"A type is given for the input {name!r}, which the model has not",
                allowed=", ".join(inputs),
                hint=closest(name, inputs),
            )
        found.append(Annotation(name if equals else next(iter(inputs)), type_name, "given"))
    return found


def annotated_copy(source: Path, target: Path, given: str | None, data: Dataset | None) -> list[Annotation]:
    """Write a model file with its inputs annotated; where nothing needs to be said, nothing is written.

    Args:
        given: as for :func:`annotate`.
        data: the data set that goes in, if any.
    """
    from qonnx.core.modelwrapper import ModelWrapper

    from qhw.graph.reading.model_file import parse

    if given is None and (data is None or not data.holds_pixels):
        return []
    proto = parse(source)
    # Found again when the copy is read; qonnx fails where a name is there twice.
    del proto.graph.value_info[:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of domains' old names, which reading the copy settles
        model = ModelWrapper(proto)
    images = () if data is None else data.pixel_inputs(input_names(model), "the model")
    found = annotate(model, given, images)
    if found:
        model.save(str(target))
    return found


def _is_unquantised(model: ModelWrapper, name: str) -> bool:
    """Whether a float tensor is read by something else than a quantizer.

    What only moves codes, and products with powers of two, may come before the quantizer.
    """
    from qonnx.core.datatype import DataType

    from qhw.graph.reading.normal_form import QUANTIZERS

    if model.get_tensor_datatype(name) != DataType["FLOAT32"]:
        return False
    readers = [node for node in model.graph.node if name in node.input]
    for node in readers:
        if node.op_type in QUANTIZERS or node.op_type in ("QuantizeLinear", "IntQuant", "Sign"):
            continue
        passes = node.op_type in _MOVES or _multiplies_by_powers_of_two(model, node, name)
        if not passes or _is_unquantised(model, node.output[0]):
            return True
    return False


def _multiplies_by_powers_of_two(model: ModelWrapper, node: NodeProto, name: str) -> bool:
    if node.op_type not in ("Mul", "Div") or node.input[0] != name:
        return False
    factors = model.get_initializer(node.input[1])
    if factors is None:
        producer = model.find_producer(node.input[1])
        if producer is None or producer.op_type != "Constant":
            return False
        from onnx import numpy_helper

        factors = numpy_helper.to_array(producer.attribute[0].t)
    mantissas, _ = np.frexp(np.abs(np.asarray(factors, dtype=np.float64)))
    return bool((mantissas == 0.5).all())
