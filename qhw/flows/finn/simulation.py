"""Every layer of a FINN design simulated on its own, without Vivado, against FINN's Python execution."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from qhw.errors import InputError, ToolMissingError, UnsupportedError
from qhw.flows.finn.compiled import Programs, default_cache
from qhw.flows.finn.hls_simulation import MEMORY, Compiler, Weights, call_layer
from qhw.flows.finn.layer_streams import Stream, checked, input_streams, output_streams
from qhw.flows.finn.rtl_simulation import Verilator, clock_layer
from qhw.flows.finn.sources import LayerSources, layer_sources, operators
from qhw.flows.finn.tools import finn
from qhw.rtl.simulation.verilator import Words

if TYPE_CHECKING:
    from qonnx.core.modelwrapper import ModelWrapper

AT_ONCE = 2
"""Layers that are compiled and run at a time."""

_BASE_TIMEOUT = 300.0
_TIMEOUT_PER_VECTOR = 60.0
_PATIENCE = 10_000
"""Cycles without a word, beside two intervals as FINN estimates them, after which a layer stands still."""

_LONGEST_REASON = 400
"""Characters of a compiler's complaint that are told."""

_AHEAD = {"FMPadding_rtl"}
"""Layers that write the frame of an image before the image comes: there may be words of one more."""


@dataclass(frozen=True)
class LayerCheck:
    """What the simulation of a layer showed.

    Args:
        layer: its name in the model.
        kind: FINN's operator.
        backend: what simulated it; "none" where nothing did.
        vectors: how many were simulated.
        codes: elements of its outputs that were compared.
        mismatches: those that differ, or never came, or came too many.
        first_difference: the tensor, vector, element and both values, or how many words came.
        cycles: clock cycles for all vectors at full rate; None where no clock was simulated, or where a word
            never came.
        reason: why nothing was simulated.
    """

    layer: str
    kind: str
    backend: Literal["verilator", "g++", "none"]
    vectors: int = 0
    codes: int = 0
    mismatches: int = 0
    first_difference: str | None = None
    cycles: int | None = None
    reason: str | None = None


@finn()
def simulate_layers(
    model: ModelWrapper,
    folder: Path,
    values: Mapping[str, NDArray[Any]],
    *,
    tell: Callable[[float | None, str], None] | None = None,
    timeout: float | None = None,
    cache: Path | None = None,
) -> list[LayerCheck]:
    """Simulate each layer on its own with the values of its inputs, and compare its outputs, word by word.

    RTL layers run in Verilator, at full rate. HLS layers are FINN's C++ for Vitis HLS, compiled by g++ with
    ``hls/finn`` in the place of finn-hlslib, which FINN's package does not hold: of such a layer the call and
    its parameters are checked, not AMD's library. A layer that cannot be simulated here says why.

    Args:
        model: specialised and folded, as :func:`generate_sources` took it.
        folder: the generated sources; nothing is written there.
        values: FINN's Python execution of a batch, by tensor: (N, *shape), channels last, numbers in float32.
        tell: receives the progress, as (share of the layers, what is being done).
        timeout: seconds that the simulation of one layer may take.
        cache: where compiled programs are kept; the user's cache where it is None.

    Returns:
        A check for each layer, in the model's order.

    Raises:
        InputError: a tensor has no values, or values of another shape; a layer has no sources.
        CheckFailedError: a simulation crashes, or takes longer than ``timeout``.
    """
    sources = layer_sources(model, folder)
    work = _Work(copy.deepcopy(model), folder, values, Programs(cache or default_cache()), timeout)
    layers = list(operators(work.model))
    for node, operator in layers:
        work.check_values(node, operator)
    checks = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [pool.submit(work.check, sources[node.name], node, operator) for node, operator in layers]
        try:
            for done, job in enumerate(jobs):
                if tell:
                    tell(done / len(jobs), f"simulating {layers[done][0].name}")
                checks.append(job.result())
        finally:
            pool.shutdown(cancel_futures=True)
    return checks


@dataclass(frozen=True)
class _Work:
    """What all layers' simulations have in common."""

    model: ModelWrapper
    folder: Path
    values: Mapping[str, NDArray[Any]]
    programs: Programs
    timeout: float | None

    def check_values(self, node: Any, operator: Any) -> None:
        """Raise InputError where a layer's tensors have no values, or of another shape, or unequally many."""
        try:
            streams = [*input_streams(self.model, node, operator), *output_streams(node, operator)]
        except UnsupportedError:
            return  # it is not simulated
        counts = {s.tensor: len(checked(s, self.values.get(s.tensor))) for s in streams}
        if len(set(counts.values())) > 1 or not all(counts.values()):
            told = ", ".join(f"{count} of '{name}'" for name, count in counts.items())
            raise InputError(
                f"the tensors of layer '{node.name}' have these vectors: {told}",
                allowed="equally many, not 0",
            )

    def check(self, sources: LayerSources, node: Any, operator: Any) -> LayerCheck:
        try:
            inputs = input_streams(self.model, node, operator)
            outputs = output_streams(node, operator)
            given = {stream: self.values[stream.tensor] for stream in inputs}
            simulate = self._in_verilator if sources.backend == "rtl" else self._by_compiler
            return simulate(sources, operator, given, outputs)
        except (UnsupportedError, ToolMissingError) as error:
            hint = f" ({error.hint})" if error.hint else ""
            reason = " ".join(f"{error.message}{hint}".split())[:_LONGEST_REASON]
            return LayerCheck(sources.layer, sources.kind, "none", reason=reason)

    def _in_verilator(
        self,
        sources: LayerSources,
        operator: Any,
        inputs: Mapping[Stream, NDArray[Any]],
        outputs: Sequence[Stream],
    ) -> LayerCheck:
        if "pumpedCompute" in operator.get_nodeattr_types() and operator.get_nodeattr("pumpedCompute"):
            raise UnsupportedError("it computes at twice the clock: only Vivado's simulator shows it")
        clocked = clock_layer(
            Verilator(self.programs),
            sources,
            self.folder,
            inputs,
            outputs,
            patience=_PATIENCE + 2 * int(operator.get_exp_cycles()),
            timeout=self._limit(inputs),
        )
        words = clocked.outputs
        if sources.kind in _AHEAD:
            count = _vectors(inputs)
            words = tuple(rows[: s.words * count] for s, rows in zip(outputs, words, strict=True))
        check = self._compared(sources, "verilator", outputs, words)
        return replace(check, cycles=clocked.cycles)

    def _by_compiler(
        self,
        sources: LayerSources,
        operator: Any,
        inputs: Mapping[Stream, NDArray[Any]],
        outputs: Sequence[Stream],
    ) -> LayerCheck:
        weights = (
            _weights(operator, _vectors(inputs)) if f"{sources.layer}/{MEMORY}" in sources.files else None
        )
        count = len(inputs) + (weights is not None)
        program = Compiler(self.programs).compile(sources, self.folder, count)
        called = call_layer(
            program, sources, self.folder, inputs, outputs, weights=weights, timeout=self._limit(inputs)
        )
        check = self._compared(sources, "g++", outputs, called.outputs)
        if called.fault and not check.mismatches:
            return replace(check, mismatches=check.codes, first_difference=called.fault)
        return check

    def _compared(
        self,
        sources: LayerSources,
        backend: Literal["verilator", "g++"],
        outputs: Sequence[Stream],
        words: Sequence[Words],
    ) -> LayerCheck:
        vectors = codes = mismatches = 0
        first = None
        for stream, rows in zip(outputs, words, strict=True):
            expected = self.values[stream.tensor]
            count, difference = stream.differences(rows, expected)
            vectors, codes, mismatches = len(expected), codes + expected.size, mismatches + count
            first = first or difference
        return LayerCheck(sources.layer, sources.kind, backend, vectors, codes, mismatches, first)

    def _limit(self, inputs: Mapping[Stream, NDArray[Any]]) -> float:
        return self.timeout or _BASE_TIMEOUT + _TIMEOUT_PER_VECTOR * _vectors(inputs)


def _vectors(inputs: Mapping[Stream, NDArray[Any]]) -> int:
    return len(next(iter(inputs.values())))


def _weights(operator: Any, vectors: int) -> Weights:
    """How a layer's memory plays its weights: a word a step of a product, else its words once a vector."""
    product = operator.onnx_node.op_type.startswith(("MVAU", "VVAU"))
    steps = operator.get_exp_cycles() if product else operator.calc_wmem()
    return Weights(operator.get_instream_width(1), int(steps) * vectors)
