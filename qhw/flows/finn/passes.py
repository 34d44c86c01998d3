"""The steps from the streamlined graph to FINN's dataflow model, each by FINN's own transformations.

FINN's own streamlining and its inference of Requant layers take no part: the graph comes streamlined, and
that inference takes thresholds within 1 % of even steps as even, which is inexact from 9 bits on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qhw.errors import UnsupportedError
from qhw.flows.finn.tools import library

if TYPE_CHECKING:
    from qonnx.core.modelwrapper import ModelWrapper

_TO_HARDWARE = "finn.transformation.fpgadataflow.convert_to_hw."
_DATAFLOW = "finn.transformation.fpgadataflow."

_HARDWARE_LAYERS = (
    # Thresholds first: FINN's RTL matrix unit takes none of its own.
    ("thresholds", "thresholding", "InferThresholdingLayer"),
    ("matrix units", "quantized_matrix_vector_activation", "InferQuantizedMatrixVectorActivation"),
    ("depthwise units", "vector_vector_activation", "InferVectorVectorActivation"),
    ("max pools", "pool", "InferPool"),
    ("sum pools", "pool_from_reduce", "InferPoolFromReduce"),
    ("windows", "conv_inp_gen", "InferConvInpGen"),
    ("concatenations", "concat", "InferConcatLayer"),
    ("splits", "split", "InferSplitLayer"),
    ("element-wise units", "elementwise_binary_operation", "InferElementwiseBinaryOperation"),
    ("reshapes", "reshape", "InferReshape"),
    ("forks", "duplicate_streams", "InferDuplicateStreamsLayer"),
)


@dataclass(frozen=True)
class Step:
    """One step: a name for messages, and what it does to a model."""

    name: str
    apply: Callable[[ModelWrapper], ModelWrapper]


def hardware_steps() -> list[Step]:
    """From the streamlined graph to FINN's hardware layers, whatever the board."""
    steps = [Step("types", _typed)]
    for title, module, name in _HARDWARE_LAYERS:
        steps.append(Step(title, _transforming(library(_TO_HARDWARE + module), name)))
    return [*steps, Step("bit widths", _minimised)]


def board_steps(
    part: str, scratch: Path, choose: Callable[[ModelWrapper], None], fold: Callable[[ModelWrapper], None]
) -> list[Step]:
    """From the hardware layers to the folded dataflow model of a device.

    Args:
        choose: states in a model which layers are to be RTL and which HLS, where FINN is not to choose.
        fold: gives every layer its folding.
    """
    specialised = library(_DATAFLOW + "specialize_layers").SpecializeLayers

    def specialise(model: ModelWrapper) -> ModelWrapper:
        choose(model)
        return _named(model.transform(specialised(part)))

    def folded(model: ModelWrapper) -> ModelWrapper:
        fold(model)
        return model

    return [
        Step("dataflow partition", lambda model: _partitioned(model, scratch)),
        Step("RTL and HLS variants", specialise),
        Step("folding", folded),
        Step("final bit widths", _minimised),
    ]


def _transforming(module: Any, name: str) -> Callable[[ModelWrapper], ModelWrapper]:
    def apply(model: ModelWrapper) -> ModelWrapper:
        return model.transform(getattr(module, name)())

    return apply


def _typed(model: ModelWrapper) -> ModelWrapper:
    shapes = library("qonnx.transformation.infer_shapes").InferShapes
    return _with_types(model.transform(shapes()))


def _with_types(model: ModelWrapper) -> ModelWrapper:
    return model.transform(library("qonnx.transformation.infer_datatypes").InferDataTypes())


def _minimised(model: ModelWrapper) -> ModelWrapper:
    """Weights, sums and thresholds in types as narrow as their numbers, as FINN's step_minimize_bit_width."""
    weights = library(_DATAFLOW + "minimize_weight_bit_width").MinimizeWeightBitWidth
    sums = library(_DATAFLOW + "minimize_accumulator_width").MinimizeAccumulatorWidth
    rounded = library("finn.transformation.streamline.round_thresholds").RoundAndClipThresholds
    model = _with_types(_named(model).transform(weights()).transform(sums()))
    model = _with_types(model.transform(rounded()))
    return _with_types(model.transform(weights()))


def _named(model: ModelWrapper) -> ModelWrapper:
    return model.transform(library("qonnx.transformation.general").GiveUniqueNodeNames())


def _partitioned(model: ModelWrapper, scratch: Path) -> ModelWrapper:
    """The one partition that the board carries out; refuses what is left outside of it."""
    from qonnx.core.modelwrapper import ModelWrapper as Wrapper

    check_streamed(model)
    create = library(_DATAFLOW + "create_dataflow_partition").CreateDataflowPartition
    parent = model.transform(create(partition_model_dir=str(scratch / "partitions")))
    parts = parent.get_nodes_by_op_type("StreamingDataflowPartition")
    operator = library("qonnx.custom_op.registry").getCustomOp
    return Wrapper(operator(parts[0]).get_nodeattr("model"))


def check_streamed(model: ModelWrapper, made_by: Mapping[str, str] | None = None) -> None:
    """Check that every node is one of FINN's hardware layers.

    Raises:
        UnsupportedError: names the first that is not.
    """
    for node in model.graph.node:
        if not node.domain.startswith("finn.custom_op.fpgadataflow"):
            source = (made_by or {}).get(node.output[0], node.output[0])
            raise UnsupportedError(
                f"FINN makes no hardware layer of {node.op_type}, written for '{source}'",
                hint="use --flow hls4ml, and please report the network",
            )
