"""The integer type of a model's input, where its file states none: annotated before lowering."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qhw.errors import InputError

if TYPE_CHECKING:
    from onnx import NodeProto
    from qonnx.core.modelwrapper import ModelWrapper

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
    """Whether a text names an integer type, as in ``uint8``."""
    return _NAME.fullmatch(text) is not None


def check_type(text: str) -> None:
    """Refuse a text that is not an integer type for an input."""
    found = _NAME.fullmatch(text)
    if found is None or int(found[1]) > LARGEST_BITS:
        raise InputError(
            f"{text!r} is not an integer type for an input",
            allowed=f"uint1 to uint{LARGEST_BITS}, int2 to int16",
        )
    if text == "int1":
        raise InputError("int1 holds only 0 and -1", allowed="int2, or uint1")


def annotate(model: ModelWrapper, given: str | None, has_images: bool) -> Annotation | None:
    """Say what integers an input of a model holds, in the model; None where nothing needs to be said.

    Args:
        given: the type that the user named.
        has_images: whether a data set goes in: an input that nothing quantises then has its images' type.

    Raises:
        InputError: the user named a type, and the model has several inputs, or one annotated otherwise.
    """
    from qonnx.core.datatype import DataType

    inputs = [value.name for value in model.graph.input]
    initial = {tensor.name for tensor in model.graph.initializer}
    inputs = [name for name in inputs if name not in initial]
    if given is not None:
        check_type(given)
        if len(inputs) != 1:
            raise InputError(
                f"One input type is given, but the model has {len(inputs)} inputs ({', '.join(inputs)})",
                hint="annotate them in the file (set_tensor_datatype in qonnx)",
            )
        found = Annotation(inputs[0], given, "given")
    elif has_images and len(inputs) == 1 and _is_unquantised(model, inputs[0]):
        found = Annotation(inputs[0], _OF_THE_DATA, "the data set's images, and nothing quantises the input")
    else:
        return None
    present = model.get_tensor_datatype(found.input)
    wanted = DataType[found.type.upper()]
    if present not in (DataType["FLOAT32"], wanted):
        raise InputError(
            f"The input '{found.input}' is annotated as {present.name} in the file, not as {wanted.name}",
            hint="leave the type out (--input), or change the file's annotation",
        )
    model.set_tensor_datatype(found.input, wanted)
    return found


def annotated_copy(source: Path, target: Path, given: str | None, has_images: bool) -> Annotation | None:
    """Write a model file with its input annotated; where nothing needs to be said, nothing is written."""
    from qonnx.core.modelwrapper import ModelWrapper

    from qhw.graph.reading.model_file import parse

    if given is None and not has_images:
        return None
    proto = parse(source)
    # Found again when the copy is read; qonnx fails where a name is there twice.
    del proto.graph.value_info[:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of domains' old names, which reading the copy settles
        model = ModelWrapper(proto)
    found = annotate(model, given, has_images)
    if found is not None:
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
